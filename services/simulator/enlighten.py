"""The pretend Enlighten log-in: password against session, session against token, as pyenphase uses it (`auth.py`)."""

import json
import secrets
import threading
from email import message_from_bytes
from email.message import Message
from http import HTTPStatus
from urllib.parse import parse_qs

from services.simulator.answer import Answer, Request, html_answer, json_answer
from services.simulator.ledger import Ledger
from services.simulator.tokens import TokenMint


class Account:
    """One Enlighten account."""

    def __init__(self, email: str, password: str, kind: str, serials: frozenset[str]) -> None:
        self.email = email
        self.password = password
        self.kind = kind
        self.serials = serials


class Enlighten:
    """Answers the log-in and the token exchange for one account."""

    def __init__(self, account: Account, mint: TokenMint, ledger: Ledger, token_lifetime_s: float | None) -> None:
        self._account = account
        self._mint = mint
        self._ledger = ledger
        self._token_lifetime_s = token_lifetime_s
        self._lock = threading.Lock()
        self._sessions: set[str] = set()

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request."""
        steps = {"/login/login.json": self._log_in, "/tokens": self._exchange}
        step = steps.get(request.path)
        if step is None:
            return html_answer(HTTPStatus.NOT_FOUND, "404 Not Found")
        if request.method != "POST":
            return html_answer(HTTPStatus.METHOD_NOT_ALLOWED, "405 Method Not Allowed")
        return step(request)

    def _log_in(self, request: Request) -> Answer:
        email, password = _credentials(request)
        if (email or "").lower() != self._account.email.lower() or password != self._account.password:
            self._ledger.count("logins_refused")
            return json_answer({"message": "Invalid"}, HTTPStatus.UNAUTHORIZED)
        self._ledger.count("logins")
        session = secrets.token_hex(16)
        with self._lock:
            self._sessions.add(session)
        answer = json_answer(
            {
                "message": "success",
                "session_id": session,
                "manager_token": self._mint.issue("enlighten", self._account.kind, self._account.email),
                "is_consumer": self._account.kind == "owner",
                "system_id": 1000001,
                "redirect_url": "",
            }
        )
        cookies = (
            ("Set-Cookie", f"_enlighten_4_session={session}; Path=/; HttpOnly"),
            ("Set-Cookie", "locale=en; Path=/"),
        )
        return Answer(answer.status, answer.body, headers=cookies)

    def _exchange(self, request: Request) -> Answer:
        wanted = _json(request)
        with self._lock:
            known = str(wanted.get("session_id")) in self._sessions
        if not known or str(wanted.get("username", "")).lower() != self._account.email.lower():
            return self._refuse(HTTPStatus.UNAUTHORIZED, "Invalid session")
        serial = str(wanted.get("serial_num", ""))
        if serial not in self._account.serials:
            return self._refuse(HTTPStatus.FORBIDDEN, f"No access to gateway {serial}")
        self._ledger.count("exchanges")
        token = self._mint.issue(serial, self._account.kind, self._account.email, self._token_lifetime_s)
        return Answer(HTTPStatus.OK, token.encode(), "text/plain;charset=UTF-8")

    def _refuse(self, status: HTTPStatus, message: str) -> Answer:
        self._ledger.count("exchanges_refused")
        return json_answer({"message": message}, status)


def _credentials(request: Request) -> tuple[str | None, str | None]:
    """Return email and password out of a form, a multipart form or JSON: tools in use send all three."""
    content_type = (request.headers.get("Content-Type") or "").lower()
    if content_type.startswith("application/json"):
        fields = _json(request)
        user = fields.get("user")
        if isinstance(user, dict):
            return user.get("email"), user.get("password")
    elif content_type.startswith("multipart/form-data"):
        fields = _multipart(request)
    else:
        fields = {name: values[0] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
    email, password = fields.get("user[email]"), fields.get("user[password]")
    return (email if isinstance(email, str) else None), (password if isinstance(password, str) else None)


def _multipart(request: Request) -> dict[str, object]:
    head = f"Content-Type: {request.headers.get('Content-Type')}\r\n\r\n".encode()
    message = message_from_bytes(head + request.body)
    fields: dict[str, object] = {}
    for part in message.get_payload() if message.is_multipart() else ():
        if isinstance(part, Message):
            name = part.get_param("name", header="Content-Disposition")
            content = part.get_payload(decode=True)
            if isinstance(name, str) and isinstance(content, bytes):
                fields[name] = content.decode("utf-8", "replace").rstrip("\r\n")
    return fields


def _json(request: Request) -> dict[str, object]:
    try:
        value = json.loads(request.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
