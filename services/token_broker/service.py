"""Publishes the tokens to the pollers and their status to all subscribers, and responds to requests for tokens."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from services.token_broker.gateway_token import GatewayToken
from services.token_broker.published import PublishedSerials
from services.token_broker.supply import TokenSupply
from shared.health import Health
from shared.messages import TokenRequest
from shared.metrics import MetricsPublisher
from shared.mqtt import Connected, Connection, Message, Publication
from shared.payload import InvalidPayload
from shared.topics import UnknownTopic

logger = logging.getLogger(__name__)

MAX_WAIT_S = 1.0
"""Within this a stop is noticed."""

STATUS_INTERVAL_S = 3600.0
"""A status is published this often, because the days left change without any event."""


class TokenBroker:
    """The work of token_broker."""

    def __init__(
        self,
        connection: Connection,
        supply: TokenSupply,
        *,
        health: Health,
        published: PublishedSerials,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the work; nothing is opened yet.

        Args:
            connection: to the broker, subscribed to token requests.
            supply: the gateways and their tokens.
            health: where the fault of the moment is reported.
            published: the gateways of earlier processes; what is retained for one that is not served is cleared, unless
                a poller requests its token first.
            clock: epoch seconds.
        """
        self._connection = connection
        self._supply = supply
        self._health = health
        self._published = published
        self._clock = clock
        self._not_served = published.read() - {gateway.serial for gateway in supply.gateways}
        self._statuses_published_at = 0.0
        self._publications: dict[str, Future[Publication]] = {}
        """The last publication of each gateway's token."""
        self._metrics = MetricsPublisher(connection, lambda: supply.metrics(clock()), clock)

    def run(self, stop: threading.Event) -> None:
        """Publish tokens until ``stop`` is set."""
        with self._connection:
            while not stop.is_set():
                for gateway in self._supply.fetch_due(self._clock()):
                    self._publish(gateway)
                self._publish_statuses_if_due()
                self._metrics.publish_if_due()
                self._health.report(self._fault())
                self._handle(self._connection.receive(MAX_WAIT_S))

    def _fault(self) -> str | None:
        """Return why a gateway has no token, or None if all have one."""
        if not self._connection.connected:
            return "not connected to the MQTT broker"
        now = self._clock()
        for gateway in self._supply.gateways:
            status = gateway.status(now)
            if status is not None and gateway.valid_token(now) is None:
                return f"no token for gateway {gateway.serial}: {status.message}"
        for serial, publication in self._publications.items():
            if refusal := _refusal(publication):
                return f"the broker refused the token of gateway {serial}: {refusal}; check its access rules"
        return None

    def _handle(self, event: Message | Connected | None) -> None:
        match event:
            case Connected():
                # The broker may have lost what it retained.
                for gateway in self._supply.gateways:
                    self._publish(gateway)
                for serial in self._not_served:
                    self._clear(serial)
            case Message() as message:
                self._connection.acknowledge(message)
                try:
                    serial = self._connection.topics.parse_token_request(message.topic)
                    request = TokenRequest.from_json(message.payload)
                except (UnknownTopic, InvalidPayload) as error:
                    logger.warning("rejected a token request: %s", error)
                else:
                    self._respond(serial, request)

    def _respond(self, serial: str, request: TokenRequest) -> None:
        now = self._clock()
        gateway = self._supply.serve_requested(serial, now)
        if gateway is None:
            logger.warning("ignored a token request: too many gateways; set ENVOY_SERIAL to serve gateway %s", serial)
            return
        self._not_served.discard(serial)
        logger.info("gateway %s: token requested, reason: %s", serial, request.reason)
        if request.reason == "rejected":
            # The gateway would reject the same token again, so it is not published.
            self._supply.renew_rejected(gateway, now)
            self._publish_status(gateway)
        else:
            self._publish(gateway)

    def _publish(self, gateway: GatewayToken) -> None:
        self._record_published(gateway.serial)
        now = self._clock()
        if (token := gateway.valid_token(now)) is not None:
            self._publications[gateway.serial] = self._connection.publish(
                self._connection.topics.token(gateway.serial),
                token.to_json(),
                retain=True,
                expiry_s=int(token.expires_at - now),
            )
        self._publish_status(gateway)

    def _record_published(self, serial: str) -> None:
        try:
            self._published.add(serial)
        except OSError as error:
            logger.warning(
                "cannot record gateway %s in %s: %s; its token will not be cleared once it is not served",
                serial,
                self._published.folder,
                error.strerror,
            )

    def _publish_status(self, gateway: GatewayToken) -> None:
        status = gateway.status(self._clock())
        if status is not None:
            topic = self._connection.topics.token_status(gateway.serial)
            self._connection.publish(topic, status.to_json(), retain=True)

    def _publish_statuses_if_due(self) -> None:
        now = self._clock()
        if 0 <= now - self._statuses_published_at < STATUS_INTERVAL_S:
            return
        self._statuses_published_at = now
        for gateway in self._supply.gateways:
            self._publish_status(gateway)

    def _clear(self, serial: str) -> None:
        logger.info("gateway %s is not served any more; clearing its retained token", serial)
        topics = self._connection.topics
        for topic in (topics.token(serial), topics.token_status(serial)):
            self._connection.publish(topic, b"", retain=True, content_type=None)


def _refusal(publication: Future[Publication]) -> str | None:
    """Return why the broker refused a publication; None if it has accepted it, or not acknowledged it yet."""
    if not publication.done():
        return None
    result = publication.result()
    return None if result.accepted else result.reason
