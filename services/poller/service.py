"""Polls all gateways, each on a thread of its own, over one connection to the broker."""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from services.poller.polling import GatewayPoller
from shared.health import Health
from shared.metrics import MetricsPublisher
from shared.mqtt import Connected, Connection, Message
from shared.outbox import Outbox
from shared.payload import InvalidPayload
from shared.tokens import Token

logger = logging.getLogger(__name__)

MAX_WAIT_S = 1.0
SHUTDOWN_TIMEOUT_S = 3.0
"""For all gateways together, and again for the outbox."""

MAXIMA = frozenset({"poll_duration_s", "clock_offset_s"})
"""The metrics of which the largest of all gateways is published; of all others it is the sum."""


class Poller:
    """The work of poller."""

    def __init__(
        self, gateways: Sequence[GatewayPoller], connection: Connection, outbox: Outbox, health: Health
    ) -> None:
        """Prepare the work.

        Args:
            gateways: each is polled independently of the others.
            connection: to the broker, subscribed to tokens and to what the outbox handles.
            outbox: keeps and publishes the gateways' readings.
            health: where the service's state is reported.
        """
        self._gateways = gateways
        self._connection = connection
        self._outbox = outbox
        self._health = health
        self._metrics = MetricsPublisher(connection, self._collect_metrics)

    def run(self, stop: threading.Event) -> None:
        """Poll until the event is set."""
        gateways_ended = threading.Event()
        publishing = threading.Thread(target=self._outbox.run, args=(gateways_ended,), name="outbox", daemon=True)
        polling = [
            threading.Thread(target=gateway.run, args=(stop,), name=gateway.name, daemon=True)
            for gateway in self._gateways
        ]
        with self._connection:
            for thread in (publishing, *polling):
                thread.start()
            while not stop.is_set():
                self._handle_message(min(MAX_WAIT_S, max(0.0, self._metrics.due_at - time.monotonic())))
                self._metrics.publish_if_due()
                self._health.report(self._fault())
                if not publishing.is_alive():
                    raise RuntimeError("the outbox's thread ended; the service must be restarted")
            self._shut_down(polling)
            gateways_ended.set()
            publishing.join(SHUTDOWN_TIMEOUT_S)

    def _shut_down(self, polling: Iterable[threading.Thread]) -> None:
        ends_at = time.monotonic() + SHUTDOWN_TIMEOUT_S
        for gateway in self._gateways:
            gateway.interrupt()
        for thread in polling:
            thread.join(max(0.0, ends_at - time.monotonic()))

    def _fault(self) -> str | None:
        """Return why the service does not make progress; None if it does."""
        if not self._connection.connected:
            return "not connected to the MQTT broker; readings are kept in the journal"
        if untrusted := [gateway.untrusted for gateway in self._gateways if gateway.untrusted]:
            return "; ".join(untrusted)
        offline = [gateway.name for gateway in self._gateways if not gateway.online]
        if len(offline) == len(self._gateways):
            return f"no gateway responds: {', '.join(offline)}"
        return None

    def _handle_message(self, timeout_s: float) -> None:
        match self._connection.receive(timeout_s):
            case Connected() as connected:
                for gateway in self._gateways:
                    gateway.inbox.put(connected)
            case Message() as message:
                self._connection.acknowledge(message)
                if self._outbox.handles(message):
                    self._outbox.handle(message)
                else:
                    self._handle_token(message)

    def _handle_token(self, message: Message) -> None:
        if not message.payload:
            return
        try:
            token = Token.from_json(message.payload)
        except InvalidPayload as error:
            logger.warning("rejected a token on %s: %s", message.topic, error)
            return
        if message.topic != self._connection.topics.token(token.serial):
            logger.warning("rejected a token on %s: it is for gateway %s", message.topic, token.serial)
            return
        for gateway in self._gateways:
            if gateway.accepts(token):
                gateway.inbox.put(token)

    def _collect_metrics(self) -> dict[str, float]:
        gateways = merge_stats(gateway.stats() for gateway in self._gateways)
        return {**gateways, **self._outbox.counters, **self._outbox.gauges()}


def merge_stats(stats: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics of all gateways as one: sums, and some maxima."""
    merged: dict[str, float] = defaultdict(float)
    for each in stats:
        for name, value in each.items():
            merged[name] = max(merged[name], value) if name in MAXIMA else merged[name] + value
    return dict(merged)
