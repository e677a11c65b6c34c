"""Who may read the gateway: a token or a session on firmware 7 and newer, digest authentication before."""

import secrets
import threading
import time
from email.message import Message
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Protocol

from services.simulator.answer import HTML, Answer, Request, html_answer
from services.simulator.digest import DigestCheck
from services.simulator.tokens import TokenMint

SESSION_S = 600
"""A session lives ten minutes from its last use (Matthew1471/Enphase-API, Authentication.adoc)."""


class Access(Protocol):
    """Lets a request in, or answers it."""

    def refusal(self, request: Request) -> Answer | None:
        """Return the answer to a request that may not pass, or None where it may."""

    def own_answer(self, request: Request) -> Answer | None:
        """Return the answer to an address of the log-in itself, or None for all others."""


class OpenAccess:
    """Lets everyone in."""

    def refusal(self, _: Request) -> Answer | None:
        """Return None."""
        return None

    def own_answer(self, _: Request) -> Answer | None:
        """Return None."""
        return None


class TokenAccess:
    """Takes `Authorization: Bearer` with a token for this gateway, or the cookie of a session begun with one."""

    def __init__(self, mint: TokenMint, serial: str) -> None:
        self._mint = mint
        self._serial = serial
        self._lock = threading.Lock()
        self._sessions: dict[str, float] = {}

    def refusal(self, request: Request) -> Answer | None:
        """Return the 401 page unless token or session is good. A token is looked at first."""
        if self._has_good_token(request) or self._has_session(request):
            return None
        return _token_wanted()

    def own_answer(self, request: Request) -> Answer | None:
        """Return the answer to /auth/check_jwt, with a fresh session where the token is good."""
        if request.path != "/auth/check_jwt":
            return None
        if not self._has_good_token(request):
            return _token_wanted()
        session = secrets.token_urlsafe(24)
        with self._lock:
            self._sessions = {
                known: used for known, used in self._sessions.items() if time.monotonic() - used < SESSION_S
            } | {session: time.monotonic()}
        body = b"<!DOCTYPE html><h2>Valid token.</h2>\n"
        return Answer(HTTPStatus.OK, body, HTML, (("Set-Cookie", f"sessionId={session}; Path=/; Secure; HttpOnly"),))

    def _has_good_token(self, request: Request) -> bool:
        scheme, _, token = (request.headers.get("Authorization") or "").partition(" ")
        return scheme.lower() == "bearer" and self._mint.is_valid(token.strip(), self._serial)

    def _has_session(self, request: Request) -> bool:
        session = _cookies(request.headers).get("sessionId")
        with self._lock:
            used = self._sessions.get(session or "")
            if used is None or time.monotonic() - used >= SESSION_S:
                return False
            self._sessions[session or ""] = time.monotonic()
            return True


class DigestAccess:
    """Takes HTTP digest authentication."""

    def __init__(self, check: DigestCheck) -> None:
        self._check = check

    def refusal(self, request: Request) -> Answer | None:
        """Return the 401 with a challenge unless the digest is good."""
        good = self._check.check(request.method, request.target, request.headers.get("Authorization"))
        if good:
            return None
        page = html_answer(HTTPStatus.UNAUTHORIZED, "401 Unauthorized")
        return Answer(page.status, page.body, HTML, (("WWW-Authenticate", self._check.challenge(stale=good is None)),))

    def own_answer(self, _: Request) -> Answer | None:
        """Return None: digest has no addresses of its own."""
        return None


def _token_wanted() -> Answer:
    script = '<script>window.location.replace("/login.html");</script>'
    return html_answer(HTTPStatus.UNAUTHORIZED, "401 Authorization Required", script=script)


def _cookies(headers: Message) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("Cookie") or "").items()}
    except CookieError:
        return {}
