"""An Enphase account, used so sparingly that Enphase never locks it."""

from contextlib import AbstractContextManager

from pydantic import SecretStr

from services.token_broker.enlighten import (
    DAY_S,
    HOUR_S,
    CloudUnreachable,
    Enlighten,
    EnlightenError,
    LoginRejected,
    Throttled,
    UnexpectedResponse,
)
from services.token_broker.logins import LoginRecord
from shared.backoff import backoff_s
from shared.messages import TokenState
from shared.tokens import Token

FIRST_RETRY_DELAY_S, MAX_RETRY_DELAY_S = 5.0, HOUR_S
REJECTED_RETRY_DELAY_S = DAY_S / 3
"""A rejected log-in is repeated three times a day: a corrected account is noticed soon, and none is locked."""

SESSION_REUSE_S = 60.0
"""Within this a session serves further gateways without another log-in."""


class FetchFailed(Exception):
    """There is no token; the message is the reason and what to do, and no request is allowed before a time."""

    def __init__(self, state: TokenState, message: str, next_attempt_at: float, *, affects_account: bool) -> None:
        super().__init__(message)
        self.state = state
        self.next_attempt_at = next_attempt_at
        self.affects_account = affects_account
        """Whether the same applies to the other gateways of the account."""


class Account:
    """Tokens for the gateways of one account; times are epoch seconds.

    Call :meth:`fetch_token` only inside :meth:`locked`.
    """

    def __init__(self, enlighten: Enlighten, logins: LoginRecord) -> None:
        self._enlighten = enlighten
        self._logins = logins
        self._session: SecretStr | None = None
        self._logged_in_at = 0.0
        self._failures = 0
        self.login_attempts = 0
        self.failed_logins = 0

    @property
    def last_refusal(self) -> tuple[TokenState, str]:
        """State and message of the last refusal, also of another process."""
        return self._logins.last_refusal

    def next_attempt_at(self, now: float) -> float:
        """Return when the next request is allowed; a time in the past means now."""
        return self._logins.next_attempt_at(now)

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from logging in while the ``with`` block runs. Raises OSError."""
        return self._logins.locked()

    def claim_renewal(self, serial: str, now: float) -> bool:
        """Return True once a day, when the token that a gateway rejects may be exchanged, and record it.

        Raises:
            OSError: it cannot be recorded.
        """
        return self._logins.claim_renewal(serial, now)

    def fetch_token(self, serial: str, now: float) -> Token:
        """Return a new token for a gateway, after a log-in if the last one is too old.

        Raises:
            FetchFailed: there is none.
            OSError: the log-in cannot be recorded, so none was made.
        """
        self._logins.record_clock(now)
        if (next_attempt_at := self._logins.next_attempt_at(now)) > now:
            state, message = self._logins.last_refusal
            raise FetchFailed(state, message, next_attempt_at, affects_account=True)
        try:
            session = self._recent_session(now)
        except EnlightenError as error:
            raise self._record_failure(error, now, affects_account=True) from error
        try:
            token = self._enlighten.fetch_token(session, serial, now)
        except EnlightenError as error:
            affects_account = isinstance(error, Throttled | CloudUnreachable)
            raise self._record_failure(error, now, affects_account=affects_account) from error
        self._failures = 0
        return token

    def _recent_session(self, now: float) -> SecretStr:
        """Return the session of a recent log-in, after a new one if necessary. Raises EnlightenError."""
        if self._session is not None and 0 <= now - self._logged_in_at < SESSION_REUSE_S:
            return self._session
        self._logins.record_attempt(now)
        self.login_attempts += 1
        try:
            session = self._enlighten.log_in()
        except EnlightenError as error:
            self.failed_logins += 1
            if not isinstance(error, LoginRejected):
                self._logins.undo_attempt()
            raise
        self._session, self._logged_in_at = session, now
        self._logins.record_success()
        return session

    def _record_failure(self, error: EnlightenError, now: float, *, affects_account: bool) -> FetchFailed:
        """Record a failure, on disk if other processes must wait too, and return when to make the next attempt."""
        if isinstance(error, LoginRejected | Throttled):
            self._logins.record_refusal(error.state, str(error), wait_until=now + error.min_wait_s)
        delay_s = error.min_wait_s or REJECTED_RETRY_DELAY_S
        if isinstance(error, CloudUnreachable | UnexpectedResponse):
            self._failures += 1
            delay_s = max(
                error.min_wait_s, backoff_s(self._failures, first_s=FIRST_RETRY_DELAY_S, max_s=MAX_RETRY_DELAY_S)
            )
        next_attempt_at = max(now + delay_s, self._logins.next_attempt_at(now))
        return FetchFailed(error.state, str(error), next_attempt_at, affects_account=affects_account)
