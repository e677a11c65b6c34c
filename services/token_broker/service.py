"""Publishes every gateway's token to the pollers, and its state to everybody; answers their requests."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from services.token_broker.published import Published
from services.token_broker.supply import Supply, TokenSupply
from shared.health import Health
from shared.messages import TokenRequest
from shared.mqtt import Connected, Connection, Message, Publication
from shared.payload import InvalidPayload
from shared.readings import Metrics
from shared.topics import UnknownTopic

logger = logging.getLogger(__name__)

MAX_WAIT_S = 1.0
"""A stop is noticed at least this soon."""

TELL_EVERY_S = 3600.0
"""The days left grow fewer without anything else happening."""

METRICS_INTERVAL_S = 10.0


class TokenBroker:
    """The work of token_broker."""

    def __init__(
        self,
        connection: Connection,
        supply: TokenSupply,
        *,
        health: Health,
        published: Published,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the work.

        Args:
            connection: to the broker, subscribed to token requests.
            supply: the tokens.
            health: hears how we are.
            published: the gateways that something was published for; what is no longer supplied is cleared unless
                somebody asks for it.
            clock: epoch seconds.
        """
        self._connection = connection
        self._supply = supply
        self._health = health
        self._published = published
        self._no_longer_served = published.serials() - {supply.serial for supply in supply.all}
        self._clock = clock
        self._told_at = 0.0
        self._last_published: dict[str, Future[Publication]] = {}
        self._metrics_at = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Supply tokens until told to stop."""
        with self._connection:
            while not stop.is_set():
                for supply in self._supply.fetch_due(self._clock()):
                    self._publish(supply)
                self._tell_days_left()
                self._publish_metrics()
                self._health.report(self._fault())
                self._hear(MAX_WAIT_S)

    def _fault(self) -> str | None:
        """Return what keeps us from our work."""
        if not self._connection.connected:
            return "not connected to the MQTT broker"
        now = self._clock()
        for supply in self._supply.all:
            status = supply.status(now)
            if status is not None and (supply.token is None or supply.token.expires_at <= now):
                return f"no token for gateway {supply.serial}: {status.message}"
        for serial, publication in self._last_published.items():
            if refusal := _refusal(publication):
                return f"the broker refuses the token of gateway {serial} ({refusal}); check its access rules"
        return None

    def _hear(self, timeout_s: float) -> None:
        match self._connection.receive(timeout_s):
            case Connected():
                # The broker may have forgotten what it retained.
                for supply in self._supply.all:
                    self._publish(supply)
                for serial in self._no_longer_served:
                    self._clear(serial)
            case Message() as message:
                self._connection.acknowledge(message)
                try:
                    serial = self._connection.topics.parse_token_request(message.topic)
                    self._answer(serial, TokenRequest.from_json(message.payload))
                except (UnknownTopic, InvalidPayload) as error:
                    logger.warning("passed over a token request: %s", error)

    def _answer(self, serial: str, request: TokenRequest) -> None:
        now = self._clock()
        supply = self._supply.requested(serial, now)
        if supply is None:
            logger.warning("passed over a request for gateway %s: too many unknown ones were asked for", serial)
            return
        self._no_longer_served.discard(serial)
        logger.info("a token for gateway %s is asked for: %s", serial, request.reason)
        if request.reason == "rejected":
            # To show the token that was rejected again would only have it rejected again.
            self._supply.rejected(supply, now)
            self._publish_status(supply)
        else:
            self._publish(supply)

    def _publish(self, supply: Supply) -> None:
        self._published.add(supply.serial)
        now, token = self._clock(), supply.token
        if token is not None and token.expires_at > now:
            self._last_published[supply.serial] = self._connection.publish(
                self._connection.topics.token(supply.serial),
                token.message().to_json(),
                retain=True,
                expiry_s=int(token.expires_at - now),
            )
        self._publish_status(supply)

    def _publish_status(self, supply: Supply) -> None:
        status = supply.status(self._clock())
        if status is not None:
            self._connection.publish(self._connection.topics.token_status(supply.serial), status.to_json(), retain=True)

    def _clear(self, serial: str) -> None:
        logger.info("gateway %s is no longer served: its retained token is cleared", serial)
        self._connection.publish(self._connection.topics.token(serial), b"", retain=True, content_type=None)
        self._connection.publish(self._connection.topics.token_status(serial), b"", retain=True, content_type=None)

    def _tell_days_left(self) -> None:
        now = self._clock()
        if 0 <= now - self._told_at < TELL_EVERY_S:
            return
        self._told_at = now
        for supply in self._supply.all:
            self._publish_status(supply)

    def _publish_metrics(self) -> None:
        if time.monotonic() < self._metrics_at or not self._connection.connected:
            return
        self._metrics_at = time.monotonic() + METRICS_INTERVAL_S
        now, supplies = self._clock(), self._supply.all
        days_left = [supply.token.days_left(now) if supply.token else 0.0 for supply in supplies]
        metrics = Metrics.model_validate(
            {
                "timestamp": int(now),
                "gateways": len(supplies),
                "tokens_good": sum(days > 0 for days in days_left),
                **({"token_days_left": min(days_left)} if days_left else {}),
                **self._supply.counters,
            }
        )
        self._connection.publish(self._connection.topics.metrics(self._connection.client_id), metrics.to_json())


def _refusal(publication: Future[Publication]) -> str | None:
    """Return why the broker refused a publication; None if it did not, or has not answered."""
    answer = publication.result() if publication.done() else None
    return None if answer is None or answer.accepted else answer.reason
