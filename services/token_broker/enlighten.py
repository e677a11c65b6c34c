"""Enphase's log-in: an e-mail address and a password in, a token for one gateway out.

Two requests (flow A of pyenphase/pyenphase, src/pyenphase/auth.py): the log-in gives a session, the session a token
for each gateway of the account.

Errors, by what the caller must do::

    EnlightenError
    ├── LoginRejected             count it, and try again only a few times a day
    │   ├── CredentialsRejected       a person must correct them
    │   ├── MfaRequired               a person must fetch a token by hand
    │   ├── AccountBlocked            leave the account alone for a day
    │   ├── TooManySessions           leave the account alone for a day
    │   └── LoginNotUnderstood        a person must look; it may be a rejection in new words
    ├── Throttled                 leave the account alone for as long as told
    ├── SerialRefused             do not ask for this gateway again for a day
    └── CloudUnreachable          try again soon, then ever more rarely
        └── ResponseNotUnderstood

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

from shared.http import BoundedSession, ExchangeFailed, Response, exchange
from shared.messages import TokenState

DEADLINE_S = 9.0
"""Whoever ends us waits ten seconds as a rule: a log-in that is killed counts as rejected, one that fails does not."""

DAY_S = 86_400.0
TOO_SOON_S = 1.0
"""Enphase refuses a token right after the log-in at times, and grants it a moment later (amykyta3/envoy-logger#15)."""

MIN_THROTTLE_S = 3600.0
FETCH_MANUALLY = "fetch a token by hand at https://entrez.enphaseenergy.com and give it as ENVOY_TOKEN"


class EnlightenError(Exception):
    """Enphase's cloud did not hand out a token; the message says why and what to do."""

    state: ClassVar[TokenState]
    stay_away_s: float = 0.0
    """How long Enphase is to be left alone at least."""


class LoginRejected(EnlightenError):
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


class LoginNotUnderstood(LoginRejected):
    """Enphase answered the log-in with neither a session nor a reason that we know."""

    state = "cloud_unreachable"


class Throttled(EnlightenError):
    """Enphase says that we ask too often."""

    state = "locked_out"

    def __init__(self, message: str, stay_away_s: float) -> None:
        super().__init__(message)
        self.stay_away_s = stay_away_s


class SerialRefused(EnlightenError):
    """The log-in is good, but there is no token for this gateway."""

    state = "bad_credentials"
    stay_away_s = DAY_S


class CloudUnreachable(EnlightenError):
    """No answer, or Enphase says that it cannot now, and perhaps when it can again."""

    state = "cloud_unreachable"

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ResponseNotUnderstood(CloudUnreachable):
    """An answer that nobody has seen yet; Enphase may have changed its log-in."""


@dataclass(frozen=True, slots=True)
class Enlighten:
    """An account at Enphase; its fields stay out of ``repr``."""

    login_url: str
    tokens_url: str
    email: str = field(repr=False)
    password: SecretStr = field(repr=False)
    pause: Callable[[float], object] = time.sleep
    session: BoundedSession = field(default_factory=BoundedSession, repr=False)

    def log_in(self) -> SecretStr:
        """Return a session, which is good for the tokens of all the account's gateways.

        Raises:
            EnlightenError: see the module.
        """
        # What an earlier log-in left behind must not decide this one.
        self.session.cookies.clear()
        form = {"user[email]": self.email, "user[password]": self.password.get_secret_value()}
        answer = self._post(self.login_url, data=form)
        _check_busy(answer, "log-in")
        reply = _json_object(answer.body)
        if reply is not None:
            return _session_of(reply, answer.status)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise CredentialsRejected(_REJECTED)
        _check_status(answer, "log-in")
        raise CloudUnreachable("Enphase's cloud answers the log-in with a page instead of JSON")

    def token(self, session: SecretStr, serial: str) -> str:
        """Return what is handed out for a gateway, as text; whether it is a token is for the caller to see.

        Raises:
            EnlightenError: see the module.
        """
        order = {"session_id": session.get_secret_value(), "serial_num": serial, "username": self.email}
        answer = self._post(self.tokens_url, json=order)
        if answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN):
            self.pause(TOO_SOON_S)
            answer = self._post(self.tokens_url, json=order)
        if answer.status in _NO_TOKEN:
            raise SerialRefused(
                f"Enphase gives this account no token for gateway {serial} (status {answer.status:d}); is it the "
                f"gateway's owner's, and the number right? Otherwise {FETCH_MANUALLY}"
            )
        _check_busy(answer, "token")
        _check_status(answer, "token")
        return _token_text(answer.body)

    def _post(self, url: str, **request: Any) -> Response:
        try:
            return exchange(self.session, "POST", url, deadline_s=DEADLINE_S, **request)
        except requests.exceptions.SSLError:
            raise CloudUnreachable(
                "Enphase's cloud does not prove who it is (TLS), so it was told nothing; is the clock right, "
                "and does a proxy stand between?"
            ) from None
        except ExchangeFailed as error:
            raise CloudUnreachable(f"Enphase's cloud cannot be reached: {error}") from None


_REJECTED = "Enphase rejects the log-in; correct ENLIGHTEN_EMAIL and ENLIGHTEN_PASSWORD"
_NO_SESSION = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_NO_TOKEN = (*_NO_SESSION, HTTPStatus.NOT_FOUND)
_TOO_OFTEN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.NOT_ACCEPTABLE)
"""406 is what Enphase's check for robots answers (barneyonline/ha-enphase-ev-charger, api.py)."""


def _session_of(reply: dict[str, Any], status: int) -> SecretStr:
    """Return the session out of a log-in's reply.

    A blocked account says so; a second factor is asked for by a success without a session (home-assistant/core#155793,
    barneyonline/ha-enphase-ev-charger, docs/api/api_spec.md; pyenphase takes it so, too). Whatever else holds no
    session is taken for a rejection: to try it again and again might lock the account.
    """
    message, session = str(reply.get("message", "")).lower(), reply.get("session_id")
    if reply.get("isBlocked") is True:
        raise AccountBlocked("Enphase has blocked the account; log in at its web site to unblock it")
    if "too many" in message and "session" in message:
        raise TooManySessions("Enphase says that the account has too many sessions; log out elsewhere")
    if status == HTTPStatus.OK and isinstance(session, str) and session:
        return SecretStr(session)
    asks_for_more = reply.get("requires_mfa") is True or reply.get("success") is True or message == "success"
    if not asks_for_more and (status in _NO_SESSION or "invalid" in message):
        raise CredentialsRejected(_REJECTED)
    if asks_for_more or "isBlocked" in reply:
        raise MfaRequired(f"Enphase asks for a second factor; {FETCH_MANUALLY}")
    raise LoginNotUnderstood(
        f"Enphase answers the log-in with status {status:d} and without a session; it may have changed its log-in. "
        f"Otherwise {FETCH_MANUALLY}"
    )


def _check_busy(answer: Response, what: str) -> None:
    retry_after_s = answer.retry_after_s or 0.0
    if answer.status in _TOO_OFTEN:
        stay_away_s = min(DAY_S, max(MIN_THROTTLE_S, retry_after_s))
        raise Throttled(f"Enphase says that we ask too often for a {what} (status {answer.status:d})", stay_away_s)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise CloudUnreachable(f"Enphase's cloud answers the {what} with status {answer.status:d}", retry_after_s)


def _check_status(answer: Response, what: str) -> None:
    if answer.status != HTTPStatus.OK:
        raise ResponseNotUnderstood(f"Enphase answers the {what} with status {answer.status:d}")


def _json_object(body: bytes) -> dict[str, Any] | None:
    reply = _json(body)
    return reply if isinstance(reply, dict) else None


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _token_text(body: bytes) -> str:
    """Return the token out of an answer: its bare text, or JSON that is it or holds it as ``token``."""
    reply = _json(body)
    if isinstance(reply, dict):
        reply = reply.get("token", "")
    text = reply if isinstance(reply, str) else body.decode("utf-8", "replace")
    if text.lstrip().startswith("<"):
        raise CloudUnreachable("Enphase's cloud answers the token with a page")
    return text
