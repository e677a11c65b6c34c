"""Keeps every gateway that is asked for supplied with a good token, and asks Enphase as rarely as that allows."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.token_broker.enlighten import (
    AccountLocked,
    CloudUnreachable,
    CredentialsRejected,
    Enlighten,
    EnlightenError,
    MfaRequired,
)
from services.token_broker.tokens import NotAToken, Token, TokenCache
from shared.messages import TokenRequest, TokenState, TokenStatus
from shared.mqtt import Connected, Connection, Message
from shared.payload import InvalidPayload
from shared.topics import UnknownTopic

logger = logging.getLogger(__name__)

FIRST_RETRY_S, LAST_RETRY_S = 5.0, 3600.0
AFTER_REFUSAL_S = 8 * 3600.0
"""A refused log-in is tried three times a day: often enough to notice a repaired account, too rarely to be locked."""

AFTER_FETCH_S = 300.0
"""A token just fetched is not replaced sooner, whoever rejects it."""

LONGEST_WAIT_S = 1.0
"""A stop is noticed at least this soon."""

NO_CREDENTIALS = "no token and no account: set ENLIGHTEN_EMAIL and ENLIGHTEN_PASSWORD, or ENVOY_TOKEN"

STATE_OF: dict[type[EnlightenError], TokenState] = {
    CredentialsRejected: "bad_credentials",
    MfaRequired: "mfa_required",
    AccountLocked: "locked_out",
    CloudUnreachable: "cloud_unreachable",
}


@dataclass(slots=True)
class _Gateway:
    """What we know of one gateway's token."""

    serial: str
    token: Token | None
    fetch_at: float
    fetched_at: float = 0.0
    failures: int = 0
    status: TokenStatus | None = None


def obtain(serial: str, enlighten: Enlighten | None, cache: TokenCache, now: float) -> Token:
    """Fetch a token for a gateway from Enphase and keep it.

    Raises:
        EnlightenError: there is none to be had now.
    """
    if enlighten is None:
        raise CredentialsRejected(NO_CREDENTIALS)
    try:
        token = Token.read(enlighten.fetch_token(serial), now=now, serial=serial)
    except NotAToken as error:
        raise CloudUnreachable(f"Enphase's cloud handed out something that is not the token: {error}") from None
    cache.save(token)
    return token


class TokenBroker:
    """The work of token_broker: tokens from the cache, from a person or from Enphase, to the pollers' topic."""

    def __init__(
        self,
        connection: Connection,
        enlighten: Enlighten | None,
        cache: TokenCache,
        *,
        serial: str | None,
        by_hand: Token | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the work.

        Args:
            connection: to the broker, subscribed to token requests.
            enlighten: the account, None if nobody told it.
            cache: where tokens are kept.
            serial: the gateway to supply from the start; others are supplied when a poller asks.
            by_hand: a token from a person, which is published and never exchanged.
            clock: epoch seconds.
        """
        self._connection = connection
        self._enlighten = enlighten
        self._cache = cache
        self._clock = clock
        self._gateways: dict[str, _Gateway] = {}
        if by_hand is not None:
            self._gateways[by_hand.serial] = _Gateway(by_hand.serial, by_hand, fetch_at=float("inf"))
        if serial is not None:
            self._gateway(serial)

    def run(self, stop: threading.Event) -> None:
        """Supply tokens until told to stop."""
        with self._connection:
            while not stop.is_set():
                for gateway in list(self._gateways.values()):
                    if gateway.fetch_at <= self._clock():
                        self._fetch(gateway)
                self._hear(LONGEST_WAIT_S)

    def _hear(self, timeout_s: float) -> None:
        match self._connection.receive(timeout_s):
            case Connected():
                for gateway in self._gateways.values():
                    self._publish(gateway)
            case Message() as message:
                self._connection.acknowledge(message)
                try:
                    serial = self._connection.topics.parse_token_request(message.topic)
                    self._answer(self._gateway(serial), TokenRequest.from_json(message.payload))
                except (UnknownTopic, InvalidPayload) as error:
                    logger.warning("passed over a token request: %s", error)

    def _gateway(self, serial: str) -> _Gateway:
        if serial not in self._gateways:
            token = self._cache.load(serial, self._clock())
            fetch_at = token.renew_at() if token else 0.0
            self._gateways[serial] = _Gateway(serial, token, fetch_at)
        return self._gateways[serial]

    def _answer(self, gateway: _Gateway, request: TokenRequest) -> None:
        logger.info("a token for gateway %s is asked for: %s", gateway.serial, request.reason)
        by_hand = gateway.token is not None and gateway.token.kind == "manual"
        if request.reason == "rejected" and gateway.failures == 0 and not by_hand:
            gateway.fetch_at = min(gateway.fetch_at, gateway.fetched_at + AFTER_FETCH_S)
        self._publish(gateway)

    def _fetch(self, gateway: _Gateway) -> None:
        now = gateway.fetched_at = self._clock()
        try:
            gateway.token = obtain(gateway.serial, self._enlighten, self._cache, now)
        except EnlightenError as error:
            gateway.failures += 1
            gateway.fetch_at = now + retry_delay_s(error, gateway.failures)
            state = STATE_OF[type(error)]
            if gateway.token is not None and gateway.token.expires_at > now:
                state = "expiring"
            token = gateway.token
            gateway.status = TokenStatus(
                state=state,
                message=str(error),
                expires_at=token.expires_at if token else None,
                days_left=token.days_left(now) if token else None,
            )
            logger.error("no token for gateway %s: %s", gateway.serial, error)  # noqa: TRY400 - the message says all
        else:
            gateway.failures = 0
            gateway.fetch_at = gateway.token.renew_at()
            gateway.status = None
            logger.info("token for gateway %s: %s", gateway.serial, gateway.token.status(now).message)
        self._publish(gateway)

    def _publish(self, gateway: _Gateway) -> None:
        now, topics, token = self._clock(), self._connection.topics, gateway.token
        if token is not None and token.expires_at > now:
            self._connection.publish(
                topics.token(gateway.serial),
                token.message().to_json(),
                retain=True,
                expiry_s=int(token.expires_at - now),
            )
        status = gateway.status or (token.status(now) if token else None)
        if status is not None:
            self._connection.publish(topics.token_status(gateway.serial), status.to_json(), retain=True)


def retry_delay_s(error: EnlightenError, failures: int) -> float:
    """Return how long to leave Enphase alone after so many failures in a row."""
    if isinstance(error, CloudUnreachable):
        longest_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures - 1, 16))
        return random.uniform(longest_s / 2, longest_s)  # noqa: S311 - jitter, no secret
    return AFTER_REFUSAL_S
