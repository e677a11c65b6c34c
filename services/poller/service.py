"""Polls all gateways, each on a thread of its own, over one connection to the broker."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from services.poller.polling import GatewayPoller
from shared.health import Health
from shared.messages import TokenMessage
from shared.mqtt import Connected, Connection, Message
from shared.outbox import Outbox
from shared.payload import InvalidPayload
from shared.readings import Metrics

logger = logging.getLogger(__name__)

MAX_WAIT_S = 1.0
METRICS_INTERVAL_S = 10.0
GATEWAYS_END_IN_S = 3.0


class Poller:
    """The work of poller."""

    def __init__(
        self,
        gateways: Sequence[GatewayPoller],
        connection: Connection,
        outbox: Outbox,
        health: Health,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the work.

        Args:
            gateways: each is polled independently of the others.
            connection: to the broker, subscribed to tokens and to what the outbox must hear.
            outbox: keeps and publishes the gateways' readings.
            health: hears how we are.
            clock: epoch seconds.
        """
        self._gateways = gateways
        self._connection = connection
        self._outbox = outbox
        self._health = health
        self._clock = clock
        self._metrics_at = time.monotonic() + METRICS_INTERVAL_S

    def run(self, stop: threading.Event) -> None:
        """Poll until told to stop."""
        gateways_ended = threading.Event()
        publishing = threading.Thread(target=self._outbox.run, args=(gateways_ended,), name="outbox", daemon=True)
        with self._connection:
            publishing.start()
            threads = [
                threading.Thread(target=gateway.run, args=(stop,), name=gateway.envoy.host, daemon=True)
                for gateway in self._gateways
            ]
            for thread in threads:
                thread.start()
            while not stop.is_set():
                self._hear(min(MAX_WAIT_S, max(0.0, self._metrics_at - time.monotonic())))
                if time.monotonic() >= self._metrics_at:
                    self._metrics_at += METRICS_INTERVAL_S
                    # While the broker is away they would only fill the memory.
                    if self._connection.connected:
                        self._publish_metrics()
                self._health.report(self._fault())
                if not publishing.is_alive():
                    raise RuntimeError("the outbox has died; ending, to be started again")
            ends_at = time.monotonic() + GATEWAYS_END_IN_S
            for gateway in self._gateways:
                gateway.envoy.interrupt()
            for thread in threads:
                thread.join(max(0.0, ends_at - time.monotonic()))
            gateways_ended.set()
            publishing.join(GATEWAYS_END_IN_S)

    def _fault(self) -> str | None:
        """Return what keeps us from our work."""
        if not self._connection.connected:
            return "not connected to the MQTT broker; readings wait in the journal"
        silent = [gateway.serial or gateway.envoy.host for gateway in self._gateways if not gateway.online]
        if len(silent) == len(self._gateways):
            return f"no gateway answers: {', '.join(silent)}"
        return None

    def _hear(self, timeout_s: float) -> None:
        match self._connection.receive(timeout_s):
            case Connected() as connected:
                for gateway in self._gateways:
                    gateway.inbox.put(connected)
            case Message() as message:
                self._connection.acknowledge(message)
                if self._outbox.handles(message):
                    self._outbox.handle(message)
                else:
                    self._take_token(message)

    def _take_token(self, message: Message) -> None:
        if not message.payload:
            return
        try:
            token = TokenMessage.from_json(message.payload)
        except InvalidPayload as error:
            logger.warning("passed over a token on %s: %s", message.topic, error)
            return
        if message.topic != self._connection.topics.token(token.serial):
            logger.warning("passed over a token on %s: it is for gateway %s", message.topic, token.serial)
            return
        for gateway in self._gateways:
            if gateway.serial in (None, token.serial):
                gateway.inbox.put(token)

    def _publish_metrics(self) -> None:
        gateways = self._gateways
        offsets_s = [abs(gateway.envoy.clock.offset_s or 0) for gateway in gateways]
        counters = [gateway.reader.counters.left_out for gateway in gateways if gateway.reader is not None]
        metrics = Metrics.model_validate(
            {
                "timestamp": int(self._clock()),
                "gateways": len(gateways),
                "gateways_online": sum(gateway.online is True for gateway in gateways),
                "polls": sum(gateway.tally.polls for gateway in gateways),
                "polls_missed": sum(gateway.schedule.missed for gateway in gateways),
                "poll_duration_s": round(max(gateway.tally.poll_duration_s for gateway in gateways), 3),
                **self._outbox.counters,
                **self._outbox.gauges(),
                "requests": sum(gateway.envoy.requests for gateway in gateways),
                "requests_failed": sum(gateway.envoy.failed_requests for gateway in gateways),
                "fields_dropped": sum(gateway.envoy.dropped_fields for gateway in gateways),
                "counters_rejected": sum(counters),
                "clock_offset_s": max(offsets_s),
            }
        )
        self._connection.publish(self._connection.topics.metrics(self._connection.client_id), metrics.to_json())
