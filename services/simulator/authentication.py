"""Authentication of requests to the gateway: a token or a session from firmware 7, digest authentication before."""

import secrets
import threading
import time
from email.message import Message
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Protocol

from services.simulator.digest import DigestVerifier
from services.simulator.response import HTML, Request, Response, html_response
from services.simulator.tokens import TokenIssuer

SESSION_LIFETIME_S = 600
"""A session expires ten minutes after its last use (Matthew1471/Enphase-API, Authentication.adoc)."""


class Authentication(Protocol):
    """One way to authenticate requests."""

    def authenticate(self, request: Request) -> Response | None:
        """Return None for an authenticated request, and the 401 response for any other."""

    def handle(self, request: Request) -> Response | None:
        """Return the response of an endpoint that belongs to the authentication itself, None for any other endpoint."""


class NoAuthentication:
    """Accepts every request."""

    def authenticate(self, _: Request) -> Response | None:
        """Return None."""
        return None

    def handle(self, _: Request) -> Response | None:
        """Return None."""
        return None


class TokenAuthentication:
    """Accepts a bearer token for this gateway, or the cookie of a session that was started with one."""

    def __init__(self, issuer: TokenIssuer, serial: str) -> None:
        self._issuer = issuer
        self._serial = serial
        self._lock = threading.Lock()
        self._last_used: dict[str, float] = {}
        """By session id, on the monotonic clock."""

    def authenticate(self, request: Request) -> Response | None:
        """Return None for a valid token or session, which is extended; otherwise the 401 page."""
        if self._has_valid_token(request) or self._extend_session(request):
            return None
        return _unauthorized()

    def handle(self, request: Request) -> Response | None:
        """Return the response of ``/auth/check_jwt``, which starts a session for a valid token."""
        if request.path != "/auth/check_jwt":
            return None
        if not self._has_valid_token(request):
            return _unauthorized()
        session = secrets.token_urlsafe(24)
        now = time.monotonic()
        with self._lock:
            active = {known: used for known, used in self._last_used.items() if now - used < SESSION_LIFETIME_S}
            self._last_used = active | {session: now}
        cookie = ("Set-Cookie", f"sessionId={session}; Path=/; Secure; HttpOnly")
        return Response(HTTPStatus.OK, b"<!DOCTYPE html><h2>Valid token.</h2>\n", HTML, (cookie,))

    def _has_valid_token(self, request: Request) -> bool:
        scheme, _, token = (request.headers.get("Authorization") or "").partition(" ")
        return scheme.lower() == "bearer" and self._issuer.is_valid(token.strip(), self._serial)

    def _extend_session(self, request: Request) -> bool:
        """Return whether the request's session is valid, and record its use."""
        session = _parse_cookies(request.headers).get("sessionId", "")
        with self._lock:
            used = self._last_used.get(session)
            if used is None or time.monotonic() - used >= SESSION_LIFETIME_S:
                return False
            self._last_used[session] = time.monotonic()
            return True


class DigestAuthentication:
    """Accepts HTTP digest authentication."""

    def __init__(self, verifier: DigestVerifier) -> None:
        self._verifier = verifier

    def authenticate(self, request: Request) -> Response | None:
        """Return None for a valid digest, otherwise the 401 page with a challenge."""
        valid = self._verifier.verify(request.method, request.target, request.headers.get("Authorization"))
        if valid:
            return None
        challenge = self._verifier.challenge(stale=valid is None)
        return html_response(HTTPStatus.UNAUTHORIZED, "401 Unauthorized", headers=(("WWW-Authenticate", challenge),))

    def handle(self, _: Request) -> Response | None:
        """Return None: digest authentication has no endpoints."""
        return None


def _unauthorized() -> Response:
    """Return the page that firmware 7 and newer sends without a valid token: it redirects to the log-in page."""
    script = '<script>window.location.replace("/login.html");</script>'
    return html_response(HTTPStatus.UNAUTHORIZED, "401 Authorization Required", script=script)


def _parse_cookies(headers: Message) -> dict[str, str]:
    """Return the cookies of a request by name; none if the header is malformed."""
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("Cookie") or "").items()}
    except CookieError:
        return {}
