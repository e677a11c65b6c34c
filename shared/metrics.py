"""A service's own counters and gauges, published as a reading every ten seconds."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from shared.mqtt import Connection, QueueFull
from shared.readings import Metrics

METRICS_INTERVAL_S = 10.0


class MetricsPublisher:
    """Publishes what ``collect`` returns whenever it is due."""

    def __init__(
        self,
        connection: Connection,
        collect: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare to publish; the first metrics are due at once.

        Args:
            connection: to the broker; a probe publishes no metrics, because it has no topic for them.
            collect: returns the metrics by name.
            clock: epoch seconds.
        """
        self._connection = connection
        self._collect = collect
        self._clock = clock
        self.due_at = time.monotonic()
        """When the next metrics are due, on the monotonic clock."""

    def publish_if_due(self) -> None:
        """Publish the metrics if they are due; while the broker is away they are dropped, to save memory."""
        now = time.monotonic()
        if now < self.due_at:
            return
        self.due_at = now + METRICS_INTERVAL_S
        if not self._connection.connected or not self._connection.persistent_session:
            return
        values = {name: float(value) for name, value in self._collect().items()}
        metrics = Metrics.model_validate({"timestamp": int(self._clock()), **values})
        with suppress(QueueFull):
            self._connection.publish(self._connection.topics.metrics(self._connection.client_id), metrics.to_json())
