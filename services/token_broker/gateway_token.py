"""The token of one gateway: when to renew it, and what its status is."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from services.token_broker.enlighten import DAY_S, FETCH_MANUALLY
from services.token_broker.token_cache import CachedToken
from shared.messages import TokenState, TokenStatus
from shared.tokens import Token

logger = logging.getLogger(__name__)

MAX_RENEWAL_MARGIN_S = 30 * DAY_S
MIN_RENEWAL_MARGIN_S = 600.0
MIN_FETCH_INTERVAL_S = 60.0
"""A token is not replaced sooner, whatever requests it."""

MANUAL_TOKEN_REJECTED = f"the gateway rejects the token in ENVOY_TOKEN; {FETCH_MANUALLY}"
NEW_TOKEN_REJECTED = (
    "the gateway rejects a new token; check that its clock is right and that it is the gateway of that serial number, "
    f"or {FETCH_MANUALLY}"
)


@dataclass(slots=True)
class GatewayToken:
    """One gateway's token, and why there is no newer one; times are epoch seconds."""

    serial: str
    fetch_at: float
    """When to fetch the next token."""
    token: Token | None = None
    fetched_at: float = 0.0
    problem: tuple[TokenState, str] | None = None
    """State and message of the last fetch if it failed."""
    rejected_until: float = 0.0
    """Until when the gateway is assumed to reject the token; nothing reports that it accepts it again."""

    def valid_token(self, now: float) -> Token | None:
        """Return the token if it has not expired."""
        return self.token if self.token is not None and self.token.expires_at > now else None

    def accept(self, new: CachedToken) -> None:
        """Use a new token."""
        self.token, self.fetched_at = new
        self.fetch_at = next_fetch_at(new)
        self.problem, self.rejected_until = None, 0.0

    def postpone(self, until: float, state: TokenState, message: str) -> None:
        """Fetch the next token at a later time, and report why until then."""
        self.fetch_at = until
        self.problem = (state, f"{message}; next attempt at {format_time(until)}")
        logger.error("no new token for gateway %s: %s", self.serial, self.problem[1])

    def status(self, now: float) -> TokenStatus | None:
        """Return the status of the token; None before there is one or a problem."""
        token = self.token
        if token is None and self.problem is None:
            return None
        state, message = self._state(now)
        return TokenStatus(
            state=state,
            message=message,
            expires_at=token.expires_at if token else None,
            days_left=token.days_left(now) if token else None,
        )

    def _state(self, now: float) -> tuple[TokenState, str]:
        token, valid = self.token, self.valid_token(now) is not None
        manual = token is not None and token.kind == "manual"
        if self.rejected_until > now:
            return "bad_credentials", MANUAL_TOKEN_REJECTED if manual else NEW_TOKEN_REJECTED
        if self.problem is not None:
            state, message = self.problem
            return "expiring" if valid and state == "cloud_unreachable" else state, message
        assert token is not None
        if manual and renew_at(token) <= now:
            validity = f"expires in {token.days_left(now):g} days" if valid else "has expired"
            return "expiring", f"the token in ENVOY_TOKEN {validity}; {FETCH_MANUALLY}"
        return "ok", f"{token.kind} token, valid for {token.days_left(now):g} days"


def renew_at(token: Token) -> float:
    """Return when to renew a token: with a tenth of its lifetime left, at most 30 days and at least ten minutes."""
    tenth_s = (token.expires_at - token.issued_at) // 10
    return token.expires_at - max(MIN_RENEWAL_MARGIN_S, min(MAX_RENEWAL_MARGIN_S, tenth_s))


def next_fetch_at(cached: CachedToken) -> float:
    """Return when to fetch the next token: to renew this one, but not at once if Enphase issues it almost expired."""
    token, fetched_at = cached
    remaining_s = token.expires_at - fetched_at
    return max(renew_at(token), fetched_at + max(MIN_FETCH_INTERVAL_S, remaining_s / 10))


def format_time(at: float) -> str:
    """Return a time as text, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
