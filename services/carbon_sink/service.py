"""Takes readings from the broker and gives them to Carbon; acknowledges a reading only after Carbon has read it.

What Carbon has not read when the sink or the broker dies stays unacknowledged and comes again. While Carbon is away the
sink holds one batch and takes no more than the broker may send unacknowledged, so the rest waits at the broker.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from services.carbon_sink.carbon import CarbonUnavailable
from services.carbon_sink.points import Point, points_of
from services.carbon_sink.settings import CarbonSettings
from shared.mqtt import Connection, Message
from shared.payload import InvalidPayload
from shared.readings import Metrics, reading_from_json
from shared.topics import UnknownTopic

logger = logging.getLogger(__name__)

METRICS_INTERVAL_S = 10.0
LONGEST_RETRY_S = 30.0
LONGEST_WAIT_S = 1.0
"""A stop is noticed at least this soon."""

MOST_FAULTS_TOLD = 100

Write = Callable[[list[Point]], None]


@dataclass(slots=True)
class _Batch:
    """Messages and the points made of them, which are written and acknowledged together."""

    messages: list[Message] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    readings: int = 0


class CarbonSink:
    """The work of carbon_sink."""

    def __init__(self, connection: Connection, write: Write, settings: CarbonSettings) -> None:
        """Prepare the work.

        Args:
            connection: to the broker, subscribed to all readings.
            write: sends points and raises CarbonUnavailable if they may not have been read.
            settings: what paths look like, and how much is written at once.
        """
        self._connection = connection
        self._write = write
        self._settings = settings
        self._counters: Counter[str] = Counter(readings_delivered=0, points_written=0, invalid_messages=0)
        self._faults_told: set[str] = set()
        self._next_metrics_at = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Write readings until told to stop."""
        with self._connection:
            while not stop.is_set():
                batch = self._collect()
                if batch.points and not self._written(batch.points, stop):
                    return
                self._counters["points_written"] += len(batch.points)
                self._counters["readings_delivered"] += batch.readings
                for message in batch.messages:
                    self._connection.acknowledge(message)
                self._publish_metrics()

    def _collect(self) -> _Batch:
        """Return what came within the flush time after the first message, a batch's size at most."""
        batch = _Batch()
        ends_at = time.monotonic() + LONGEST_WAIT_S
        while len(batch.points) < self._settings.batch_size and (left_s := ends_at - time.monotonic()) > 0:
            message = self._connection.receive(left_s)
            if not isinstance(message, Message) or message.generation != self._connection.generation:
                # Messages of a lost connection come again on the next one.
                continue
            if not batch.messages:
                ends_at = time.monotonic() + self._settings.flush_s
            batch.messages.append(message)
            if points := self._points(message):
                batch.points += points
                batch.readings += 1
        return batch

    def _points(self, message: Message) -> list[Point]:
        try:
            topic = self._connection.topics.parse_reading(message.topic)
            reading = reading_from_json(topic.kind, message.payload)
        except (UnknownTopic, InvalidPayload) as error:
            self._counters["invalid_messages"] += 1
            if (fault := str(error)) not in self._faults_told and len(self._faults_told) < MOST_FAULTS_TOLD:
                self._faults_told.add(fault)
                logger.warning(
                    "passed over a message on %s: %s; further ones like it are only counted", message.topic, fault
                )
            return []
        return points_of(topic, reading, self._settings.prefix, self._settings.aliases)

    def _written(self, points: list[Point], stop: threading.Event) -> bool:
        """Return True once the points are written, False if told to stop before."""
        started = time.monotonic()

        def tell_once(attempt: RetryCallState) -> None:
            if attempt.attempt_number == 1 and attempt.outcome is not None:
                logger.warning("%s; readings wait at the broker until it answers", attempt.outcome.exception())

        retrying = Retrying(
            retry=retry_if_exception_type(CarbonUnavailable),
            wait=wait_random_exponential(multiplier=0.5, max=LONGEST_RETRY_S),
            stop=stop_when_event_set(stop),
            sleep=sleep_using_event(stop),
            before_sleep=tell_once,
            reraise=True,
        )
        try:
            retrying(self._write, points)
        except CarbonUnavailable:
            return False
        if retrying.statistics["attempt_number"] > 1:
            logger.info("Carbon answers again after %.0f s", time.monotonic() - started)
        return True

    def _publish_metrics(self) -> None:
        if (now := time.monotonic()) >= self._next_metrics_at and self._connection.lasting:
            self._next_metrics_at = now + METRICS_INTERVAL_S
            metrics = Metrics(
                timestamp=int(time.time()), **{name: float(count) for name, count in self._counters.items()}
            )
            self._connection.publish(self._connection.topics.metrics(self._connection.client_id), metrics.to_json())
