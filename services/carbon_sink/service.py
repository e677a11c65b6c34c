"""Receives readings from the broker and writes them to Carbon.

A reading is acknowledged to the broker once Carbon has read it, and receipted to its publisher once Carbon must have
written it to disk. An invalid message is acknowledged and receipted too; otherwise it would be delivered for ever. What
Carbon has not read when the sink or the broker ends is not acknowledged, so the broker delivers it again; what Carbon
has read and may have lost, the sink sends again. While Carbon is unavailable the sink holds the unsettled batches and
one more, and the broker keeps the rest.
"""

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from services.carbon_sink.carbon import CarbonUnavailable, Store
from services.carbon_sink.dead_letters import DeadLetters
from services.carbon_sink.points import Point, TimestampOutOfRange, check_timestamp, points_of
from services.carbon_sink.settings import CarbonSettings
from services.carbon_sink.settling import Batch, Unsettled, receipts
from shared.backoff import backoff_s
from shared.health import Health
from shared.metrics import MetricsPublisher
from shared.mqtt import Connection, Message, QueueFull
from shared.payload import InvalidPayload
from shared.readings import reading_from_json
from shared.topics import UnknownTopic

logger = logging.getLogger(__name__)

FIRST_RETRY_DELAY_S = 0.5
MAX_RETRY_DELAY_S = 30.0

MAX_WAIT_S = 1.0
"""Within this a stop and the end of Carbon are noticed."""

MAX_UNSETTLED_POINTS = 200_000
"""About 60 MB; the broker keeps the rest."""

ROW_NUMBER = re.compile(r"[0-9]{1,18}")
"""A row number of a journal; SQLite's are 64 bits wide."""


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
        """Prepare the work; nothing is opened yet.

        Args:
            connection: to the broker, subscribed to all readings.
            store: where points are written.
            settings: paths, batch size and settling time.
            dead_letters: where messages go that can never be stored.
            health: where the fault of the moment is reported.
            clock: epoch seconds.
        """
        self._connection = connection
        self._store = store
        self._settings = settings
        self._dead_letters = dead_letters
        self._health = health
        self._clock = clock
        self._unsettled = Unsettled(settings.settle_s)
        self._needs_resend = False
        """Whether Carbon may have lost what is unsettled."""
        self._counters: Counter[str] = Counter(
            readings_delivered=0, readings_receipted=0, points_written=0, points_resent=0, invalid_messages=0
        )
        self._metrics = MetricsPublisher(connection, self._collect_metrics, clock)

    def run(self, stop: threading.Event) -> None:
        """Write readings until ``stop`` is set."""
        with self._connection:
            while not stop.is_set():
                messages, batch = self._receive_batch(stop)
                if not self._write_with_retries(batch, stop):
                    break
                for message in messages:
                    self._connection.acknowledge(message)
                self._settle()
                self._metrics.publish_if_due()
                self._health.report(None if self._connection.connected else "not connected to the MQTT broker")
        self._store.close()

    def _receive_batch(self, stop: threading.Event) -> tuple[list[Message], Batch]:
        """Return the messages of the next batch with their points; empty if none comes within :data:`MAX_WAIT_S`.

        The batch ends at its maximum size, or a flush time after the first message.
        """
        messages: list[Message] = []
        batch = Batch()
        if self._unsettled.points > MAX_UNSETTLED_POINTS and not self._needs_resend:
            stop.wait(MAX_WAIT_S)
            return messages, batch
        ends_at = time.monotonic() + MAX_WAIT_S
        while len(batch.points) < self._settings.batch_size and not stop.is_set():
            left_s = ends_at - time.monotonic()
            if left_s <= 0:
                break
            message = self._connection.receive(min(left_s, MAX_WAIT_S))
            if not isinstance(message, Message) or not self._connection.is_current(message):
                # The messages of a lost connection are delivered again.
                continue
            if not messages:
                ends_at = time.monotonic() + self._settings.flush_s
            messages.append(message)
            self._add(message, batch)
        return messages, batch

    def _add(self, message: Message, batch: Batch) -> None:
        """Add a message's points to a batch, and its journal row unless it must be delivered again later."""
        try:
            points = self._points_of(message)
        except TimestampOutOfRange as error:
            # Without a receipt its publisher keeps it until the clock of this machine is right.
            self._reject(message, str(error))
            return
        except (UnknownTopic, InvalidPayload) as error:
            self._reject(message, str(error))
        else:
            batch.points += points
            self._counters["readings_delivered"] += 1
        if row := journal_row(message):
            batch.rows.append(row)

    def _points_of(self, message: Message) -> list[Point]:
        topic = self._connection.topics.parse_reading(message.topic)
        reading = reading_from_json(topic.kind, message.payload)
        check_timestamp(reading.timestamp, self._clock())
        return points_of(topic, reading, self._settings.prefix, self._settings.aliases)

    def _reject(self, message: Message, fault: str) -> None:
        self._counters["invalid_messages"] += 1
        self._dead_letters.add(message.topic, message.payload, fault)

    def _write_with_retries(self, batch: Batch, stop: threading.Event) -> bool:
        """Return True once the batch, and before it all that needs a resend, is read; False if stopped before."""
        started_at = time.monotonic()
        failures = 0
        while True:
            try:
                self._write(batch)
            except CarbonUnavailable as error:
                self._needs_resend = True
                failures += 1
                if failures == 1:
                    logger.warning("%s; retrying, readings wait at the broker", error)
                self._health.report(f"{error}; readings wait at the broker")
                self._metrics.publish_if_due()
                if stop.wait(backoff_s(failures, first_s=FIRST_RETRY_DELAY_S, max_s=MAX_RETRY_DELAY_S)):
                    return False
            else:
                if failures:
                    logger.info("Carbon reads again after %.0f s", time.monotonic() - started_at)
                return True

    def _write(self, batch: Batch) -> None:
        """Send what needs a resend and then the batch. Raises CarbonUnavailable."""
        if self._needs_resend:
            self._resend()
        if not batch.empty:
            self._store.write(batch.points)
            self._unsettled.add(batch, time.monotonic())
            self._counters["points_written"] += len(batch.points)

    def _resend(self) -> None:
        """Send everything unsettled again, oldest first. Raises CarbonUnavailable."""
        for batch in self._unsettled:
            self._store.write(batch.points)
            batch.read_at = time.monotonic()
            self._counters["points_resent"] += len(batch.points)
        self._needs_resend = False

    def _settle(self) -> None:
        """Send receipts for what must be on disk by now; if Carbon was interrupted, mark the rest for a resend."""
        now = time.monotonic()
        self._check_carbon(now)
        if self._store.uninterrupted:
            self._send_receipts(self._unsettled.remove_due(now))
        elif self._unsettled:
            logger.warning("Carbon ended, restarted or stopped reading; resending %d points", self._unsettled.points)
            self._needs_resend = True

    def _check_carbon(self, now: float) -> None:
        """Update whether the store is uninterrupted; before a receipt Carbon must also prove that it still reads."""
        if self._unsettled.is_due(now):
            # A Carbon that hangs keeps its connections, and may have hung since it read the batch.
            with suppress(CarbonUnavailable):
                self._store.write([])
        self._store.maintain_sentinel()

    def _send_receipts(self, settled: list[Batch]) -> None:
        topic = self._connection.topics.receipts(self._connection.client_id)
        for receipt in receipts(settled):
            # Without its receipt the publisher sends a reading again, which is safe.
            with suppress(QueueFull):
                self._connection.publish(topic, receipt.to_json())
        self._counters["readings_receipted"] += sum(len(batch.rows) for batch in settled)

    def _collect_metrics(self) -> dict[str, float]:
        gauges = {"messages_waiting": self._connection.backlog, "points_unsettled": self._unsettled.points}
        return dict(self._counters | gauges)


def journal_row(message: Message) -> tuple[str, int] | None:
    """Return the journal and the row number of a reading, or None if its publisher keeps no journal."""
    journal, row = (message.user_properties.get(name, "") for name in ("journal", "sequence"))
    return (journal, int(row)) if journal and ROW_NUMBER.fullmatch(row) else None
