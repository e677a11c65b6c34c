"""Enphase's cloud: a log-in with e-mail address and password, then a token for each gateway of the account.

The two requests are flow A of pyenphase (pyenphase/pyenphase, src/pyenphase/auth.py).

Errors, by what the caller must do::

    EnlightenError
    ├── LoginRejected             count the attempt, and make only a few a day
    │   ├── CredentialsRejected       a person must correct them
    │   ├── MfaRequired               a person must fetch a token manually
    │   ├── AccountBlocked            wait a day
    │   ├── TooManySessions           wait a day
    │   └── UnexpectedLoginResponse   may be a rejection in unknown words: a person must check
    ├── Throttled                 wait for the time that Enphase demands
    ├── TokenRefused              wait a day before the next request for this gateway
    ├── CloudUnreachable          retry with back-off; other requests would fail too
    └── UnexpectedResponse        retry with back-off; Enphase may have changed its interface

No error contains a response body, a credential or a session.
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
from shared.tokens import InvalidToken, Token, parse_token

REQUEST_TIMEOUT_S = 9.0
"""Docker kills a service ten seconds after SIGTERM. A log-in that is killed counts as rejected, one that times out does
not."""

HOUR_S, DAY_S = 3600.0, 86_400.0
TOKEN_RETRY_DELAY_S = 1.0
"""Enphase sometimes refuses a token right after the log-in and issues it a moment later (amykyta3/envoy-logger#15)."""

CREDENTIALS_REJECTED = "Enphase rejected the log-in; correct ENLIGHTEN_EMAIL and ENLIGHTEN_PASSWORD"
FETCH_MANUALLY = "fetch a token manually at https://entrez.enphaseenergy.com and set ENVOY_TOKEN to it"

NO_SESSION = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
NO_TOKEN = (*NO_SESSION, HTTPStatus.NOT_FOUND)
TOO_MANY_REQUESTS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.NOT_ACCEPTABLE)
"""Enphase's bot detection responds with 406 (barneyonline/ha-enphase-ev-charger, api.py)."""


class EnlightenError(Exception):
    """Enphase issued no token; the message is the reason and what to do."""

    state: ClassVar[TokenState]
    min_wait_s: float = 0.0
    """The minimum time until the next request."""

    def __init__(self, message: str, min_wait_s: float | None = None) -> None:
        super().__init__(message)
        if min_wait_s is not None:
            self.min_wait_s = min_wait_s


class LoginRejected(EnlightenError):
    """Enphase rejected the log-in; every further rejection brings the account closer to being locked."""


class CredentialsRejected(LoginRejected):
    """The account does not exist, or the password is wrong."""

    state = "bad_credentials"


class MfaRequired(LoginRejected):
    """The account requires a second factor, which only a person has."""

    state = "mfa_required"


class AccountBlocked(LoginRejected):
    """The account is blocked."""

    state = "locked_out"
    min_wait_s = DAY_S


class TooManySessions(LoginRejected):
    """The account has the maximum number of sessions."""

    state = "locked_out"
    min_wait_s = DAY_S


class UnexpectedLoginResponse(LoginRejected):
    """The response to the log-in contains neither a session nor a known reason."""

    state = "cloud_unreachable"


class Throttled(EnlightenError):
    """Enphase received too many requests."""

    state = "locked_out"
    min_wait_s = HOUR_S


class TokenRefused(EnlightenError):
    """The log-in succeeded, but Enphase issues no token for this gateway."""

    state = "bad_credentials"
    min_wait_s = DAY_S


class CloudUnreachable(EnlightenError):
    """There is no response, or it is a temporary failure."""

    state = "cloud_unreachable"


class UnexpectedResponse(EnlightenError):
    """A response that this version does not know."""

    state = "cloud_unreachable"


@dataclass(frozen=True, slots=True)
class Enlighten:
    """Enphase's cloud for one account; credentials are not in its ``repr``."""

    login_url: str
    tokens_url: str
    email: str = field(repr=False)
    password: SecretStr = field(repr=False)
    public_key: str | None = None
    """Enphase's, as PEM, to check the signature of a token with."""
    pause: Callable[[float], object] = time.sleep
    session: BoundedSession = field(default_factory=BoundedSession, repr=False)

    def log_in(self) -> SecretStr:
        """Return a session, which is valid for the tokens of all gateways of the account.

        Raises:
            EnlightenError: see the module.
        """
        self.session.cookies.clear()  # those of an earlier log-in could change the response
        form = {"user[email]": self.email, "user[password]": self.password.get_secret_value()}
        response = self._post(self.login_url, data=form)
        _check_availability(response, "log-in")
        content = _parse_json(response.body)
        if isinstance(content, dict):
            return _parse_session(content, response.status)
        if response.status == HTTPStatus.UNAUTHORIZED:
            raise CredentialsRejected(CREDENTIALS_REJECTED)
        _check_status(response, "log-in")
        raise CloudUnreachable("Enphase responded to the log-in with a page instead of JSON")

    def fetch_token(self, session: SecretStr, serial: str, now: float) -> Token:
        """Return a new token for a gateway.

        Raises:
            EnlightenError: see the module.
        """
        request = {"session_id": session.get_secret_value(), "serial_num": serial, "username": self.email}
        response = self._post(self.tokens_url, json=request)
        if response.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN):
            self.pause(TOKEN_RETRY_DELAY_S)
            response = self._post(self.tokens_url, json=request)
        if response.status in NO_TOKEN:
            raise TokenRefused(
                f"Enphase issues this account no token for gateway {serial} (status {response.status:d}); check that "
                f"the serial number is right and that the account owns the gateway, or {FETCH_MANUALLY}"
            )
        _check_availability(response, "token request")
        _check_status(response, "token request")
        try:
            return parse_token(_token_text(response.body), now=now, serial=serial, public_key=self.public_key)
        except InvalidToken as error:
            raise UnexpectedResponse(f"Enphase responded to the token request without a valid token: {error}") from None

    def _post(self, url: str, **request: Any) -> Response:
        try:
            return exchange(self.session, "POST", url, deadline_s=REQUEST_TIMEOUT_S, **request)
        except requests.exceptions.SSLError:
            raise CloudUnreachable(
                "the certificate of Enphase's cloud is not valid, so nothing was sent; check the clock of this machine "
                "and whether a proxy intercepts TLS"
            ) from None
        except ExchangeFailed as error:
            raise CloudUnreachable(f"Enphase's cloud is unreachable: {error}") from None


def _parse_session(content: dict[str, Any], status: int) -> SecretStr:
    """Return the session in the response to a log-in.

    The response for a blocked account has a field of its own; a second factor is requested with a success without a
    session (home-assistant/core#155793; barneyonline/ha-enphase-ev-charger, docs/api/api_spec.md; pyenphase reads it so
    too). Any other response without a session counts as a rejection, because repeating it might lock the account.
    """
    message, session = str(content.get("message", "")).lower(), content.get("session_id")
    if content.get("isBlocked") is True:
        raise AccountBlocked("Enphase has blocked the account; log in at its web site to unblock it")
    if "too many" in message and "session" in message:
        raise TooManySessions("the account has too many sessions; log out on other devices")
    if status == HTTPStatus.OK and isinstance(session, str) and session:
        return SecretStr(session)
    requires_mfa = content.get("requires_mfa") is True or content.get("success") is True or message == "success"
    if not requires_mfa and (status in NO_SESSION or "invalid" in message):
        raise CredentialsRejected(CREDENTIALS_REJECTED)
    if requires_mfa or "isBlocked" in content:
        raise MfaRequired(f"Enphase requires a second factor; {FETCH_MANUALLY}")
    raise UnexpectedLoginResponse(
        f"Enphase responded to the log-in with status {status:d} and without a session, so it may have changed its "
        f"log-in; {FETCH_MANUALLY}"
    )


def _check_availability(response: Response, request: str) -> None:
    retry_after_s = response.retry_after_s or 0.0
    message = f"Enphase responded to the {request} with status {response.status:d}"
    if response.status in TOO_MANY_REQUESTS:
        min_wait_s = min(DAY_S, max(Throttled.min_wait_s, retry_after_s))
        raise Throttled(f"{message}: too many requests", min_wait_s)
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise CloudUnreachable(message, min(HOUR_S, retry_after_s))


def _check_status(response: Response, request: str) -> None:
    if response.status != HTTPStatus.OK:
        raise UnexpectedResponse(f"Enphase responded to the {request} with status {response.status:d}")


def _token_text(body: bytes) -> str:
    """Return the token in a response: plain text, a JSON string, or a JSON object with the field ``token``."""
    content = _parse_json(body)
    if isinstance(content, dict):
        content = content.get("token", "")
    text = content if isinstance(content, str) else body.decode("utf-8", "replace")
    if text.lstrip().startswith("<"):
        raise CloudUnreachable("Enphase responded to the token request with a page")
    return text


def _parse_json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
