"""The tokens of all gateways, each fetched when it is due, with as few requests to Enphase as possible."""

import logging

from services.token_broker.account import Account, FetchFailed
from services.token_broker.enlighten import DAY_S, FETCH_MANUALLY
from services.token_broker.gateway_token import MIN_FETCH_INTERVAL_S, GatewayToken, next_fetch_at
from services.token_broker.token_cache import CachedToken, TokenCache
from shared.tokens import Token

logger = logging.getLogger(__name__)

STORAGE_RETRY_INTERVAL_S = 60.0
MAX_DISCOVERED = 20
"""A request adds no gateway beyond this number; the settings may name more."""

NO_ACCOUNT = f"no account is set; set ENLIGHTEN_EMAIL and ENLIGHTEN_PASSWORD, or {FETCH_MANUALLY}"


class TokenSupply:
    """The gateways and their tokens; times are epoch seconds."""

    def __init__(self, account: Account | None, cache: TokenCache, *, manual: Token | None = None) -> None:
        """Start with the gateway of a manual token, or with none.

        Args:
            account: None if no account is set.
            cache: where tokens are saved.
            manual: a token that a person has set, which is never replaced.
        """
        self._account = account
        self._cache = cache
        self._gateways: dict[str, GatewayToken] = {}
        if manual is not None:
            self._gateways[manual.serial] = GatewayToken(manual.serial, fetch_at=float("inf"), token=manual)

    @property
    def gateways(self) -> list[GatewayToken]:
        """All gateways."""
        return list(self._gateways.values())

    def metrics(self, now: float) -> dict[str, float]:
        """Return counters and gauges of the tokens and the log-ins."""
        days_left = [gateway.token.days_left(now) if gateway.token else 0.0 for gateway in self.gateways]
        return {
            "gateways": len(days_left),
            "tokens_good": sum(days > 0 for days in days_left),
            **({"token_days_left": min(days_left)} if days_left else {}),
            "logins": self._account.login_attempts if self._account else 0,
            "logins_failed": self._account.failed_logins if self._account else 0,
        }

    def serve(self, serial: str, now: float) -> GatewayToken:
        """Add a gateway, with its token if a valid one is cached, and return it.

        Raises:
            OSError: the cache cannot be read.
        """
        if serial not in self._gateways:
            gateway = GatewayToken(serial, fetch_at=now)
            if (cached := self._cache.read_or_quarantine(serial, now)) is not None:
                gateway.accept(cached)
            self._gateways[serial] = gateway
        return self._gateways[serial]

    def serve_requested(self, serial: str, now: float) -> GatewayToken | None:
        """Add a gateway that a poller has requested a token for, and return it; None if there are too many."""
        if serial not in self._gateways and len(self._gateways) >= MAX_DISCOVERED:
            return None
        try:
            return self.serve(serial, now)
        except OSError:
            # fetch_due() reports it.
            return self._gateways.setdefault(serial, GatewayToken(serial, fetch_at=now))

    def renew_rejected(self, gateway: GatewayToken, now: float) -> None:
        """Make a new token due for a gateway that rejects its token: once a day, and not if the token is new."""
        token = gateway.token
        if token is None or gateway.problem is not None or gateway.fetch_at <= now:
            return
        if token.kind != "manual" and 0 <= now - gateway.fetched_at < MIN_FETCH_INTERVAL_S:
            return
        if token.kind != "manual" and self._claim_renewal(gateway.serial, now):
            gateway.fetch_at = now
        else:
            gateway.rejected_until = now + DAY_S

    def _claim_renewal(self, serial: str, now: float) -> bool:
        try:
            return self._account is not None and self._account.logins.claim_renewal(serial, now)
        except OSError:
            return False

    def fetch_due(self, now: float) -> list[GatewayToken]:
        """Fetch the tokens that are due, with one log-in for all, and return the gateways that have changed."""
        for gateway in self.gateways:
            if gateway.problem is not None and gateway.fetch_at > now + DAY_S:
                gateway.fetch_at = now + DAY_S  # it was postponed while the clock was ahead
        due = [gateway for gateway in self.gateways if gateway.fetch_at <= now]
        if not due:
            return []
        if self._account is None:
            for gateway in due:
                gateway.problem, gateway.fetch_at = ("bad_credentials", NO_ACCOUNT), float("inf")
            return due
        try:
            with self._account.logins.locked():
                for gateway in due:
                    self._use_cached(gateway, now)
                self._fetch(self._account, [gateway for gateway in due if gateway.fetch_at <= now], now)
        except OSError as error:
            # No log-in is made that cannot be recorded.
            reason = f"STATE_DIR cannot be used ({error.strerror or error}), so no log-in is made"
            message = f"{reason}; check its permissions and free space"
            for gateway in due:
                if gateway.fetch_at <= now:
                    gateway.postpone(now + STORAGE_RETRY_INTERVAL_S, "cloud_unreachable", message)
        return due

    def _use_cached(self, gateway: GatewayToken, now: float) -> None:
        """Use the cached token if another process has fetched it since. Raises OSError."""
        cached = self._cache.read_or_quarantine(gateway.serial, now)
        if cached is not None and cached.token != gateway.token and next_fetch_at(cached) > now:
            gateway.accept(cached)

    def _fetch(self, account: Account, due: list[GatewayToken], now: float) -> None:
        """Fetch a token for each gateway, up to a failure that affects all. Raises OSError."""
        for number, gateway in enumerate(due):
            try:
                token = account.fetch_token(gateway.serial, now)
            except FetchFailed as failure:
                for postponed in due[number:] if failure.affects_account else [gateway]:
                    postponed.postpone(failure.next_attempt_at, failure.state, str(failure))
                if failure.affects_account:
                    return
            else:
                self._save(CachedToken(token, now))
                gateway.accept(CachedToken(token, now))
                logger.info(
                    "gateway %s: new %s token, valid for %g days", token.serial, token.kind, token.days_left(now)
                )

    def _save(self, cached: CachedToken) -> None:
        """Save a token before it is published, so that a process killed in between needs no second one."""
        try:
            self._cache.write(cached)
        except OSError as error:
            path = self._cache.path(cached.token.serial)
            logger.warning(
                "cannot save the token in %s: %s; it must be fetched again after a restart", path, error.strerror
            )
