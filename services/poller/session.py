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
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from pydantic import SecretStr
from requests.auth import AuthBase, HTTPDigestAuth

from services.poller.certificates import PinStore, fetch_fingerprint
from services.poller.clock import GatewayClock
from services.poller.endpoints import TIMEOUT_S
from services.poller.envoy import BearerToken, Envoy
from services.poller.errors import BadResponse, GatewayError, GatewayUnavailable, GatewayUntrusted, TokenRejected
from services.poller.identity import Identity
from services.poller.settings import EnvoySettings
from shared.tokens import InvalidToken, Token, parse_token

logger = logging.getLogger(__name__)

REJECTED_RETRY_S = 300.0
"""A rejected credential is not sent again before; the gateway's clock or ours may have been wrong."""

Source = Literal["ENVOY_TOKEN", "the token at the broker", "password"]


class State(enum.Enum):
    """How far a session has come."""

    SEARCHING = enum.auto()
    FOUND = enum.auto()
    """The gateway is found and its certificate verified; no credential is attached."""
    AUTHENTICATED = enum.auto()


@dataclass(frozen=True, slots=True)
class Credential:
    """What a gateway is sent to authenticate."""

    source: Source
    name: str
    """For messages."""
    secret: SecretStr
    auth: AuthBase


class Credentials:
    """Chooses what to authenticate with: the password, ENVOY_TOKEN or a token from the broker."""

    def __init__(self, settings: EnvoySettings, clock: Callable[[], float] = time.time) -> None:
        """Prepare the choice.

        Args:
            settings: user name, password and token.
            clock: epoch seconds.
        """
        self._settings = settings
        self._clock = clock
        self._offered: dict[str, Token] = {}
        """Tokens from the broker, by serial number."""
        self._blocked_until: dict[str, float] = {}
        """When a rejected secret may be sent again, on the monotonic clock."""
        self._manual_rejected = False

    def choose(self, identity: Identity, now: float) -> Credential | None:
        """Return what to authenticate with now; None if there is nothing, or only what was rejected a moment ago."""
        for candidate in self._candidates(identity):
            if self._blocked_until.get(candidate.secret.get_secret_value(), 0.0) <= now:
                return candidate
        return None

    def offer(self, token: Token) -> bool:
        """Take a token from the broker, and return whether it was taken.

        It must be for the gateway that it names. One that looks invalid, as an expired one does to our clock, is taken
        only where no better one is known: the gateway decides.
        """
        now = self._clock()
        try:
            parse_token(token.token.get_secret_value(), now=now, serial=token.serial, manual=True)
        except InvalidToken as error:
            logger.warning("ignored a token from the broker for gateway %s: %s", token.serial, error)
            return False
        known = self._offered.get(token.serial)
        if known is not None and known.looks_valid(now) and not token.looks_valid(now):
            return False
        self._offered[token.serial] = token
        return True

    def reject(self, credential: Credential, now: float) -> None:
        """Do not choose a credential again for five minutes; a token from the broker must also be offered anew."""
        self._blocked_until = {secret: until for secret, until in self._blocked_until.items() if until > now}
        self._blocked_until[credential.secret.get_secret_value()] = now + REJECTED_RETRY_S
        if credential.source == "ENVOY_TOKEN":
            self._manual_rejected = True
        self._offered = {serial: token for serial, token in self._offered.items() if token.token != credential.secret}

    def missing_hint(self, identity: Identity) -> str:
        """Return what to do where there is nothing to authenticate with."""
        needed = f"gateway {identity.serial} has firmware {identity.firmware} and requires a token"
        try:
            self._parse_manual(identity)
        except InvalidToken as error:
            return f"{needed}, and ENVOY_TOKEN cannot be used for it: {error}; set ENVOY_TOKEN to another"
        return f"{needed}; set ENVOY_TOKEN, or start token_broker and a broker"

    def _candidates(self, identity: Identity) -> list[Credential]:
        """Return what there is, the preferred one first: a rejected ENVOY_TOKEN gives way to the broker's token."""
        if not identity.needs_token:
            return [self._password(identity)]
        tokens: list[Credential] = []
        if (offered := self._offered.get(identity.serial)) is not None:
            tokens.append(_token_credential("the token at the broker", offered.token))
        try:
            manual = self._parse_manual(identity)
        except InvalidToken:
            manual = None
        if manual is not None:
            tokens.insert(len(tokens) if self._manual_rejected else 0, _token_credential("ENVOY_TOKEN", manual))
        return tokens

    def _parse_manual(self, identity: Identity) -> SecretStr | None:
        """Return ENVOY_TOKEN, if it is set and for this gateway. Raises InvalidToken if it is set and is not."""
        if self._settings.token is None:
            return None
        text = self._settings.token.get_secret_value()
        return parse_token(text, now=self._clock(), serial=identity.serial, manual=True).token

    def _password(self, identity: Identity) -> Credential:
        """Return user name and password; the gateway's default is the last six digits of its serial number."""
        username, given = self._settings.username, self._settings.password
        password = given if given is not None else SecretStr(identity.serial[-6:])
        origin = "ENVOY_PASSWORD" if given is not None else "the last six digits of the serial number"
        auth = HTTPDigestAuth(username, password.get_secret_value())
        return Credential("password", f"user {username} with {origin}", password, auth)


def _token_credential(source: Source, token: SecretStr) -> Credential:
    return Credential(source, source, token, BearerToken(token))


def rejection_hint(credential: Credential) -> str:
    """Return what to do where a gateway rejects a credential."""
    to_do = "check ENVOY_USERNAME and ENVOY_PASSWORD" if credential.source == "password" else "fetch another token"
    return f"the gateway rejected {credential.name}; {to_do}"


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
                f"gateway {identity.serial} responds without TLS at {base_url}, but has a pinned certificate; no "
                f"credential was sent. If it has none any more, delete {self._pins.path(identity.serial)}"
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
