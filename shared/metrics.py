"""A service's own counters and gauges, published as a reading every ten seconds."""

import time
from collections.abc import Callable, Mapping

from shared.mqtt import Connection
from shared.readings import Metrics

METRICS_INTERVAL_S = 10.0


class MetricsPublisher:
    """Publishes what ``collect`` returns when it is due; never raises, never queues while the broker is away."""

    def __init__(
        self,
        connection: Connection,
        collect: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare to publish; the first metrics are due at once.

        Args:
            connection: to the broker.
            collect: returns the metrics by name.
            clock: epoch seconds.
        """
        self._connection = connection
        self._collect = collect
        self._clock = clock
        self.due_at = time.monotonic()
        """When the next metrics are due, on the monotonic clock."""

    def publish_if_due(self) -> None:
        """Publish the metrics if ten seconds have passed and the broker is connected."""
        now = time.monotonic()
        if now < self.due_at:
            return
        self.due_at = now + METRICS_INTERVAL_S
        if not self._connection.connected:
            return  # queued metrics would only fill the memory
        values = {name: float(value) for name, value in self._collect().items()}
        metrics = Metrics.model_validate({"timestamp": int(self._clock()), **values})
        self._connection.publish(self._connection.topics.metrics(self._connection.client_id), metrics.to_json())
