"""The simulated Enlighten: log-in and token exchange as pyenphase uses them (pyenphase/pyenphase, ``auth.py``)."""

import json
import secrets
import threading
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from http import HTTPStatus
from urllib.parse import parse_qs

from services.simulator.request_log import RequestLog
from services.simulator.response import Request, Response, html_response, json_response
from services.simulator.tokens import TokenIssuer


@dataclass(frozen=True)
class Account:
    """An Enlighten account."""

    email: str
    password: str
    kind: str
    """``owner`` or ``installer``."""
    serials: frozenset[str]
    """The gateways for which it gets tokens."""
    token_lifetime_s: float | None
    """That of the kind of account if None."""


class Enlighten:
    """Handles log-in and token exchange for one account."""

    def __init__(self, account: Account, issuer: TokenIssuer, request_log: RequestLog) -> None:
        self._account = account
        self._issuer = issuer
        self._request_log = request_log
        self._lock = threading.Lock()
        self._sessions: set[str] = set()

    def respond(self, request: Request) -> Response:
        """Handle a request and return its response."""
        handlers = {"/login/login.json": self._log_in, "/tokens": self._exchange}
        handle = handlers.get(request.path)
        if handle is None:
            return html_response(HTTPStatus.NOT_FOUND, "404 Not Found")
        if request.method != "POST":
            return html_response(HTTPStatus.METHOD_NOT_ALLOWED, "405 Method Not Allowed")
        return handle(request)

    def _log_in(self, request: Request) -> Response:
        email, password = _parse_credentials(request)
        if (email or "").lower() != self._account.email.lower() or password != self._account.password:
            self._request_log.count("logins_refused")
            return json_response({"message": "Invalid"}, HTTPStatus.UNAUTHORIZED)
        self._request_log.count("logins")
        session = secrets.token_hex(16)
        with self._lock:
            self._sessions.add(session)
        body = {
            "message": "success",
            "session_id": session,
            "manager_token": self._issuer.issue("enlighten", self._account.kind, self._account.email),
            "is_consumer": self._account.kind == "owner",
            "system_id": 1000001,
            "redirect_url": "",
        }
        cookies = (
            ("Set-Cookie", f"_enlighten_4_session={session}; Path=/; HttpOnly"),
            ("Set-Cookie", "locale=en; Path=/"),
        )
        return json_response(body, headers=cookies)

    def _exchange(self, request: Request) -> Response:
        body = _parse_json(request)
        with self._lock:
            has_session = str(body.get("session_id")) in self._sessions
        if not has_session or str(body.get("username", "")).lower() != self._account.email.lower():
            return self._refuse_token(HTTPStatus.UNAUTHORIZED, "Invalid session")
        serial = str(body.get("serial_num", ""))
        if serial not in self._account.serials:
            return self._refuse_token(HTTPStatus.FORBIDDEN, f"No access to gateway {serial}")
        self._request_log.count("exchanges")
        token = self._issuer.issue(serial, self._account.kind, self._account.email, self._account.token_lifetime_s)
        return Response(HTTPStatus.OK, token.encode(), "text/plain;charset=UTF-8")

    def _refuse_token(self, status: HTTPStatus, message: str) -> Response:
        self._request_log.count("exchanges_refused")
        return json_response({"message": message}, status)


def _parse_credentials(request: Request) -> tuple[str | None, str | None]:
    """Return e-mail and password from a form, a multipart form or JSON: existing clients send all three."""
    content_type = (request.headers.get("Content-Type") or "").lower()
    if content_type.startswith("application/json"):
        fields = _parse_json(request)
        user = fields.get("user")
        if isinstance(user, dict):
            return user.get("email"), user.get("password")
    elif content_type.startswith("multipart/form-data"):
        fields = _parse_multipart(request)
    else:
        fields = {name: values[0] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
    email, password = fields.get("user[email]"), fields.get("user[password]")
    return (email if isinstance(email, str) else None), (password if isinstance(password, str) else None)


def _parse_multipart(request: Request) -> dict[str, object]:
    """Return the fields of a multipart form."""
    header = f"Content-Type: {request.headers.get('Content-Type')}\r\n\r\n".encode()
    message = message_from_bytes(header + request.body)
    fields: dict[str, object] = {}
    for part in message.get_payload() if message.is_multipart() else ():
        if isinstance(part, Message):
            name = part.get_param("name", header="Content-Disposition")
            content = part.get_payload(decode=True)
            if isinstance(name, str) and isinstance(content, bytes):
                fields[name] = content.decode("utf-8", "replace").rstrip("\r\n")
    return fields


def _parse_json(request: Request) -> dict[str, object]:
    """Return the body's JSON object; an empty one if the body is anything else."""
    try:
        value = json.loads(request.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
