"""Finds a gateway, verifies its certificate and authenticates: one path for the service, ``--once`` and ``--check``.

::

    SEARCHING ──find()──► FOUND ──authenticate()──► AUTHENTICATED
        ▲                   ▲                            │
        │                   └──reject() · offer_token()──┤
        └──────────────────────lose()────────────────────┘

While searching, only ``/info`` is fetched, without any credential. FOUND means that it is the gateway that responded
at this address before, and that the certificate of this very connection is verified: it is the given or the pinned one,
or has the pinned one's key; what was not known before is trusted once. Only then is a credential attached, and a token
only if it is for this gateway. A gateway with a pinned or given certificate is never read without TLS; a token goes
over plain HTTP only where ENVOY_HOST begins with ``http://``.
"""

import enum
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from services.poller.certificates import Certificate, fetch_certificate
from services.poller.clock import GatewayClock
from services.poller.credentials import Credential, Credentials
from services.poller.endpoints import TIMEOUT_S
from services.poller.envoy import Envoy
from services.poller.errors import BadResponse, GatewayError, GatewayUnavailable, GatewayUntrusted, TokenRejected
from services.poller.identity import Identity
from services.poller.settings import EnvoySettings
from services.poller.trust import ACCEPT_COMMAND, TrustStore
from shared.tokens import Token


class State(enum.Enum):
    """How far a session has come."""

    SEARCHING = enum.auto()
    FOUND = enum.auto()
    """The gateway is found and its certificate verified; no credential is attached."""
    AUTHENTICATED = enum.auto()


class Session:
    """The way to one gateway."""

    def __init__(
        self,
        settings: EnvoySettings,
        trust: TrustStore,
        *,
        envoy: Envoy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare a session; nothing is requested yet.

        Args:
            settings: where the gateway is and how to authenticate.
            trust: what was verified before.
            envoy: the HTTP client; one of its own if None.
            clock: ours, epoch seconds.
        """
        self.envoy = envoy if envoy is not None else Envoy(clock)
        self.clock = GatewayClock(clock)
        self.identity: Identity | None = None
        """Of the gateway that was found last."""
        self.certificate: Certificate | None = None
        """Of the gateway that was found last; None for plain HTTP."""
        self.credential: Credential | None = None
        """What is attached, or was attached last."""
        self.state = State.SEARCHING
        self._settings = settings
        self._trust = trust
        self._required_fingerprint = settings.cert_fingerprint
        self._credentials = Credentials(settings, clock)

    @property
    def name(self) -> str:
        """The gateway's serial number, or ENVOY_HOST until it is found."""
        return self.identity.serial if self.identity is not None else self._settings.host

    def find(self) -> Identity:
        """Find the gateway over HTTPS or HTTP, verify its certificate, and return which gateway it is.

        Raises:
            GatewayUnavailable: it does not respond.
            GatewayUntrusted: it is not the gateway that was verified before, or that cannot be verified.
            TokenRejected: it rejects even ``/info``.
            BadResponse: it is not an Envoy, or another than ENVOY_SERIAL.
        """
        self.state = State.SEARCHING
        failures: dict[str, GatewayError] = {}
        for base_url in self._candidate_urls():
            try:
                self.identity = self._find_at(base_url)
            except (GatewayUntrusted, TokenRejected):
                raise
            except GatewayError as error:
                # Something else may listen there, such as a proxy in front of an old gateway.
                failures[base_url] = error
            else:
                self.state = State.FOUND
                return self.identity
        raise _merged(failures)

    def accept_certificate(self, fingerprint: str) -> Identity:
        """Find the gateway, pin its certificate if it has this fingerprint, and return which gateway it is.

        Raises:
            GatewayUntrusted: it presents another certificate, or ENVOY_CERT_FINGERPRINT requires another.
            GatewayError: as for :meth:`find`.
        """
        if self._required_fingerprint not in (None, fingerprint):
            raise GatewayUntrusted(
                f"ENVOY_CERT_FINGERPRINT of {self._settings.host} is {self._required_fingerprint}; "
                f"set it to {fingerprint}"
            )
        self._required_fingerprint = fingerprint
        return self.find()

    def authenticate(self) -> Credential | None:
        """Attach the preferred credential and return it; None if there is none now."""
        credential = self.usable_credential(time.monotonic())
        if credential is not None:
            self.envoy.authenticate(credential.auth)
            self.credential = credential
            self.state = State.AUTHENTICATED
        return credential

    def usable_credential(self, now: float) -> Credential | None:
        """Return what :meth:`authenticate` would attach at a time of the monotonic clock."""
        if self.state is State.SEARCHING or self.identity is None:
            return None
        return self._credentials.choose(self.identity, now)

    def offer_token(self, token: Token) -> None:
        """Take a token from the broker; where it is preferred to the attached one, authenticate again."""
        if not self._credentials.offer(token) or self.state is not State.AUTHENTICATED:
            return
        preferred, attached = self.usable_credential(time.monotonic()), self.credential
        if preferred is not None and (attached is None or preferred.secret != attached.secret):
            self.state = State.FOUND

    def reject(self) -> None:
        """Note that the gateway rejected the attached credential: authenticate with another, or with it later."""
        if self.credential is not None:
            self._credentials.reject(self.credential, time.monotonic())
        self.state = State.FOUND

    def lose(self) -> None:
        """Note that the gateway no longer responds: it may come back with another address, certificate or firmware."""
        self.state = State.SEARCHING

    def missing_token_hint(self) -> str:
        """Return what to do where no credential is usable."""
        return self._credentials.missing_hint(self.identity) if self.identity is not None else "not found yet"

    def _candidate_urls(self) -> list[str]:
        host, is_required = self._settings.host, self._required_fingerprint is not None
        if "://" not in host:
            return [f"https://{host}"] if is_required else [f"https://{host}", f"http://{host}"]
        if host.startswith("http://") and is_required:
            raise GatewayUntrusted(f"{host} has no certificate, and one is required; use https://")
        return [host]

    def _find_at(self, base_url: str) -> Identity:
        """Return the gateway at an address, with its certificate verified."""
        url = urlsplit(base_url)
        certificate = None
        if url.scheme == "https":
            try:
                certificate = fetch_certificate(url.hostname or "", url.port or 443, TIMEOUT_S)
            except (OSError, UnicodeError) as error:
                raise GatewayUnavailable(f"{base_url}: {error}") from error
        self.envoy.connect(base_url, certificate.fingerprint if certificate is not None else None)
        info = self.envoy.fetch_info()
        identity = info.identity
        self._verify_serial(identity.serial, base_url)
        if certificate is not None:
            self._verify_certificate(identity.serial, certificate)
        else:
            self._verify_plain_http(identity, base_url)
        self._trust.remember(self._settings.host, identity.serial)
        self.certificate = certificate
        self.clock.observe(info.time, info.received_at, info.built_at)
        if not identity.keeps_connections:
            self.envoy.close_after_each_request()
        return identity

    def _verify_serial(self, serial: str, base_url: str) -> None:
        """Verify that it is the gateway that ENVOY_SERIAL names, or else the one that responded here before."""
        if (named := self._settings.serial) is not None:
            if named != serial:
                raise BadResponse(f"{base_url} is gateway {serial}, and ENVOY_SERIAL is {named}")
            return
        before = self._trust.serial_at(self._settings.host)
        if before not in (None, serial):
            raise GatewayUntrusted(
                f"{base_url} responds as gateway {serial}, and was gateway {before} before; no credential was sent. "
                f"Unless the gateway was replaced, this may be an impostor; if it was, set ENVOY_SERIAL={serial}"
            )

    def _verify_certificate(self, serial: str, presented: Certificate) -> None:
        """Verify that a certificate is the required or the pinned one, or has the pinned one's key; pin it if so."""
        if (required := self._required_fingerprint) is not None:
            if presented.fingerprint != required:
                how = "set ENVOY_CERT_FINGERPRINT to it" if self._settings.cert_fingerprint else "accept that one"
                raise GatewayUntrusted(
                    f"gateway {serial} presents the certificate {presented.fingerprint} instead of {required}; "
                    f"no credential was sent. If it is the gateway's own, {how}"
                )
            self._trust.pin(serial, presented, "you named it")
            return
        pin = self._trust.pinned(serial)
        if pin is None:
            self._trust.pin(serial, presented, "it is the first")
        elif presented.fingerprint == pin.fingerprint:
            self._trust.pin(serial, presented, "its key is pinned now, too")
        elif pin.key_fingerprint is not None and presented.key_fingerprint == pin.key_fingerprint:
            self._trust.pin(serial, presented, f"it has the same key as {pin.fingerprint}, which it replaces")
        else:
            raise GatewayUntrusted(
                f"gateway {serial} presents the certificate {presented.fingerprint} instead of {pin.fingerprint}; "
                "no credential was sent. A gateway renews its certificate once a year, but this may be an impostor: "
                f"verify that it is the gateway's, then run `{ACCEPT_COMMAND} {presented.fingerprint}`"
            )

    def _verify_plain_http(self, identity: Identity, base_url: str) -> None:
        """Verify that no gateway with TLS was here before, and that nothing secret would be sent unencrypted."""
        serials = [identity.serial]
        if "://" not in self._settings.host and (before := self._trust.serial_at(self._settings.host)) is not None:
            serials.append(before)
        for serial in serials:
            if self._trust.pinned(serial) is not None:
                raise GatewayUntrusted(
                    f"{base_url} responds without TLS as gateway {identity.serial}, although the certificate of "
                    f"gateway {serial} is pinned in {self._trust.pin_path(serial)}; no credential was sent. Unless the "
                    "gateway is starting up, this may be an impostor"
                )
        if identity.needs_token and "://" not in self._settings.host:
            raise GatewayUnavailable(
                f"{base_url}: gateway {identity.serial} has firmware {identity.firmware}, whose token is sent over "
                f"HTTPS only; set ENVOY_HOST={base_url} to send it unencrypted"
            )


def _merged(failures: dict[str, GatewayError]) -> GatewayError:
    """Return one error for all addresses that were tried."""
    if len(failures) == 1:
        return next(iter(failures.values()))
    message = "; ".join(
        str(failure) if base_url in str(failure) else f"{base_url}{failure}" for base_url, failure in failures.items()
    )
    waits_s = (each.retry_after_s for each in failures.values() if isinstance(each, GatewayUnavailable))
    return GatewayUnavailable(message, max(waits_s, default=0.0))
