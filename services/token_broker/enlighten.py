"""Enphase's log-in: an e-mail address and a password in, a token for one gateway out.

Two requests (flow A of pyenphase/pyenphase, src/pyenphase/auth.py): the log-in gives a session, the session a token
for each gateway of the account.

Errors, by what the caller must do::

    EnlightenError
    ├── LoginRejected             count it, and try again only a few times a day
    │   ├── CredentialsRejected       a person must correct them
    │   ├── MfaRequired               a person must fetch a token by hand
    │   ├── AccountBlocked            leave the account alone for a day
    │   └── TooManySessions           leave the account alone for a day
    ├── Throttled                 leave the account alone for as long as told
    ├── SerialRefused             do not ask for this gateway again for a day
    └── CloudUnreachable          try again soon, then ever more rarely
        └── AnswerNotUnderstood

No error holds a body, a credential or a session.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar

import requests
from pydantic import SecretStr

from shared.http import Answer, ExchangeFailed, exchange
from shared.messages import TokenState

DEADLINE_S = 30.0
DAY_S = 86_400.0
TOO_SOON_S = 1.0
"""Enphase refuses a token right after the log-in at times, and grants it a moment later (amykyta3/envoy-logger#15)."""

SHORTEST_THROTTLE_S = 900.0
BY_HAND = "fetch a token by hand at https://entrez.enphaseenergy.com and give it as ENVOY_TOKEN"


class EnlightenError(Exception):
    """Enphase's cloud did not hand out a token; the message says why and what to do."""

    state: ClassVar[TokenState]
    stay_away_s: float = 0.0
    """How long Enphase is to be left alone at least."""


class LoginRejected(EnlightenError):  # noqa: N818 - what happened
    """Enphase knows the account and does not let us in: each further try brings it nearer to being locked."""


class CredentialsRejected(LoginRejected):
    """The account does not exist, or the password is wrong."""

    state = "bad_credentials"


class MfaRequired(LoginRejected):
    """The account asks for a second factor, which only a person has."""

    state = "mfa_required"


class AccountBlocked(LoginRejected):
    """The account is blocked."""

    state = "locked_out"
    stay_away_s = DAY_S


class TooManySessions(LoginRejected):
    """The account has as many sessions as Enphase allows."""

    state = "locked_out"
    stay_away_s = DAY_S


class Throttled(EnlightenError):  # noqa: N818 - what happened
    """Enphase says that we ask too often."""

    state = "locked_out"

    def __init__(self, message: str, stay_away_s: float) -> None:
        super().__init__(message)
        self.stay_away_s = stay_away_s


class SerialRefused(EnlightenError):  # noqa: N818 - what happened
    """The log-in is good, but there is no token for this gateway."""

    state = "bad_credentials"
    stay_away_s = DAY_S


class CloudUnreachable(EnlightenError):  # noqa: N818 - what happened
    """No answer, or Enphase says that it cannot now."""

    state = "cloud_unreachable"


class AnswerNotUnderstood(CloudUnreachable):
    """An answer that nobody has seen yet; Enphase may have changed its log-in."""


@dataclass(frozen=True, slots=True)
class Enlighten:
    """An account at Enphase; its fields stay out of ``repr``."""

    login_url: str
    tokens_url: str
    email: str = field(repr=False)
    password: SecretStr = field(repr=False)
    pause: Callable[[float], object] = time.sleep
    session: requests.Session = field(default_factory=requests.Session, repr=False)

    def log_in(self) -> SecretStr:
        """Return a session, which is good for the tokens of all the account's gateways.

        Raises:
            EnlightenError: see the module.
        """
        # What an earlier log-in left behind must not decide this one.
        self.session.cookies.clear()
        form = {"user[email]": self.email, "user[password]": self.password.get_secret_value()}
        answer = self._post(self.login_url, data=form)
        if answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            reply = _json_object(answer.body)
            if "too many" in str((reply or {}).get("message", "")).lower():
                raise TooManySessions(_TOO_MANY_SESSIONS)
            if reply is None and answer.status != HTTPStatus.UNAUTHORIZED:
                raise AnswerNotUnderstood(f"Enphase answers the log-in with status {answer.status:d} and no reason")
            raise CredentialsRejected("Enphase rejects the log-in; correct ENLIGHTEN_EMAIL and ENLIGHTEN_PASSWORD")
        _check_status(answer, "log-in")
        reply = _json_object(answer.body)
        if reply is None:
            raise CloudUnreachable("Enphase's cloud answers the log-in with a page instead of JSON")
        return _session_of(reply)

    def token(self, session: SecretStr, serial: str) -> str:
        """Return what is handed out for a gateway, as text; whether it is a token is for the caller to see.

        Raises:
            EnlightenError: see the module.
        """
        order = {"session_id": session.get_secret_value(), "serial_num": serial, "username": self.email}
        answer = self._post(self.tokens_url, json=order)
        if answer.status == HTTPStatus.FORBIDDEN:
            self.pause(TOO_SOON_S)
            answer = self._post(self.tokens_url, json=order)
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
            raise SerialRefused(
                f"Enphase gives this account no token for gateway {serial} (status {answer.status:d}); is it the "
                f"gateway's owner's, and the number right? Otherwise {BY_HAND}"
            )
        _check_status(answer, "token")
        return _token_text(answer.body)

    def _post(self, url: str, **request: Any) -> Answer:
        try:
            return exchange(self.session, "POST", url, deadline_s=DEADLINE_S, **request)
        except requests.exceptions.SSLError:
            raise CloudUnreachable(
                "Enphase's cloud does not prove who it is (TLS), so it was told nothing; is the clock right, "
                "and does a proxy stand between?"
            ) from None
        except ExchangeFailed as error:
            raise CloudUnreachable(f"Enphase's cloud cannot be reached: {error}") from None


_TOO_MANY_SESSIONS = "Enphase says that the account has too many sessions; log out elsewhere"


def _session_of(reply: dict[str, Any]) -> SecretStr:
    """Return the session out of a log-in's reply.

    A blocked account says so; a second factor is asked for by a reply without a session (home-assistant/core#155793,
    barneyonline/ha-enphase-ev-charger, docs/api/api_spec.md).
    """
    if reply.get("isBlocked") is True:
        raise AccountBlocked("Enphase has blocked the account; log in at its web site to unblock it")
    if "too many" in str(reply.get("message", "")).lower():
        raise TooManySessions(_TOO_MANY_SESSIONS)
    session = reply.get("session_id")
    if isinstance(session, str) and session:
        return SecretStr(session)
    if reply.get("requires_mfa") is True or reply.get("success") is True or "isBlocked" in reply:
        raise MfaRequired(f"Enphase asks for a second factor; {BY_HAND}")
    raise AnswerNotUnderstood("Enphase answers the log-in without a session; it may have changed its log-in")


def _check_status(answer: Answer, what: str) -> None:
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        told = answer.headers.get("Retry-After", "")
        stay_away_s = min(DAY_S, max(SHORTEST_THROTTLE_S, float(told) if told.isdecimal() else 0.0))
        raise Throttled(f"Enphase says that we ask too often for a {what}", stay_away_s)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise CloudUnreachable(f"Enphase's cloud answers the {what} with status {answer.status:d}")
    if answer.status != HTTPStatus.OK:
        raise AnswerNotUnderstood(f"Enphase answers the {what} with status {answer.status:d}")


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return reply if isinstance(reply, dict) else None


def _token_text(body: bytes) -> str:
    """Return the token out of an answer that is either its bare text or JSON with a key ``token``."""
    text = body.decode("utf-8", "replace").strip()
    reply = _json_object(body)
    if reply is not None:
        text = reply["token"] if isinstance(reply.get("token"), str) else ""
    if text.lstrip().startswith("<"):
        raise CloudUnreachable("Enphase's cloud answers the token with a page")
    return text
