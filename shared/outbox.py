"""Publishes what a journal holds until it is known to be stored.

One thread owns the journal; others hand it readings and messages. A reading goes out once it is on disk: on its kind's
``readings/`` topic if it is the newest of its kind, otherwise, and whenever it is sent again, on ``history/``, so that
``readings/`` never goes back in time. Fresh readings always go before old ones.

A row leaves the journal when the sink's receipt for it comes. If none comes in time while the sink is online, and there
is one for a row that was published later, it was lost on its way, and is published again. Without a sink to wait for,
the broker's successful acknowledgement counts.

While nothing at all is receipted, as when Carbon is away for a day, everything may well be waiting at the broker: to
publish it again would only fill the broker's memory, so there is one row at each look, in case nothing newer comes.
"""

import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import takewhile

from shared.journal import Journal, JournalFull
from shared.messages import ONLINE, Receipt
from shared.mqtt import Connection, Message, Publication, QueueFull, Subscription
from shared.payload import InvalidPayload
from shared.readings import Reading
from shared.settings import NO_SINK, JournalSettings
from shared.topics import Topics

logger = logging.getLogger(__name__)

WINDOW = 20
"""Publications that the broker has not answered; paho knows no limit of the broker's, and Mosquitto's is 20."""

OLD_IN_WINDOW = 10
"""Of these, old readings at most, so that a fresh one finds room at once."""

MAX_PROPERTY_BYTES = 200
"""User properties, content type and MQTT's own bytes around a payload and its topic."""

MAX_RANGE_LENGTH = 1_000_000
"""A receipt's range is not believed to be longer: it is counted through."""

MAX_WAIT_S = 1.0
LAST_WORDS_S = 2.0
LOOK_AFTER_S = 10.0
"""How often old rows are given up and missing receipts looked for."""

CLOCK_WAS_SET_S = 60.0
"""Less is a clock that is kept right."""


@dataclass(frozen=True, slots=True)
class _Taken:
    serial: str
    readings: Sequence[Reading]


@dataclass(frozen=True, slots=True)
class _Answered:
    sequence: int
    publication: Publication | None
    """None if the connection was lost before the broker answered."""


@dataclass(frozen=True, slots=True)
class _Unreceipted:
    published_at: float
    """When the broker took it, on the monotonic clock."""
    again: bool
    """Whether it had been published before, perhaps by an earlier process: the receipt may be for that."""


class Outbox:
    """The readings of one publisher on their way."""

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
            journal: where readings are kept; the outbox's own from here on.
            settings: how long to keep and when to send again.
            clock: epoch seconds.
        """
        self._connection = connection
        self._journal = journal
        self._settings = settings
        self._clock = clock
        self._events: queue.SimpleQueue[_Taken | _Answered | Message] = queue.SimpleQueue()
        self._fresh: deque[deque[int]] = deque()
        """Rows never published yet, a poll's together."""
        self._old: deque[int] = deque()
        """Rows that may have been published before, perhaps by an earlier process."""
        self._in_flight: dict[int, bool] = {}
        """By row number, whether it is an old one."""
        self._lost: set[int] = set()
        """Rows that were on their way when the connection was lost, and are to be tried once more."""
        self._unreceipted: dict[int, _Unreceipted] = {}
        """By row number, oldest publication first."""
        self._receipted_until = float("-inf")
        """When the newest publication that is known to have been receipted was made, on the monotonic clock."""
        self._sink_online_since: float | None = None
        self._look_at = 0.0
        self._clock_ahead_s = clock() - time.monotonic()
        """How far the clock was ahead of the monotonic one at the last look."""
        self._depth = self._waiting = 0
        self._oldest_taken_at: float | None = None
        self.counters: Counter[str] = Counter(
            readings_taken=0, readings_receipted=0, readings_resent=0, readings_expired=0, readings_not_journaled=0
        )

    def add(self, serial: str, readings: Sequence[Reading]) -> None:
        """Take in the readings of a poll; from any thread."""
        self._events.put(_Taken(serial, readings))

    def handles(self, message: Message) -> bool:
        """Return whether a message is the sink's."""
        topics, sink = self._connection.topics, self._settings.receipts_from
        return message.topic in (topics.service_status(sink), topics.receipts(sink))

    def handle(self, message: Message) -> None:
        """Take in a message of the sink's; from any thread."""
        self._events.put(message)

    def gauges(self) -> dict[str, float]:
        """Return what a person wants to know of the journal, as of the last look."""
        oldest_s = self._clock() - self._oldest_taken_at if self._oldest_taken_at is not None else 0.0
        return {
            "journal_rows": float(self._depth),
            "oldest_unreceipted_s": max(0.0, round(oldest_s, 1)),
            "readings_waiting": float(self._waiting),
        }

    def run(self, stop: threading.Event) -> None:
        """Publish until told to stop, then for a moment what can still be handed over, and close the journal."""
        with self._journal as journal:
            self._old.extend(journal.sequences())
            if self._old:
                logger.info("%d readings of an earlier run have no receipt yet", len(self._old))
            while not stop.is_set():
                self._handle_events(MAX_WAIT_S)
                self._publish_waiting()
                self._look_after()
            ends_at = time.monotonic() + LAST_WORDS_S
            self._handle_events(0.0)
            self._publish_waiting()
            while self._in_flight and time.monotonic() < ends_at:
                self._handle_events(LAST_WORDS_S / 10)

    def _handle_events(self, timeout_s: float) -> None:
        try:
            event = self._events.get(timeout=timeout_s) if timeout_s else self._events.get_nowait()
            while True:
                self._handle(event)
                event = self._events.get_nowait()
        except queue.Empty:
            return

    def _handle(self, event: _Taken | _Answered | Message) -> None:
        match event:
            case _Taken(serial, readings):
                self._keep(serial, readings)
            case _Answered(sequence, publication):
                self._answered(sequence, publication)
            case Message() as message:
                self._hear(message)

    def _keep(self, serial: str, readings: Sequence[Reading]) -> None:
        self.counters["readings_taken"] += len(readings)
        self._mind_the_clock()
        try:
            self._fresh.append(deque(self._journal.add(serial, readings, self._clock())))
        except JournalFull as error:
            if not self.counters["readings_not_journaled"]:
                logger.error("readings go out without being kept: %s; make room", error)  # noqa: TRY400
            self.counters["readings_not_journaled"] += len(readings)
            for reading in readings:
                topic = self._connection.topics.reading(serial, reading.kind)
                try:
                    self._connection.publish(topic, reading.to_json(), retain=True)
                except QueueFull:
                    self.counters["readings_expired"] += 1

    def _publish_waiting(self) -> None:
        while self._connection.connected and len(self._in_flight) < self._window():
            if self._fresh:
                # After an outage many polls wait: the newest is news, and goes first.
                newest_poll = self._fresh[-1]
                if newest_poll:
                    self._publish(newest_poll.popleft(), old=False)
                else:
                    self._fresh.pop()
            elif self._old and sum(self._in_flight.values()) < OLD_IN_WINDOW:
                self._publish(self._old.popleft(), old=True)
            else:
                return

    def _window(self) -> int:
        # Perhaps the broker could not bear one of those that were lost. Alone on its way, that one shows.
        return 1 if self._lost else WINDOW

    def _publish(self, sequence: int, *, old: bool) -> None:
        """Publish a row that is still in the journal; where one of its kind is newer, or it is old, as late."""
        topics = self._connection.topics
        for row in self._journal.rows([sequence]):
            late = old or not self._journal.is_newest(row)
            topic = topics.history(row.serial, row.kind) if late else topics.reading(row.serial, row.kind)
            if len(row.payload) + len(topic) + MAX_PROPERTY_BYTES > self._connection.max_packet_bytes:
                logger.error("row %d is larger than the broker takes; it stays in the journal", sequence)
                break
            self.counters["readings_resent"] += old or sequence in self._lost
            self._in_flight[sequence] = old
            answer = self._connection.publish(
                topic,
                row.payload,
                retain=not late,
                user_properties={"journal": self._journal.name, "sequence": str(sequence)},
                resend=False,
            )
            answer.add_done_callback(lambda done: self._events.put(_Answered(sequence, _publication(done))))
            return
        self._lost.discard(sequence)

    def _answered(self, sequence: int, publication: Publication | None) -> None:
        old = self._in_flight.pop(sequence)
        if publication is None:
            self._not_answered(sequence, old=old)
            return
        again = old or sequence in self._lost
        self._lost.discard(sequence)
        self._unreceipted[sequence] = _Unreceipted(time.monotonic(), again)
        if self._settings.receipts_from == NO_SINK and publication.reached_a_subscriber:
            self._removed(((sequence, sequence),))

    def _not_answered(self, sequence: int, *, old: bool) -> None:
        """Line up again what was on its way when the connection was lost; at the second loss it has to wait."""
        if sequence in self._lost:
            self._lost.discard(sequence)
            self._unreceipted[sequence] = _Unreceipted(time.monotonic(), again=True)
            return
        self._lost.add(sequence)
        if old:
            self._old.appendleft(sequence)
        else:
            self._fresh.appendleft(deque([sequence]))

    def _hear(self, message: Message) -> None:
        topics, sink = self._connection.topics, self._settings.receipts_from
        if message.topic == topics.service_status(sink):
            online = message.payload == ONLINE
            if not online:
                self._sink_online_since = None
            elif self._sink_online_since is None:
                self._sink_online_since = time.monotonic()
        elif message.topic == topics.receipts(sink):
            try:
                receipt = Receipt.from_json(message.payload)
            except InvalidPayload as error:
                logger.warning("passed over a receipt: %s", error)
                return
            if receipt.journal == self._journal.name:
                self._removed(receipt.sequences)

    def _removed(self, ranges: Sequence[tuple[int, int]]) -> None:
        try:
            self.counters["readings_receipted"] += self._journal.remove(ranges)
        except JournalFull as error:
            # The rows stay, are sent again, and are removed at the next receipt.
            logger.warning("receipts cannot be noted: %s; make room", error)
            return
        for first, last in ranges:
            for sequence in range(first, min(last, first + MAX_RANGE_LENGTH) + 1):
                receipted = self._unreceipted.pop(sequence, None)
                if receipted is not None and not receipted.again:
                    self._receipted_until = max(self._receipted_until, receipted.published_at)

    def _look_after(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_AFTER_S
        self._mind_the_clock()
        if given_up := self._journal.prune(self._clock()):
            self.counters["readings_expired"] += given_up
            logger.error("%d readings without a receipt were given up: they were too old or too many", given_up)
        self._send_again(now)
        self._depth, self._oldest_taken_at = self._journal.depth(), self._journal.oldest_taken_at()
        self._waiting = len(self._old) + sum(map(len, self._fresh)) + len(self._in_flight)

    def _mind_the_clock(self) -> None:
        """Notice a clock that was set since the last look, before anything is written or given up by it."""
        ahead_s = self._clock() - time.monotonic()
        if abs(jump_s := ahead_s - self._clock_ahead_s) > CLOCK_WAS_SET_S:
            logger.warning("the clock was set by %+.0f s; the age of what waits stays as it was", jump_s)
            self._journal.shift_ages(jump_s)
        self._clock_ahead_s = ahead_s

    def _send_again(self, now: float) -> None:
        """Line up for another publication what was not receipted in time while the sink was there to do it."""
        long_ago = now - self._settings.resend_after_s
        sink_was_there = self._sink_online_since is not None and self._sink_online_since <= long_ago
        if self._settings.receipts_from != NO_SINK and not sink_was_there:
            return
        overdue = list(takewhile(lambda row: row[1].published_at <= long_ago, self._unreceipted.items()))
        lost = [sequence for sequence, row in overdue if row.published_at < self._receipted_until]
        for sequence in lost or [sequence for sequence, _row in overdue[:1]]:
            del self._unreceipted[sequence]
            self._old.append(sequence)


def subscriptions(topics: Topics, settings: JournalSettings) -> list[Subscription]:
    """Return what the outbox must hear: whether the sink is there, and its receipts."""
    if settings.receipts_from == NO_SINK:
        return []
    sink = settings.receipts_from
    return [Subscription(topics.service_status(sink)), Subscription(topics.receipts(sink))]


def _publication(answer: Future[Publication]) -> Publication | None:
    return None if answer.exception() else answer.result()
