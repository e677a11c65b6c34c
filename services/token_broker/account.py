"""An Enphase account, used so sparingly that Enphase never locks it."""

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
    """Tokens for the gateways of one account; times are epoch seconds."""

    def __init__(self, enlighten: Enlighten, logins: LoginRecord) -> None:
        self._enlighten = enlighten
        self.logins = logins
        """The record of its log-ins."""
        self._session: SecretStr | None = None
        self._logged_in_at = 0.0
        self._failures = 0
        self.login_attempts = 0
        self.failed_logins = 0

    def fetch_token(self, serial: str, now: float) -> Token:
        """Return a new token for a gateway, after a log-in if the last one is too old.

        Call it while the record is locked.

        Raises:
            FetchFailed: there is none.
            OSError: the log-in cannot be recorded, so none was made.
        """
        self.logins.record_clock(now)
        if (next_attempt_at := self.logins.next_attempt_at(now)) > now:
            state, message = self.logins.last_refusal
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
        self.logins.record_attempt(now)
        self.login_attempts += 1
        try:
            session = self._enlighten.log_in()
        except EnlightenError as error:
            self.failed_logins += 1
            if not isinstance(error, LoginRejected):
                self.logins.undo_attempt()
            raise
        self._session, self._logged_in_at = session, now
        self.logins.record_success()
        return session

    def _record_failure(self, error: EnlightenError, now: float, *, affects_account: bool) -> FetchFailed:
        """Record a failure, on disk if other processes must wait too, and return when to make the next attempt."""
        if isinstance(error, LoginRejected | Throttled):
            self.logins.record_refusal(error.state, str(error), wait_until=now + error.min_wait_s)
        delay_s = error.min_wait_s or REJECTED_RETRY_DELAY_S
        if isinstance(error, CloudUnreachable | UnexpectedResponse):
            self._failures += 1
            delay_s = max(
                error.min_wait_s, backoff_s(self._failures, first_s=FIRST_RETRY_DELAY_S, max_s=MAX_RETRY_DELAY_S)
            )
        next_attempt_at = max(now + delay_s, self.logins.next_attempt_at(now))
        return FetchFailed(error.state, str(error), next_attempt_at, affects_account=affects_account)
