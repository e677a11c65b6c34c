"""Publishes the readings in a journal until they are known to be stored.

A reading is published once it is on disk: on its kind's ``readings/`` topic if it is the newest of its kind, otherwise,
and whenever it is resent, on ``history/``, so that the times on ``readings/`` never go back.
"""

import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile

from shared.journal import Journal, JournalFull, Row
from shared.messages import ONLINE, Receipt
from shared.mqtt import Connection, Message, Publication, QueueFull, Subscription
from shared.payload import InvalidPayload
from shared.readings import Reading
from shared.settings import NO_SINK, JournalSettings
from shared.topics import Topics

logger = logging.getLogger(__name__)

MAX_INFLIGHT = 20
"""Publications that the broker has not acknowledged; paho ignores the broker's own maximum, and Mosquitto's is 20."""

MAX_INFLIGHT_BACKLOG = 10
"""Of these, rows of the backlog, so that a new reading is published at once."""

MAX_OVERHEAD_BYTES = 200
"""User properties, content type and MQTT's own bytes in the packet of a payload and its topic."""

MAX_WAIT_S = 1.0
SHUTDOWN_GRACE_S = 2.0
HOUSEKEEPING_INTERVAL_S = 10.0
MIN_CLOCK_JUMP_S = 60.0
"""A smaller step is a clock that is kept in time."""


@dataclass(frozen=True, slots=True)
class _Added:
    serial: str
    readings: Sequence[Reading]


@dataclass(frozen=True, slots=True)
class _Published:
    sequence: int
    publication: Publication | None
    """None if the connection was lost before the broker acknowledged."""


@dataclass(frozen=True, slots=True)
class _Unreceipted:
    acknowledged_at: float
    """On the monotonic clock."""
    resent: bool
    """Whether it had been published before, perhaps by an earlier process: the receipt may be for that publication."""


class Outbox:
    """A persistent queue of readings; one thread publishes them, in :meth:`run`.

    ::

        readings ──add()──► new ──PUBLISH──► inflight ──PUBACK──► unreceipted ──receipt──► removed
                                                ▲                      │
                                                │ PUBLISH on history/  │ no receipt in time
                                                │                      │
        rows of an earlier run ─────────────► backlog ◄────────────────┘

        connection lost:      inflight  ──► new or backlog, where it came from
        too old or too many:  any state ──► expired

    - *New* polls are published before the *backlog*, the newest first. Each row is in the journal in every state.
    - A connection that is lost returns *inflight* rows to where they came from; such *interrupted* rows are published
      once more, one at a time, in case the broker closed the connection because of one of them. After a second
      interruption a row waits as *unreceipted*.
    - An *unreceipted* row is resent if it has no receipt ``resend_after_s`` later although the sink was online, and a
      row acknowledged later has one, so that this one was lost. Where there is no such row, the oldest alone is resent
      in each ``HOUSEKEEPING_INTERVAL_S``: while Carbon is away for a day nothing has a receipt, and resending all of it
      would only fill the broker's memory with copies.
    - Without a sink (``receipts_from`` is ``none``) the broker's acknowledgement with a subscriber removes a row.
    - Capacity: ``max_mb`` on disk (256 MB are about 640,000 readings of 400 bytes) and ``keep_days``; what exceeds it
      expires, oldest first. At most ``MAX_INFLIGHT`` rows are inflight. Memory holds no readings, only 40
      bytes for each row of the backlog and 160 for each unreceipted one.
    """

    def __init__(
        self,
        connection: Connection,
        journal: Journal,
        settings: JournalSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the outbox.

        Args:
            connection: to the broker, with :func:`subscriptions` among its own.
            journal: used and closed only by the outbox from here on.
            settings: whose receipts to wait for, and when to resend.
            clock: epoch seconds.
        """
        self._connection = connection
        self._journal = journal
        self._settings = settings
        self._clock = clock
        self._events: queue.SimpleQueue[_Added | _Published | Message] = queue.SimpleQueue()
        self._new: deque[deque[int]] = deque()
        """Rows that were never published, the rows of a poll together."""
        self._backlog: deque[int] = deque()
        """Rows that may have been published before, perhaps by an earlier process."""
        self._inflight: dict[int, bool] = {}
        """By row number, whether it is of the backlog."""
        self._interrupted: set[int] = set()
        """Rows that were inflight when the connection was lost, and are published once more."""
        self._unreceipted: dict[int, _Unreceipted] = {}
        """By row number, in the order of acknowledgement."""
        self._receipted_until = float("-inf")
        """When the newest publication that has its receipt was acknowledged, on the monotonic clock."""
        self._sink_online_since: float | None = None
        self._next_housekeeping_at = 0.0
        self._clock_offset_s = clock() - time.monotonic()
        """How far the clock was ahead of the monotonic clock at the last check."""
        self._row_count = self._waiting_count = 0
        self._oldest_added_at: float | None = None
        self.counters: Counter[str] = Counter(
            readings_taken=0, readings_receipted=0, readings_resent=0, readings_expired=0, readings_not_journaled=0
        )

    def add(self, serial: str, readings: Sequence[Reading]) -> None:
        """Add the readings of a poll; from any thread."""
        self._events.put(_Added(serial, readings))

    def handles(self, message: Message) -> bool:
        """Return whether a message is one for :meth:`handle`: the sink's status or its receipts."""
        topics, sink = self._connection.topics, self._settings.receipts_from
        return message.topic in (topics.service_status(sink), topics.receipts(sink))

    def handle(self, message: Message) -> None:
        """Handle a message of the sink; from any thread."""
        self._events.put(message)

    def gauges(self) -> dict[str, float]:
        """Return the state of the queue as of the last housekeeping."""
        oldest_s = self._clock() - self._oldest_added_at if self._oldest_added_at is not None else 0.0
        return {
            "journal_rows": float(self._row_count),
            "oldest_unreceipted_s": max(0.0, round(oldest_s, 1)),
            "readings_waiting": float(self._waiting_count),
        }

    def run(self, stop: threading.Event) -> None:
        """Publish until ``stop`` is set, then wait briefly for acknowledgements, and close the journal."""
        with self._journal as journal:
            self._backlog.extend(journal.sequences())
            if self._backlog:
                logger.info("%d readings of an earlier run have no receipt yet; publishing them", len(self._backlog))
            while not stop.is_set():
                self._process_events(MAX_WAIT_S)
                self._publish_queued()
                self._housekeeping()
            ends_at = time.monotonic() + SHUTDOWN_GRACE_S
            self._process_events(0.0)
            self._publish_queued()
            while self._inflight and time.monotonic() < ends_at:
                self._process_events(SHUTDOWN_GRACE_S / 10)

    def _process_events(self, timeout_s: float) -> None:
        """Process the next event, and all others that are there by then."""
        try:
            event = self._events.get(timeout=timeout_s) if timeout_s else self._events.get_nowait()
            while True:
                self._process(event)
                event = self._events.get_nowait()
        except queue.Empty:
            return

    def _process(self, event: _Added | _Published | Message) -> None:
        match event:
            case _Added(serial, readings):
                self._write(serial, readings)
            case _Published(sequence, publication):
                self._on_published(sequence, publication)
            case Message() as message:
                self._on_message(message)

    def _write(self, serial: str, readings: Sequence[Reading]) -> None:
        self.counters["readings_taken"] += len(readings)
        self._detect_clock_jump()
        try:
            self._new.append(deque(self._journal.add(serial, readings, self._clock())))
        except JournalFull as error:
            self._publish_not_journaled(serial, readings, error)

    def _publish_not_journaled(self, serial: str, readings: Sequence[Reading], error: JournalFull) -> None:
        if not self.counters["readings_not_journaled"]:
            logger.error("readings are published without being journaled: %s; free disk space", error)
        self.counters["readings_not_journaled"] += len(readings)
        for reading in readings:
            topic = self._connection.topics.reading(serial, reading.kind)
            try:
                self._connection.publish(topic, reading.to_json(), retain=True)
            except QueueFull:
                self.counters["readings_expired"] += 1

    def _publish_queued(self) -> None:
        # paho's queue is full of readings that were not journaled; rows are published once it is shorter.
        with suppress(QueueFull):
            self._publish_until_inflight_is_full()

    def _publish_until_inflight_is_full(self) -> None:
        while self._connection.connected and len(self._inflight) < self._max_inflight():
            if self._new:
                # After an outage many polls wait; the newest is needed first.
                newest_poll = self._new[-1]
                if newest_poll:
                    self._publish(newest_poll.popleft(), from_backlog=False)
                else:
                    self._new.pop()
            elif self._backlog and sum(self._inflight.values()) < MAX_INFLIGHT_BACKLOG:
                self._publish(self._backlog.popleft(), from_backlog=True)
            else:
                return

    def _max_inflight(self) -> int:
        # The broker may have closed the connection because of one of the interrupted rows; alone, it is identified.
        return 1 if self._interrupted else MAX_INFLIGHT

    def _publish(self, sequence: int, *, from_backlog: bool) -> None:
        """Publish a row if it is still in the journal; on QueueFull it is queued again."""
        row = self._journal.get(sequence)
        if row is None:
            self._interrupted.discard(sequence)
            return
        is_history = from_backlog or not row.is_newest
        topic = self._topic(row, is_history=is_history)
        if len(row.payload) + len(topic) + MAX_OVERHEAD_BYTES > self._connection.max_packet_bytes:
            logger.error("row %d is larger than the broker accepts; it stays in the journal until it expires", sequence)
            self._interrupted.discard(sequence)
            return
        try:
            future = self._connection.publish(
                topic,
                row.payload,
                retain=not is_history,
                user_properties={"journal": self._journal.name, "sequence": str(sequence)},
                resend=False,  # a later reading may be on readings/ by then
            )
        except QueueFull:
            self._return_to_queue(sequence, from_backlog=from_backlog)
            raise
        self.counters["readings_resent"] += from_backlog or sequence in self._interrupted
        self._inflight[sequence] = from_backlog
        future.add_done_callback(lambda done: self._events.put(_Published(sequence, _publication(done))))

    def _topic(self, row: Row, *, is_history: bool) -> str:
        build = self._connection.topics.history if is_history else self._connection.topics.reading
        return build(row.serial, row.kind)

    def _on_published(self, sequence: int, publication: Publication | None) -> None:
        from_backlog = self._inflight.pop(sequence)
        if publication is None:
            self._on_interrupted(sequence, from_backlog=from_backlog)
            return
        resent = from_backlog or sequence in self._interrupted
        self._interrupted.discard(sequence)
        self._unreceipted[sequence] = _Unreceipted(time.monotonic(), resent)
        if self._settings.receipts_from == NO_SINK and publication.reached_a_subscriber:
            self._remove(((sequence, sequence),))

    def _on_interrupted(self, sequence: int, *, from_backlog: bool) -> None:
        """Queue a row again whose connection was lost; at the second time it must wait."""
        if sequence in self._interrupted:
            self._interrupted.discard(sequence)
            self._unreceipted[sequence] = _Unreceipted(time.monotonic(), resent=True)
        else:
            self._interrupted.add(sequence)
            self._return_to_queue(sequence, from_backlog=from_backlog)

    def _return_to_queue(self, sequence: int, *, from_backlog: bool) -> None:
        if from_backlog:
            self._backlog.appendleft(sequence)
        else:
            self._new.appendleft(deque([sequence]))

    def _on_message(self, message: Message) -> None:
        topics, sink = self._connection.topics, self._settings.receipts_from
        if message.topic == topics.service_status(sink):
            if message.payload != ONLINE:
                self._sink_online_since = None
            elif self._sink_online_since is None:
                self._sink_online_since = time.monotonic()
        elif message.topic == topics.receipts(sink):
            try:
                receipt = Receipt.from_json(message.payload)
            except InvalidPayload as error:
                logger.warning("rejected a receipt: %s", error)
                return
            if receipt.journal == self._journal.name:
                self._remove(receipt.sequences)

    def _remove(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Remove rows that are stored."""
        try:
            self.counters["readings_receipted"] += self._journal.remove(ranges)
        except JournalFull as error:
            # The rows stay, are resent, and are removed with the next receipt.
            logger.warning("rows with a receipt cannot be removed: %s; free disk space", error)
            return
        for first, last in ranges:
            for sequence in self._unreceipted_in(first, last):
                row = self._unreceipted.pop(sequence)
                if not row.resent:
                    self._receipted_until = max(self._receipted_until, row.acknowledged_at)

    def _unreceipted_in(self, first: int, last: int) -> list[int]:
        """Return the unreceipted rows of a range, which comes from outside and may be of any length."""
        if last - first < len(self._unreceipted):
            return [sequence for sequence in range(first, last + 1) if sequence in self._unreceipted]
        return [sequence for sequence in self._unreceipted if first <= sequence <= last]

    def _housekeeping(self) -> None:
        """Every ten seconds: expire rows, queue lost ones again, and measure."""
        now = time.monotonic()
        if now < self._next_housekeeping_at:
            return
        self._next_housekeeping_at = now + HOUSEKEEPING_INTERVAL_S
        self._detect_clock_jump()
        if expired := self._journal.prune(self._clock()):
            self.counters["readings_expired"] += expired
            logger.error(
                "%d readings without a receipt expired: they were too old or too many; is the sink up?", expired
            )
        self._queue_resends(now)
        self._row_count, self._oldest_added_at = self._journal.row_count(), self._journal.oldest_added_at()
        self._waiting_count = len(self._backlog) + sum(map(len, self._new)) + len(self._inflight)

    def _detect_clock_jump(self) -> None:
        """Keep the age of the rows if the clock has jumped, before a row is written or expires by the new time."""
        offset_s = self._clock() - time.monotonic()
        if abs(jump_s := offset_s - self._clock_offset_s) > MIN_CLOCK_JUMP_S:
            logger.warning("the clock jumped by %+.0f s; the age of the readings in the journal is kept", jump_s)
            self._journal.shift_ages(jump_s)
        self._clock_offset_s = offset_s

    def _queue_resends(self, now: float) -> None:
        """Queue rows without a receipt in time while the sink is online: those that were lost, or else the oldest."""
        overdue_at = now - self._settings.resend_after_s
        sink_was_online = self._sink_online_since is not None and self._sink_online_since <= overdue_at
        if self._settings.receipts_from != NO_SINK and not sink_was_online:
            return
        overdue = list(takewhile(lambda item: item[1].acknowledged_at <= overdue_at, self._unreceipted.items()))
        lost = [sequence for sequence, row in overdue if row.acknowledged_at < self._receipted_until]
        for sequence in lost or [sequence for sequence, _row in overdue[:1]]:
            del self._unreceipted[sequence]
            self._backlog.append(sequence)


def subscriptions(topics: Topics, settings: JournalSettings) -> list[Subscription]:
    """Return what an outbox needs to receive: the sink's status and its receipts."""
    if settings.receipts_from == NO_SINK:
        return []
    sink = settings.receipts_from
    return [Subscription(topics.service_status(sink)), Subscription(topics.receipts(sink))]


def _publication(future: Future[Publication]) -> Publication | None:
    return None if future.exception() else future.result()
