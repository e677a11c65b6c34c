"""HTTP to one gateway: pinned TLS, token or digest authentication, one request at a time.

A connection has two sides that share its socket. ``/info`` is fetched without any credential: neither token, password
nor session cookie. Endpoints are fetched with the credential, which a new connection does not have: it must be attached
with :meth:`Envoy.authenticate`, once the certificate of that connection is verified.

Firmware 7 and newer sets a session cookie, which spares it the verification of the next token; older firmware uses
digest authentication (pyenphase/pyenphase, src/pyenphase/envoy.py).
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import TypeVar

import requests
from requests.auth import AuthBase

from services.poller.certificates import PinnedAdapter
from services.poller.endpoints import TIMEOUT_S, Endpoint
from services.poller.errors import BadResponse, EndpointBroken, EndpointMissing, GatewayUnavailable, TokenRejected
from services.poller.identity import MAX_INFO_BYTES, Info, parse_info
from services.poller.models import parse_json
from shared.http import (
    BoundedAdapter,
    BoundedSession,
    ConnectionLost,
    ExchangeFailed,
    Response,
    ResponseTooLarge,
    exchange,
)

logger = logging.getLogger(__name__)

INFO_PATH = "/info"

BUSY_RETRY_S = 30.0
"""A gateway that has just started responds "please retry after 30 seconds" (pyenphase/pyenphase#168)."""

MAX_RETRY_AFTER_S = 600.0

T = TypeVar("T")


@dataclass(slots=True)
class RequestStats:
    """What was requested of a gateway since the start."""

    requests: int = 0
    failed: int = 0
    dropped_fields: int = 0
    """Fields and entries of responses that were not valid."""


class Envoy:
    """One gateway on the local network; not thread-safe, except :meth:`interrupt`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Prepare; :meth:`connect` comes first.

        Args:
            clock: ours, epoch seconds.
        """
        self._clock = clock
        self.base_url = ""
        self.fingerprint: str | None = None
        """The SHA-256 of the certificate that every connection must present; None for plain HTTP."""
        self.stats = RequestStats()
        self._adapter = BoundedAdapter()
        self._anonymous = self._new_anonymous_session()
        self._authenticated: BoundedSession | None = None

    def connect(self, base_url: str, fingerprint: str | None) -> None:
        """Send all further requests to an address, without any credential.

        Args:
            base_url: ``http://…`` or ``https://…``.
            fingerprint: of the certificate, for HTTPS.
        """
        if base_url.startswith("https://") != (fingerprint is not None):
            raise ValueError("HTTPS needs the fingerprint of a certificate, and plain HTTP has none")
        self.base_url = base_url
        self.fingerprint = fingerprint
        self._adapter.close()
        self._adapter = PinnedAdapter(fingerprint) if fingerprint is not None else BoundedAdapter()
        self._anonymous = self._new_anonymous_session()
        self._authenticated = None

    def authenticate(self, credential: AuthBase) -> None:
        """Send this credential with every request but ``/info``; the session of the one before is dropped.

        Only for a connection whose certificate was verified.
        """
        self._authenticated = self._new_session()
        self._authenticated.headers.update(self._anonymous.headers)
        self._authenticated.auth = credential

    def close_after_each_request(self) -> None:
        """Use a connection for one request only, until the next :meth:`connect`."""
        self._anonymous.headers["Connection"] = "close"
        if self._authenticated is not None:
            self._authenticated.headers["Connection"] = "close"

    def interrupt(self) -> None:
        """End the request in progress, from another thread."""
        self._adapter.abort()

    def fetch_info(self) -> Info:
        """Return what the gateway reports of itself.

        Raises:
            GatewayError: see ``errors.py``.
        """
        sent_at = self._clock()
        body = self._get(INFO_PATH, TIMEOUT_S, MAX_INFO_BYTES, authenticated=False).body
        try:
            return parse_info(body, (sent_at + self._clock()) / 2)
        except BadResponse as error:
            raise BadResponse(f"{INFO_PATH}: {error}") from None

    def fetch(self, endpoint: Endpoint[T]) -> T:
        """Return the response of an endpoint.

        Raises:
            GatewayError: see ``errors.py``.
        """
        body = self._get(endpoint.path, endpoint.timeout_s, endpoint.max_bytes).body
        try:
            response, dropped = parse_json(endpoint.model, body)
        except BadResponse as error:
            # An expired session may show as a log-in page with status 200.
            self._forget_cookies()
            raise BadResponse(f"{endpoint.path}: {error}") from None
        if dropped:
            if not self.stats.dropped_fields:
                logger.warning(
                    "dropped an invalid field of %s%s: %s; further ones are counted in the metric fields_dropped",
                    self.base_url,
                    endpoint.path,
                    dropped[0],
                )
            self.stats.dropped_fields += len(dropped)
        return response

    def _get(self, path: str, timeout_s: float, max_bytes: int, *, authenticated: bool = True) -> Response:
        """Return a response with status 200; any other status, and no response, is raised."""
        session = self._authenticated if authenticated else self._anonymous
        if session is None:
            raise RuntimeError(f"{path} was requested before a credential was attached")
        try:
            response = self._exchange(session, path, timeout_s, max_bytes)
            if response.status == HTTPStatus.UNAUTHORIZED and session.cookies:
                # The session may have expired, or another log-in may have ended it: the token alone may be accepted.
                session.cookies.clear()
                response = self._exchange(session, path, timeout_s, max_bytes)
        except requests.exceptions.SSLError:
            # The next search for the gateway reports both fingerprints.
            raise GatewayUnavailable(f"{self.base_url}: its certificate is not the one it was found with") from None
        except ResponseTooLarge as error:
            raise BadResponse(f"{path}: {error}") from None
        except ExchangeFailed as error:
            raise GatewayUnavailable(f"{self.base_url}{path}: {error}") from None
        self._raise_for_status(path, response)
        return response

    def _raise_for_status(self, path: str, response: Response) -> None:
        status = response.status
        message = f"{path}: the gateway responded with {status}"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise TokenRejected(message)
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            self.stats.failed += 1
            wait_s = BUSY_RETRY_S if response.retry_after_s is None else response.retry_after_s
            raise GatewayUnavailable(message, min(wait_s, MAX_RETRY_AFTER_S))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.stats.failed += 1
            raise EndpointBroken(message)
        if status != HTTPStatus.OK:
            raise EndpointMissing(message)

    def _exchange(self, session: BoundedSession, path: str, timeout_s: float, max_bytes: int) -> Response:
        """Return the response; a kept-alive connection that turns out to be closed is replaced once."""
        self.stats.requests += 1
        url, ends_at = self.base_url + path, time.monotonic() + timeout_s
        try:
            try:
                return exchange(session, "GET", url, deadline_s=timeout_s, max_bytes=max_bytes)
            except ConnectionLost:
                if (left_s := ends_at - time.monotonic()) < timeout_s / 2:
                    raise
                self.stats.requests += 1
                return exchange(session, "GET", url, deadline_s=left_s, max_bytes=max_bytes)
        except (ExchangeFailed, requests.exceptions.SSLError):
            self.stats.failed += 1
            raise

    def _forget_cookies(self) -> None:
        if self._authenticated is not None:
            self._authenticated.cookies.clear()

    def _new_session(self) -> BoundedSession:
        session = BoundedSession()
        session.trust_env = False  # neither a proxy nor a .netrc belongs between the poller and the gateway
        session.verify = False  # by an authority; the adapter verifies the fingerprint
        session.adapters.clear()
        session.mount("https://" if self.fingerprint is not None else "http://", self._adapter)
        return session

    def _new_anonymous_session(self) -> BoundedSession:
        session = self._new_session()
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        return session
