"""Decides when a token is fetched, and fetches it: each gateway supplied, Enphase asked as rarely as that allows."""

import logging
import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import SecretStr

from services.token_broker.enlighten import (
    DAY_S,
    FETCH_MANUALLY,
    CloudUnreachable,
    Enlighten,
    EnlightenError,
    LoginRejected,
    ResponseNotUnderstood,
    Throttled,
)
from services.token_broker.logins import LoginRecord
from services.token_broker.tokens import NotAToken, Token, TokenCache
from shared.messages import TokenState, TokenStatus

logger = logging.getLogger(__name__)

FIRST_RETRY_S, LAST_RETRY_S = 5.0, 3600.0
AFTER_REJECTION_S = DAY_S / 3
"""A rejected log-in is tried three times a day: soon enough to notice a mended account, too rarely to be locked."""

JUST_FETCHED_S = 60.0
"""A token is not replaced sooner, whoever asks; meanwhile its log-in serves all others who do."""

MAX_DISCOVERED = 20
"""Gateways that are supplied because somebody asked, and not because a setting names them."""

NO_ACCOUNT = f"there is no account to fetch one with: set ENLIGHTEN_EMAIL and ENLIGHTEN_PASSWORD, or {FETCH_MANUALLY}"
MANUAL_REJECTED = f"the gateway rejects the token given as ENVOY_TOKEN; {FETCH_MANUALLY}"
REJECTED = (
    "the gateway rejects a token fresh from Enphase; is its clock right, and is it the gateway that the token is for? "
    f"Otherwise {FETCH_MANUALLY}"
)


@dataclass(slots=True)
class Supply:
    """One gateway's token, and what stands in the way of the next."""

    serial: str
    token: Token | None
    fetch_at: float
    """When to fetch the next one, epoch seconds."""
    problem: tuple[TokenState, str] | None = None
    rejected_until: float = 0.0
    """Until when the gateway is taken to reject the token: nobody tells us when it accepts it again."""

    def status(self, now: float) -> TokenStatus | None:
        """Return how the token is; None before anything is known of it."""
        token = self.token
        good = token is not None and token.expires_at > now
        state: TokenState
        if self.rejected_until > now:
            state, message = "bad_credentials", MANUAL_REJECTED if token and token.kind == "manual" else REJECTED
        elif self.problem is not None:
            state, message = self.problem
            if good and state == "cloud_unreachable":
                state = "expiring"
        elif token is None:
            return None
        elif token.kind == "manual" and token.renew_at() <= now:
            left = f"good for {token.days_left(now):g} days more" if good else "expired"
            state, message = "expiring", f"the token given as ENVOY_TOKEN is {left}; {FETCH_MANUALLY}"
        else:
            state, message = "ok", f"{token.kind} token, good for {token.days_left(now):g} days"
        return TokenStatus(
            state=state,
            message=message,
            expires_at=token.expires_at if token else None,
            days_left=token.days_left(now) if token else None,
        )


class TokenSupply:
    """The tokens of all gateways served; times are epoch seconds."""

    def __init__(
        self,
        enlighten: Enlighten | None,
        logins: LoginRecord | None,
        cache: TokenCache,
        *,
        manual: Token | None = None,
        public_key: str | None = None,
    ) -> None:
        """Begin with nothing to supply but a token given by hand.

        Args:
            enlighten: the account, None if nobody told it.
            logins: the record of its log-ins.
            cache: where tokens are kept.
            manual: a token from a person, which is never exchanged.
            public_key: Enphase's, to check signatures with.
        """
        self._enlighten = enlighten
        self._logins = logins
        self._cache = cache
        self._public_key = public_key
        self._failures = 0
        self._session: SecretStr | None = None
        self._logged_in_at = 0.0
        self._supplies: dict[str, Supply] = {}
        self.counters: Counter[str] = Counter(logins=0, logins_failed=0)
        if manual is not None:
            self._supplies[manual.serial] = Supply(manual.serial, manual, fetch_at=float("inf"))

    @property
    def all(self) -> list[Supply]:
        """Every gateway served."""
        return list(self._supplies.values())

    def serve(self, serial: str, now: float) -> Supply:
        """Begin to supply a gateway, from the cache if it has a good token, and return its supply."""
        if serial not in self._supplies:
            token = self._cache.load(serial, now)
            self._supplies[serial] = Supply(serial, token, fetch_at=_fetch_at(token) if token else now)
        return self._supplies[serial]

    def requested(self, serial: str, now: float) -> Supply | None:
        """Return the supply of a gateway that somebody asks for; None where too many were asked for already."""
        if serial not in self._supplies and len(self._supplies) >= MAX_DISCOVERED:
            return None
        return self.serve(serial, now)

    def rejected(self, supply: Supply, now: float) -> None:
        """Note that a gateway rejects its token: exchange it for another, once a day and not if it is new."""
        token = supply.token
        if token is None or supply.problem is not None or supply.fetch_at <= now:
            return
        if token.kind != "manual" and 0 <= now - token.fetched_at < JUST_FETCHED_S:
            return
        if token.kind != "manual" and self._may_renew_rejected(supply.serial, now):
            supply.fetch_at = now
        else:
            supply.rejected_until = now + DAY_S

    def _may_renew_rejected(self, serial: str, now: float) -> bool:
        try:
            return self._logins is not None and self._logins.may_renew_rejected(serial, now)
        except OSError:
            return False

    def fetch_due(self, now: float) -> list[Supply]:
        """Fetch what is due, with one log-in for all of it, and return the supplies that have changed."""
        for supply in self._supplies.values():
            if supply.problem is not None and supply.fetch_at > now + DAY_S:
                supply.fetch_at = now + DAY_S  # the clock was ahead when it was postponed
        due = [supply for supply in self._supplies.values() if supply.fetch_at <= now]
        if not due:
            return []
        if self._enlighten is None or self._logins is None:
            for supply in due:
                supply.problem, supply.fetch_at = ("bad_credentials", NO_ACCOUNT), float("inf")
            return due
        try:
            with self._logins.alone():
                fetched_by_others = [supply for supply in due if self._found_in_cache(supply, now)]
                due = [supply for supply in due if supply not in fetched_by_others]
                if due:
                    self._exchange(self._enlighten, self._logins, due, now)
                return [*fetched_by_others, *due]
        except OSError as error:
            # Without the count of what was tried nothing is tried.
            reason = f"{self._logins.path} cannot be written ({error.strerror}), so no log-in is tried; see STATE_DIR"
            return self._postpone(due, now + JUST_FETCHED_S, "cloud_unreachable", reason)

    def _found_in_cache(self, supply: Supply, now: float) -> bool:
        """Return whether another process has put a newer token there, and take it."""
        token = self._cache.load(supply.serial, now)
        if token is None or token == supply.token or _fetch_at(token) <= now:
            return False
        supply.token, supply.fetch_at, supply.problem, supply.rejected_until = token, _fetch_at(token), None, 0.0
        return True

    def _exchange(self, enlighten: Enlighten, logins: LoginRecord, due: list[Supply], now: float) -> None:
        if (may_try_at := logins.may_try_at(now)) > now:
            state, message = logins.last_refusal
            self._postpone(due, may_try_at, state, message)
            return
        if self._session is None or not 0 <= now - self._logged_in_at < JUST_FETCHED_S:
            logins.trying(now)
            self.counters["logins"] += 1
            try:
                self._session, self._logged_in_at = enlighten.log_in(), now
            except EnlightenError as error:
                self._refused(logins, due, error, now)
                return
            logins.succeeded()
        for place, supply in enumerate(due):
            try:
                self._fetch(enlighten, self._session, supply, now)
            except EnlightenError as error:
                again_at = now + self._delay_s(error)
                if isinstance(error, Throttled):
                    logins.refused(error.state, str(error), again_at)
                if isinstance(error, Throttled) or type(error) is CloudUnreachable:
                    # The others would fare no better.
                    self._postpone(due[place:], again_at, error.state, str(error))
                    break
                self._postpone([supply], again_at, error.state, str(error))
        self._failures = self._failures + 1 if any(supply.problem for supply in due) else 0

    def _fetch(self, enlighten: Enlighten, session: SecretStr, supply: Supply, now: float) -> None:
        text = enlighten.token(session, supply.serial)
        try:
            token = Token.read(text, now=now, serial=supply.serial, public_key=self._public_key)
        except NotAToken as error:
            raise ResponseNotUnderstood(f"Enphase handed out something that is not the token: {error}") from None
        # Kept before it is published: whoever kills us in between costs no second exchange.
        try:
            self._cache.save(token)
        except OSError as error:
            logger.error("the token of gateway %s cannot be kept: %s", token.serial, error.strerror)  # noqa: TRY400 - no trace helps
        supply.token, supply.fetch_at, supply.problem, supply.rejected_until = token, _fetch_at(token), None, 0.0
        logger.info("gateway %s: %s token, good for %g days", token.serial, token.kind, token.days_left(now))

    def _refused(self, logins: LoginRecord, due: list[Supply], error: EnlightenError, now: float) -> None:
        if not isinstance(error, LoginRejected):
            logins.without_verdict()
        self._failures += 1
        self.counters["logins_failed"] += 1
        again_at = now + self._delay_s(error)
        if error.stay_away_s:
            logins.refused(error.state, str(error), again_at)
        elif isinstance(error, LoginRejected):
            logins.refused(error.state, str(error), now)
        self._postpone(due, max(again_at, logins.may_try_at(now)), error.state, str(error))

    def _postpone(self, due: list[Supply], until: float, state: TokenState, message: str) -> list[Supply]:
        for supply in due:
            supply.fetch_at, supply.problem = until, (state, f"{message}. Next attempt {utc(until)}")
            logger.error("no token for gateway %s: %s", supply.serial, supply.problem[1])
        return due

    def _delay_s(self, error: EnlightenError) -> float:
        """Return how long to leave Enphase alone."""
        if error.stay_away_s:
            return error.stay_away_s
        if isinstance(error, CloudUnreachable):
            max_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(max(0, self._failures - 1), 16))
            told_s = min(LAST_RETRY_S, error.retry_after_s)
            return max(told_s, random.uniform(max_s / 2, max_s))  # noqa: S311 - jitter, no secret
        return AFTER_REJECTION_S


def utc(at: float) -> str:
    """Return a time for people to read."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _fetch_at(token: Token) -> float:
    """Return when to fetch the token that follows: in time, but no storm where Enphase hands out what hardly lasts."""
    lasts_s = token.expires_at - token.fetched_at
    return max(token.renew_at(), token.fetched_at + max(JUST_FETCHED_S, lasts_s / 10))
