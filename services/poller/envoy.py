"""The Envoy's local interface: which gateway it is, and what it answers to a path.

Firmware 7 and newer is asked over HTTPS with a bearer token, and hands out a session cookie that spares it the
verification of the next one; older firmware over HTTP with digest authentication (pyenphase/pyenphase,
src/pyenphase/envoy.py).

Errors, by what the caller must do::

    GatewayError
    ├── GatewayUnavailable     ask again later, not before ``retry_after_s``
    │   └── CertificateChanged     and a person must look at it
    ├── TokenRejected          get another token first
    ├── EndpointMissing        this gateway has no such answer
    └── BadResponse              pass over this answer
        └── EndpointBroken         and ask for it less often
"""

import logging
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from pydantic import SecretStr, TypeAdapter, ValidationError
from requests.auth import AuthBase, HTTPDigestAuth

from services.poller.answers import read_answer
from services.poller.certificates import PinnedAdapter, PinStore, presented_fingerprint
from services.poller.clock import GatewayClock
from services.poller.settings import EnvoySettings
from shared.http import BoundedSession, ConnectionLost, ExchangeFailed, Response, exchange
from shared.topics import SERIAL_PATTERN

logger = logging.getLogger(__name__)

SLOW_DEADLINE_S = 45.0
"""As long as pyenphase waits; /production.json has been seen to take that (home-assistant/core#125418)."""

DEADLINE_S = 10.0
BUSY_S = 30.0
"""A gateway that has just started says "please retry after 30 seconds" (pyenphase/pyenphase#168)."""

MAX_BUSY_S = 600.0
"""What a gateway is believed when it says how long to leave it alone."""

MAX_NAME_LENGTH = 64
"""The letters of what a gateway calls itself, its hardware and its firmware; real ones have twenty at most."""

FIRST_FIRMWARE_WITH_TOKENS = (7,)
FIRST_FIRMWARE_THAT_KEEPS_CONNECTIONS = (4,)
"""The old Envoy-R has trouble with them: Home Assistant has an option for it (home-assistant/core, enphase_envoy)."""

Shape = TypeVar("Shape")


class GatewayError(Exception):
    """The gateway did not give what was asked for."""


class GatewayUnavailable(GatewayError):
    """The gateway does not answer, or says that it cannot now."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CertificateChanged(GatewayUnavailable):
    """The gateway shows another certificate than before, and was therefore told nothing."""


class TokenRejected(GatewayError):
    """The gateway does not accept the token, the user or the password."""


class EndpointMissing(GatewayError):
    """The gateway knows no such path."""


class BadResponse(GatewayError):
    """The gateway answered something that is not what was asked for."""


class EndpointBroken(BadResponse):
    """The gateway says that it failed to answer, with a status of 500 and more."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a gateway says of itself without being shown a token."""

    serial: str
    part_number: str | None
    firmware: str
    """Such as ``8.3.5169``: without the letter in front, which names a class of builds."""
    metered_hardware: bool
    """The gateway could meter; whether transformers are fitted is another matter."""

    @property
    def version(self) -> tuple[int, ...]:
        """The firmware as numbers, for comparing."""
        return tuple(int(part) for part in re.findall(r"\d+", self.firmware))

    @property
    def needs_token(self) -> bool:
        """Whether it asks for a token rather than for a password."""
        return self.version >= FIRST_FIRMWARE_WITH_TOKENS


def read_identity(body: bytes) -> Identity:
    """Return what an ``/info`` answer tells.

    Raises:
        BadResponse: it is none.
    """
    info = _read_xml(body)
    device = info.find("device")
    serial, software, part_number = (
        (device.findtext(tag) or "").strip()[:MAX_NAME_LENGTH] if device is not None else ""
        for tag in ("sn", "software", "pn")
    )
    if device is None or not software or not SERIAL_PATTERN.fullmatch(serial):
        raise BadResponse("/info is not an Envoy's: serial number or firmware are missing")
    return Identity(
        serial=serial,
        part_number=part_number or None,
        firmware=software.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        metered_hardware=device.findtext("imeter") == "true",
    )


def read_times(body: bytes) -> tuple[int | None, int]:
    """Return what the gateway's clock shows and when its firmware was built, 0 if it does not tell.

    Raises:
        BadResponse: it is no ``/info`` answer.
    """
    info = _read_xml(body)
    shown, built_at = (_epoch(info.findtext(tag)) for tag in ("time", "build_info/build_time_gmt"))
    return shown, built_at or 0


def _read_xml(body: bytes) -> ET.Element:
    try:
        # Entities cannot expand here: without a DOCTYPE there are none, and with one the answer is refused. In another
        # encoding it would look different: it is read as UTF-8, which all gateways send and has no zeros as UTF-16 has.
        if b"<!DOCTYPE" in body or b"\0" in body:
            raise BadResponse("/info is no XML that a gateway sends")
        return ET.fromstring(body, ET.XMLParser(encoding="utf-8"))  # noqa: S314 - see above
    except (ET.ParseError, ValueError) as error:
        raise BadResponse(f"/info is no XML: {error}") from None


def _epoch(text: str | None) -> int | None:
    """Return epoch seconds, None for what is none."""
    text = (text or "").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,10}", text) else None


@dataclass(frozen=True, slots=True)
class BearerToken(AuthBase):
    """Shows the token with every request."""

    token: SecretStr

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the token into a request's header."""
        request.headers["Authorization"] = f"Bearer {self.token.get_secret_value()}"
        return request


class Envoy:
    """One gateway on the local network; not for several threads."""

    def __init__(self, settings: EnvoySettings, pins: PinStore, clock: Callable[[], float] = time.time) -> None:
        """Prepare to ask; nothing is asked yet.

        Args:
            settings: where it is and how to be let in.
            pins: the certificates that gateways are known by.
            clock: ours, epoch seconds.
        """
        self._settings = settings
        self._pins = pins
        self._session = BoundedSession()
        self._session.trust_env = False  # neither a proxy nor a .netrc stands between us and the wall
        self._session.verify = False  # by an authority; the adapter checks the certificate's fingerprint instead
        self._base_url = ""
        self.fingerprint: str | None = None
        """The SHA-256 of the certificate that the gateway shows; None over HTTP."""
        self.clock = GatewayClock(clock)
        self.requests = 0
        """How many it was sent."""
        self.failed_requests = 0
        self.dropped_fields = 0
        """How many fields and entries of its answers could not be read and were left out."""

    @property
    def base_url(self) -> str:
        """Where it was found."""
        return self._base_url

    @property
    def host(self) -> str:
        """Where it is looked for."""
        return self._settings.host

    @property
    def _may_go_in_clear(self) -> bool:
        """Whether a token may go over plain HTTP: somebody else may answer there, and all may listen."""
        return "://" in self._settings.host and self._settings.cert_fingerprint is None

    def find(self) -> Identity:
        """Find the gateway, over HTTPS or HTTP, and return what it is.

        Raises:
            GatewayUnavailable: nobody answers, or with another certificate than before.
            BadResponse: somebody answers who is no Envoy, or another than ENVOY_SERIAL.
        """
        host = self._settings.host
        candidates = [host] if "://" in host else [f"https://{host}", f"http://{host}"]
        failures: dict[str, GatewayError] = {}
        for base_url in candidates:
            try:
                return self._find_at(base_url)
            except (CertificateChanged, TokenRejected):
                raise
            except GatewayError as error:
                # Something else may listen there, such as a proxy before an old gateway.
                failures[base_url] = error
        if len(failures) == 1:
            raise failures.popitem()[1]
        told = "; ".join(
            str(failure) if base_url in str(failure) else f"{base_url}{failure}"
            for base_url, failure in failures.items()
        )
        waits_s = (each.retry_after_s for each in failures.values() if isinstance(each, GatewayUnavailable))
        raise GatewayUnavailable(told, max(waits_s, default=0.0))

    def _find_at(self, base_url: str) -> Identity:
        url = urlsplit(base_url)
        self.fingerprint = None
        if url.scheme == "https":
            try:
                self.fingerprint = presented_fingerprint(url.hostname or "", url.port or 443, DEADLINE_S)
            except (OSError, UnicodeError) as error:
                raise GatewayUnavailable(f"{base_url}: {error}") from error
            # Whatever this session says from here on, it says to the holder of this certificate.
            self._session.mount("https://", PinnedAdapter(self.fingerprint))
        self._base_url = base_url
        self._session.headers.pop("Connection", None)
        identity = self.identify()
        if self.fingerprint is not None:
            self._check_pin(identity.serial, self.fingerprint)
        elif identity.needs_token and not self._may_go_in_clear:
            raise GatewayUnavailable(
                f"{base_url}: gateway {identity.serial} has firmware {identity.firmware}, "
                f"whose token goes over HTTPS only; set ENVOY_HOST={base_url} to send it in clear all the same"
            )
        if identity.version < FIRST_FIRMWARE_THAT_KEEPS_CONNECTIONS:
            self._session.headers["Connection"] = "close"
        return identity

    def identify(self) -> Identity:
        """Ask the gateway that was found what it is, and look at its clock.

        Raises:
            GatewayUnavailable: it does not answer.
            BadResponse: it is no Envoy, or another than ENVOY_SERIAL.
        """
        asked_at = self.clock.ours()
        body = self._get("/info", DEADLINE_S).body
        identity = read_identity(body)
        if self._settings.serial not in (None, identity.serial):
            raise BadResponse(
                f"{self._base_url} is gateway {identity.serial}, not {self._settings.serial} as ENVOY_SERIAL says"
            )
        shown, built_at = read_times(body)
        if shown is not None:
            self.clock.shows(shown, (asked_at + self.clock.ours()) / 2, built_at)
        return identity

    def _check_pin(self, serial: str, presented: str) -> None:
        given = self._settings.cert_fingerprint
        try:
            pinned = given or self._pins.pinned(serial, presented)
        except OSError as error:
            raise GatewayUnavailable(f"cannot keep the certificate of gateway {serial}: {error}") from error
        if pinned != presented:
            self._session.auth = None
            how = "set ENVOY_CERT_FINGERPRINT to it" if given else f"delete {self._pins.path(serial)}"
            raise CertificateChanged(
                f"gateway {serial} shows the certificate {presented} instead of {pinned}; it was told nothing. "
                f"If the new one is the gateway's own, {how}"
            )

    def interrupt(self) -> None:
        """End whatever it is being asked, from another thread."""
        self._session.abort()

    def show_token(self, token: SecretStr) -> None:
        """Show this token from now on; sessions of the one before are forgotten."""
        self._session.cookies.clear()
        self._session.auth = BearerToken(token)

    def show_password(self, identity: Identity) -> None:
        """Response digest challenges from now on, with the last six digits of the serial unless told otherwise."""
        password = self._settings.password
        secret = password.get_secret_value() if password is not None else identity.serial[-6:]
        self._session.auth = HTTPDigestAuth(self._settings.username, secret)

    def get(self, path: str, shape: TypeAdapter[Shape], deadline_s: float = DEADLINE_S) -> Shape:
        """Return what the gateway answers to a path, in the shape asked for.

        Raises:
            GatewayError: see the module.
        """
        body = self._get(path, deadline_s).body
        try:
            answer, dropped = read_answer(shape, body)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            # A session that is over may show as a page to log in.
            self._session.cookies.clear()
            raise BadResponse(f"{path}: {where + ': ' if where else ''}{fault['msg']}") from None
        if dropped:
            if not self.dropped_fields:
                logger.warning(
                    "left out what cannot be read of %s%s: %s; counted from now on", self._base_url, path, dropped[0]
                )
            self.dropped_fields += len(dropped)
        return answer

    def _get(self, path: str, deadline_s: float) -> Response:
        try:
            answer = self._ask(path, deadline_s)
            if answer.status == HTTPStatus.UNAUTHORIZED and self._session.cookies:
                # The session may be over, or another log-in has ended it: the token alone may do.
                self._session.cookies.clear()
                answer = self._ask(path, deadline_s)
        except requests.exceptions.SSLError:
            # The next search for the gateway tells both fingerprints.
            raise GatewayUnavailable(f"{self._base_url}: its certificate is not the one it was found with") from None
        except ExchangeFailed as error:
            raise GatewayUnavailable(f"{self._base_url}{path}: {error}") from None
        match answer.status:
            case 200:
                return answer
            case 401 | 403:
                raise TokenRejected(f"{path}: the gateway answers {answer.status}")
            case 429 | 503:
                self.failed_requests += 1
                retry_after_s = BUSY_S if answer.retry_after_s is None else min(answer.retry_after_s, MAX_BUSY_S)
                raise GatewayUnavailable(f"{path}: the gateway answers {answer.status}", retry_after_s)
            case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self.failed_requests += 1
                raise EndpointBroken(f"{path}: the gateway answers {status}")
            case status:
                raise EndpointMissing(f"{path}: the gateway answers {status}")

    def _ask(self, path: str, deadline_s: float) -> Response:
        """Return the answer; a connection that was kept open and turns out to be closed is made anew, once."""
        self.requests += 1
        ends_at = time.monotonic() + deadline_s
        try:
            try:
                return exchange(self._session, "GET", self._base_url + path, deadline_s=deadline_s)
            except ConnectionLost:
                if (left_s := ends_at - time.monotonic()) < deadline_s / 2:
                    raise
                self.requests += 1
                return exchange(self._session, "GET", self._base_url + path, deadline_s=left_s)
        except (ExchangeFailed, requests.exceptions.SSLError):
            self.failed_requests += 1
            raise
