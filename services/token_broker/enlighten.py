"""Enphase's log-in: an e-mail address and a password in, a token for one gateway out.

Two requests (flow A of pyenphase/pyenphase, src/pyenphase/auth.py): the log-in gives a session, the session a token.

Errors, by what the caller must do::

    EnlightenError
    ├── CloudUnreachable      try again later
    ├── CredentialsRejected   do not try again until they change
    ├── MfaRequired           a person must fetch a token by hand
    └── AccountLocked         do not try again for a day

No error holds a body, a credential or a session.
"""

import json
from dataclasses import dataclass
from typing import Any

import requests
from pydantic import SecretStr

from shared.http import Answer, ExchangeFailed, exchange

DEADLINE_S = 30.0


class EnlightenError(Exception):
    """Enphase's cloud did not hand out a token; the message says why and what to do."""


class CloudUnreachable(EnlightenError):  # noqa: N818 - what happened
    """No answer, or none that can be understood: try again later."""


class CredentialsRejected(EnlightenError):  # noqa: N818 - what happened
    """The account does not exist, the password is wrong, or the gateway is not the account's."""


class MfaRequired(EnlightenError):  # noqa: N818 - what happened
    """The account asks for a second factor, which only a person has."""


class AccountLocked(EnlightenError):  # noqa: N818 - what happened
    """The account is blocked, or asked too often: another attempt would lengthen it."""


@dataclass(frozen=True, slots=True)
class Enlighten:
    """An account at Enphase."""

    session: requests.Session
    login_url: str
    tokens_url: str
    email: str
    password: SecretStr

    def fetch_token(self, serial: str) -> str:
        """Log in and return what is handed out for a gateway, as text; whether it is a token is for the caller to see.

        Raises:
            EnlightenError: see the module.
        """
        session_id = self._log_in()
        answer = self._post(
            self.tokens_url, json={"session_id": session_id, "serial_num": serial, "username": self.email}
        )
        if answer.status in (401, 403, 404):
            raise CredentialsRejected(
                f"Enphase refuses a token for gateway {serial} (status {answer.status}); is it this account's?"
            )
        _check_status(answer, "token")
        return _token_text(answer.body)

    def _log_in(self) -> str:
        answer = self._post(
            self.login_url, data={"user[email]": self.email, "user[password]": self.password.get_secret_value()}
        )
        if answer.status == 401:  # noqa: PLR2004 - HTTP's own number
            raise CredentialsRejected("Enphase rejects the log-in; correct ENLIGHTEN_EMAIL and ENLIGHTEN_PASSWORD")
        _check_status(answer, "log-in")
        reply = _json_object(answer.body, "log-in")
        if reply.get("isBlocked") is True:
            raise AccountLocked("Enphase has blocked the account; log in at its web site to unblock it")
        session_id = reply.get("session_id")
        if not isinstance(session_id, str) or not session_id:
            # A log-in without a session is how Enphase asks for the second factor (home-assistant/core#155793).
            raise MfaRequired(
                "Enphase asks for a second factor; fetch a token by hand at https://entrez.enphaseenergy.com "
                "and give it as ENVOY_TOKEN"
            )
        return session_id

    def _post(self, url: str, **request: Any) -> Answer:
        try:
            return exchange(self.session, "POST", url, deadline_s=DEADLINE_S, **request)
        except (ExchangeFailed, requests.exceptions.SSLError) as error:
            raise CloudUnreachable(f"Enphase's cloud cannot be reached: {error}") from None


def _check_status(answer: Answer, what: str) -> None:
    if answer.status == 429:  # noqa: PLR2004 - HTTP's own number
        raise AccountLocked(f"Enphase says that we ask too often for a {what}")
    if answer.status != 200:  # noqa: PLR2004 - HTTP's own number
        raise CloudUnreachable(f"Enphase's cloud answers the {what} with status {answer.status}")


def _json_object(body: bytes, what: str) -> dict[str, Any]:
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        raise CloudUnreachable(f"Enphase's cloud answers the {what} with a page instead of JSON") from None
    if not isinstance(reply, dict):
        raise CloudUnreachable(f"Enphase's cloud answers the {what} with JSON that is no object")
    return reply


def _token_text(body: bytes) -> str:
    """Return the token out of an answer that is either its bare text or JSON with a key ``token``."""
    text = body.decode("utf-8", "replace").strip()
    if not text.startswith("{"):
        return text
    token = _json_object(body, "token").get("token")
    return token if isinstance(token, str) else ""
