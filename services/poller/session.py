"""Finds a gateway, verifies its certificate and authenticates: one path for the service, ``--once`` and ``--check``.

::

    SEARCHING ──find()──► FOUND ──authenticate()──► AUTHENTICATED
        ▲                   ▲                            │
        │                   └──reject() · offer_token()──┤
        └──────────────────────lose()────────────────────┘

While searching, only ``/info`` is fetched, without any credential. FOUND means that the certificate of this very
connection is verified: it is the given or the pinned one, or it was pinned now because the gateway had none. Only then
is a credential attached, and a token only if it is for this gateway. A gateway with a pinned or given certificate is
never read without TLS; a token goes over plain HTTP only where ENVOY_HOST begins with ``http://``.
"""

import enum
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from services.poller.certificates import PinStore, fetch_fingerprint
from services.poller.clock import GatewayClock
from services.poller.credentials import Credential, Credentials
from services.poller.endpoints import TIMEOUT_S
from services.poller.envoy import Envoy
from services.poller.errors import BadResponse, GatewayError, GatewayUnavailable, GatewayUntrusted, TokenRejected
from services.poller.identity import Identity
from services.poller.settings import EnvoySettings
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
        pins: PinStore,
        *,
        envoy: Envoy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare a session; nothing is requested yet.

        Args:
            settings: where the gateway is and how to authenticate.
            pins: the pinned certificates.
            envoy: the HTTP client; one of its own if None.
            clock: ours, epoch seconds.
        """
        self.envoy = envoy if envoy is not None else Envoy(clock)
        self.clock = GatewayClock(clock)
        self.identity: Identity | None = None
        """Of the gateway that was found last."""
        self.credential: Credential | None = None
        """What is attached, or was attached last."""
        self.state = State.SEARCHING
        self._settings = settings
        self._pins = pins
        self._credentials = Credentials(settings, clock)

    @property
    def name(self) -> str:
        """The gateway's serial number, or ENVOY_HOST until it is found."""
        return self.identity.serial if self.identity is not None else self._settings.host

    def find(self) -> Identity:
        """Find the gateway over HTTPS or HTTP, verify its certificate, and return which gateway it is.

        Raises:
            GatewayUnavailable: it does not respond.
            GatewayUntrusted: its certificate is not the one that was expected, or it cannot be pinned.
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
        host, fingerprint = self._settings.host, self._settings.cert_fingerprint
        if "://" not in host:
            return [f"https://{host}"] if fingerprint is not None else [f"https://{host}", f"http://{host}"]
        if host.startswith("http://") and fingerprint is not None:
            raise GatewayUntrusted(f"{host} has no certificate, and ENVOY_CERT_FINGERPRINT requires one; use https://")
        return [host]

    def _find_at(self, base_url: str) -> Identity:
        """Return the gateway at an address, with its certificate verified."""
        url = urlsplit(base_url)
        fingerprint = None
        if url.scheme == "https":
            try:
                fingerprint = fetch_fingerprint(url.hostname or "", url.port or 443, TIMEOUT_S)
            except (OSError, UnicodeError) as error:
                raise GatewayUnavailable(f"{base_url}: {error}") from error
        self.envoy.connect(base_url, fingerprint)
        info = self.envoy.fetch_info()
        identity = info.identity
        if self._settings.serial not in (None, identity.serial):
            raise BadResponse(f"{base_url} is gateway {identity.serial}, and ENVOY_SERIAL is {self._settings.serial}")
        if fingerprint is not None:
            self._verify_certificate(identity.serial, fingerprint)
        else:
            self._verify_plain_http(identity, base_url)
        self.clock.observe(info.time, info.received_at, info.built_at)
        if not identity.keeps_connections:
            self.envoy.close_after_each_request()
        return identity

    def _verify_certificate(self, serial: str, presented: str) -> None:
        given = self._settings.cert_fingerprint
        expected = given if given is not None else self._pins.lookup(serial)
        if expected is None:
            self._pin(serial, presented)
        elif presented != expected:
            how = "set ENVOY_CERT_FINGERPRINT to it" if given else f"delete {self._pins.path(serial)}"
            raise GatewayUntrusted(
                f"gateway {serial} presents the certificate {presented} instead of {expected}; no credential was sent. "
                f"If the new one is the gateway's own, {how}"
            )

    def _pin(self, serial: str, presented: str) -> None:
        try:
            self._pins.pin(serial, presented)
        except OSError as error:
            raise GatewayUntrusted(
                f"cannot write {self._pins.path(serial)}, to pin the certificate of gateway {serial}: {error}"
            ) from error

    def _verify_plain_http(self, identity: Identity, base_url: str) -> None:
        if self._pins.lookup(identity.serial) is not None:
            raise GatewayUntrusted(
                f"gateway {identity.serial} responds without TLS at {base_url}, although its certificate is pinned in "
                f"{self._pins.path(identity.serial)}; no credential was sent. Unless it is starting up, this may be an "
                "impostor"
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
