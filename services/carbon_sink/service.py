"""Takes readings from the broker and gives them to Carbon.

A reading is acknowledged to the broker once Carbon has read it, and receipted to its publisher once Carbon must have
written it. A message that can never be stored is receipted, too: it would come again for ever. What Carbon has not read
when the sink or the broker dies stays unacknowledged and comes again; what it has read and may have forgotten is sent
again by the sink. While Carbon is away the sink holds what is unsettled and one batch, and takes no more than the
broker may send unacknowledged, so the rest waits at the broker.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from services.carbon_sink.carbon import CarbonUnavailable, Store
from services.carbon_sink.dead_letters import DeadLetters
from services.carbon_sink.points import Point, points_of
from services.carbon_sink.settings import CarbonSettings
from services.carbon_sink.settling import Batch, Unsettled, receipts
from shared.health import Health
from shared.mqtt import Connection, Message
from shared.payload import InvalidPayload
from shared.readings import Metrics, reading_from_json
from shared.topics import ReadingTopic, UnknownTopic

logger = logging.getLogger(__name__)

METRICS_INTERVAL_S = 10.0
MAX_RETRY_S = 30.0
MAX_WAIT_S = 1.0
"""A stop, and the end of Carbon, are noticed at least this soon."""

MAX_UNSETTLED_POINTS = 200_000
"""About 60 MB. More wait at the broker."""

MAX_AHEAD_S = 60
"""Whisper keeps its slots in a ring: a point of the far future would overwrite one of the past."""

TEN_YEARS_S = 3653 * 86_400
"""As long as the coarsest archive in deploy/graphite/storage-schemas.conf; Carbon drops what is older."""

MAX_LOGGED_FAULTS = 100


class OutOfTime(InvalidPayload):
    """The time of a reading is not one that can be stored now; if our clock is wrong, it can be later."""


class CarbonSink:
    """The work of carbon_sink."""

    def __init__(
        self,
        connection: Connection,
        store: Store,
        settings: CarbonSettings,
        dead_letters: DeadLetters,
        health: Health,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the work.

        Args:
            connection: to the broker, subscribed to all readings.
            store: takes the points.
            settings: what paths look like, how much is written at once, and when it is settled.
            dead_letters: keeps what can never be stored.
            health: hears how we are.
            clock: epoch seconds.
        """
        self._connection = connection
        self._store = store
        self._settings = settings
        self._dead_letters = dead_letters
        self._health = health
        self._clock = clock
        self._unsettled = Unsettled(settings.settle_s)
        self._in_doubt = False
        self._counters: Counter[str] = Counter(
            readings_delivered=0, readings_receipted=0, points_written=0, points_resent=0, invalid_messages=0
        )
        self._faults_told: set[str] = set()
        self._next_metrics_at = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Write readings until told to stop."""
        with self._connection:
            while not stop.is_set():
                messages, batch = self._collect(stop)
                if (batch.rows or batch.points or self._in_doubt) and not self._written(batch, stop):
                    break
                for message in messages:
                    self._connection.acknowledge(message)
                self._settle()
                self._publish_metrics()
                self._health.report(None if self._connection.connected else "not connected to the MQTT broker")
        self._store.close()

    def _collect(self, stop: threading.Event) -> tuple[list[Message], Batch]:
        """Return what came within the flush time after the first message, a batch's size at most."""
        messages: list[Message] = []
        batch = Batch()
        if self._unsettled.points > MAX_UNSETTLED_POINTS and not self._in_doubt:
            stop.wait(MAX_WAIT_S)
            return messages, batch
        ends_at = time.monotonic() + MAX_WAIT_S
        while len(batch.points) < self._settings.batch_size and (left_s := ends_at - time.monotonic()) > 0:
            message = self._connection.receive(left_s)
            if not isinstance(message, Message) or not self._connection.is_current(message):
                # Messages of a lost connection come again on the next one.
                continue
            if not messages:
                ends_at = time.monotonic() + self._settings.flush_s
            messages.append(message)
            try:
                topic = self._connection.topics.parse_reading(message.topic)
                batch.points += self._points_in_time(topic, message.payload)
                self._counters["readings_delivered"] += 1
            except (UnknownTopic, InvalidPayload) as error:
                self._pass_over(message, str(error))
                if isinstance(error, OutOfTime):
                    continue
            if row := _journal_row(message):
                batch.rows.append(row)
        return messages, batch

    def _pass_over(self, message: Message, fault: str) -> None:
        self._counters["invalid_messages"] += 1
        self._dead_letters.keep(message.topic, message.payload, fault)
        if fault not in self._faults_told and len(self._faults_told) < MAX_LOGGED_FAULTS:
            self._faults_told.add(fault)
            logger.warning(
                "passed over a message on %s: %s; further ones like it are only counted", message.topic, fault
            )

    def _points_in_time(self, topic: ReadingTopic, payload: bytes) -> list[Point]:
        reading = reading_from_json(topic.kind, payload)
        ahead_s = reading.timestamp - self._clock()
        if ahead_s > MAX_AHEAD_S:
            raise OutOfTime("timestamp: more than a minute in the future; is the gateway's clock right, and ours?")
        if ahead_s < -TEN_YEARS_S:
            raise OutOfTime("timestamp: more than ten years ago")
        return points_of(topic, reading, self._settings.prefix, self._settings.aliases)

    def _written(self, batch: Batch, stop: threading.Event) -> bool:
        """Return True once the batch is written and all that was in doubt again, False if told to stop before."""
        started = time.monotonic()

        def tell_once(attempt: RetryCallState) -> None:
            fault = attempt.outcome and attempt.outcome.exception()
            self._health.report(f"{fault}; readings wait at the broker")
            self._publish_metrics()
            if attempt.attempt_number == 1:
                logger.warning("%s; readings wait at the broker until it answers", fault)

        retrying = Retrying(
            retry=retry_if_exception_type(CarbonUnavailable),
            wait=wait_random_exponential(multiplier=0.5, max=MAX_RETRY_S),
            stop=stop_when_event_set(stop),
            sleep=sleep_using_event(stop),
            before_sleep=tell_once,
            reraise=True,
        )
        try:
            retrying(self._write, batch)
        except CarbonUnavailable:
            return False
        if retrying.statistics["attempt_number"] > 1:
            logger.info("Carbon answers again after %.0f s", time.monotonic() - started)
        return True

    def _write(self, batch: Batch) -> None:
        try:
            if self._in_doubt:
                self._write_again()
            if batch.rows or batch.points:
                self._store.write(batch.points)
                self._unsettled.add(batch, time.monotonic())
                self._counters["points_written"] += len(batch.points)
        except CarbonUnavailable:
            self._in_doubt = True
            raise

    def _write_again(self) -> None:
        """Send everything unsettled again, oldest first."""
        for batch in self._unsettled:
            self._store.write(batch.points)
            batch.read_at = time.monotonic()
            self._counters["points_resent"] += len(batch.points)
        self._in_doubt = False

    def _settle(self) -> None:
        """Receipt what must be on disk by now, or begin to doubt."""
        now = time.monotonic()
        if not self._is_still_the_same(now):
            if self._unsettled:
                logger.warning(
                    "Carbon has ended, restarted or stopped reading; sending %d points again", self._unsettled.points
                )
            self._in_doubt = bool(self._unsettled)
            return
        settled = self._unsettled.settle(now)
        for receipt in receipts(settled):
            self._connection.publish(self._connection.topics.receipts(self._connection.client_id), receipt.to_json())
        self._counters["readings_receipted"] += sum(len(batch.rows) for batch in settled)

    def _is_still_the_same(self, now: float) -> bool:
        """Return whether Carbon has lived on without a break; before a receipt, also whether it reads."""
        try:
            if self._unsettled.is_due(now):
                # One that hangs keeps its connections, and may have hung ever since it read.
                self._store.write([])
        except CarbonUnavailable:
            return False
        return self._store.uninterrupted()

    def _publish_metrics(self) -> None:
        if (now := time.monotonic()) < self._next_metrics_at or not self._connection.persistent_session:
            return
        if not self._connection.connected:
            return
        self._next_metrics_at = now + METRICS_INTERVAL_S
        gauges = {"messages_waiting": self._connection.backlog, "points_unsettled": self._unsettled.points}
        metrics = Metrics(
            timestamp=int(self._clock()), **{name: float(count) for name, count in (self._counters | gauges).items()}
        )
        self._connection.publish(self._connection.topics.metrics(self._connection.client_id), metrics.to_json())


def _journal_row(message: Message) -> tuple[str, int] | None:
    """Return the journal and the row that a reading came from, if its publisher keeps one."""
    journal, sequence = (message.user_properties.get(name, "") for name in ("journal", "sequence"))
    return (journal, int(sequence)) if journal and sequence.isdecimal() else None
