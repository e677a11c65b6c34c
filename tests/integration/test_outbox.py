"""What the outbox promises, with a real Mosquitto; the sink is played by hand."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

import shared.outbox
from shared.journal import Journal
from shared.messages import Receipt
from shared.mqtt import Connection, Message, Subscription
from shared.outbox import Outbox, subscriptions
from shared.readings import Inverter, Production, Reading
from shared.settings import JournalSettings, MqttSettings
from shared.topics import Topics
from tests.conftest import SERIAL, Server
from tests.faults.proxy import Proxy
from tests.programs import wait_until

Settings = Callable[[str], MqttSettings]
Running = Callable[..., AbstractContextManager[Outbox]]
NOW = int(time.time()) // 10 * 10 - 10_000


def production(number: int) -> Production:
    """Return the reading of a number, each newer than the one before."""
    return Production(timestamp=NOW + 10 * number, power_w=float(number), source="meter")


class Sink:
    """Hears readings, and receipts them when told to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.heard: list[Message] = []

    def say(self, word: bytes) -> None:
        """Be online or offline."""
        self._connection.publish("enphase/services/carbon-sink/status", word, retain=True).result(10)

    def listen(self) -> list[Message]:
        """Return all that was heard so far."""
        while isinstance(message := self._connection.receive(0.02), Message):
            self._connection.acknowledge(message)
            self.heard.append(message)
        return self.heard

    def values(self, room: str) -> list[float]:
        """Return the powers heard on ``readings`` or ``history``, in order."""
        topic = f"enphase/{SERIAL}/{room}/production"
        return [json.loads(message.payload)["power_w"] for message in self.listen() if message.topic == topic]

    def receipt_all(self) -> None:
        """Give a receipt for everything heard."""
        for journal in {message.user_properties["journal"] for message in self.listen()}:
            sequences = [m.user_properties["sequence"] for m in self.heard if m.user_properties["journal"] == journal]
            receipt = Receipt(journal=journal, sequences=tuple((int(one), int(one)) for one in sequences))
            self._connection.publish("enphase/services/carbon-sink/receipts", receipt.to_json()).result(10)


@pytest.fixture
def sink(mqtt: Settings) -> Iterator[Sink]:
    """Yield a sink that is online."""
    filters = [
        Subscription("enphase/+/readings/#", retained_at_every_connect=False),
        Subscription("enphase/+/history/#"),
    ]
    with Connection(mqtt("sink"), stop=threading.Event(), subscriptions=filters) as connection:
        assert connection.wait_until_connected(10)
        sink = Sink(connection)
        sink.say(b"online")
        yield sink


@pytest.fixture
def outbox(mqtt: Settings, tmp_path: Path) -> Running:
    """Return what runs an outbox on one journal, as one process after another does."""

    @contextmanager
    def running(port: int | None = None, **settings: object) -> Iterator[Outbox]:
        broker = mqtt("poller").model_copy(update={"port": port} if port else {})
        told = JournalSettings.model_validate({"resend_after_s": 1.0} | settings)
        stop = threading.Event()
        filters = subscriptions(Topics("enphase"), told)
        with Connection(broker, stop=stop, subscriptions=filters) as connection:
            journal = Journal(tmp_path / "journal.sqlite", keep_days=told.keep_days, max_mb=told.max_mb)
            outbox = Outbox(connection, journal, told)
            threads = [
                threading.Thread(target=outbox.run, args=(stop,)),
                threading.Thread(target=_hand_on, args=(connection, outbox, stop)),
            ]
            for thread in threads:
                thread.start()
            try:
                yield outbox
            finally:
                stop.set()
                for thread in threads:
                    thread.join(10)

    return running


def _hand_on(connection: Connection, outbox: Outbox, stop: threading.Event) -> None:
    while not stop.is_set():
        if isinstance(message := connection.receive(0.05), Message):
            connection.acknowledge(message)
            outbox.handle(message)


def kept(tmp_path: Path) -> int:
    """Return how many rows the journal of an ended process holds."""
    with Journal(tmp_path / "journal.sqlite", keep_days=7, max_mb=10) as journal:
        return journal.depth()


def take(outbox: Outbox, *readings: Reading) -> None:
    """Hand readings in, a poll each."""
    for reading in readings:
        outbox.add(SERIAL, [reading])


def test_a_reading_is_published_and_stays_in_the_journal_until_its_receipt(
    outbox: Running, sink: Sink, tmp_path: Path
) -> None:
    """It carries the journal's name and its row, and the receipt for them ends its stay."""
    with outbox() as box:
        take(box, production(1), production(2))
        wait_until(lambda: {1, 2} == {*sink.values("readings"), *sink.values("history")}, "both are heard")
        assert box.counters["readings_receipted"] == 0

        sink.receipt_all()

        wait_until(lambda: box.counters["readings_receipted"] == 2, "both are receipted")
    assert kept(tmp_path) == 0


def test_a_reading_without_a_receipt_is_sent_again_as_late(outbox: Running, sink: Sink) -> None:
    """While the sink is online and says nothing, it comes again on history/, and never again on readings/."""
    with outbox() as box:
        box._look_at = float("-inf")
        take(box, production(1))
        wait_until(lambda: sink.values("readings") == [1], "it is heard")

        wait_until(lambda: 1.0 in sink.values("history"), "it comes again", 40)

    assert sink.values("readings") == [1]


def test_without_a_sink_nothing_is_sent_again(outbox: Running, sink: Sink, tmp_path: Path) -> None:
    """What a sink that is away has not receipted waits at the broker and in the journal."""
    sink.say(b"offline")
    with outbox() as box:
        take(box, production(1))
        wait_until(lambda: sink.values("readings") == [1], "it is heard")
        box._send_again(time.monotonic() + 1000)

        assert not box._old
    assert kept(tmp_path) == 1


def test_what_an_earlier_process_left_is_published_as_late_by_its_successor(
    outbox: Running, sink: Sink, tmp_path: Path
) -> None:
    """Readings that were never receipted outlive the process; fresh ones are on readings/ as ever."""
    with outbox() as box:
        take(box, *(production(number) for number in range(50)))
        wait_until(lambda: len(sink.values("readings") + sink.values("history")) == 50, "all are heard")
    sink.heard.clear()

    with outbox() as box:
        take(box, production(50))
        wait_until(lambda: len(sink.values("history")) == 50, "all come again")
        sink.receipt_all()
        wait_until(lambda: box.counters["readings_receipted"] == 51, "all are receipted")

    assert sorted(sink.values("history")) == list(range(50))
    assert sink.values("readings") == [50]
    assert kept(tmp_path) == 0


def test_readings_taken_while_the_broker_is_dead_arrive_the_newest_first(
    outbox: Running, broker: Server, sink: Sink
) -> None:
    """After an outage the newest of each kind is on readings/, everything older on history/; none is missing."""
    with outbox() as box:
        take(box, production(0))
        wait_until(lambda: sink.values("readings") == [0], "it is heard")
        broker.kill()
        take(box, Inverter(serial="1", timestamp=NOW, power_w=1), *(production(number) for number in range(1, 300)))
        wait_until(lambda: box.counters["readings_taken"] == 301, "all are taken")

        broker.start()

        wait_until(lambda: len(sink.values("history")) == 298, "all are heard")
        assert sink.values("readings") == [0, 299]
        assert set(sink.values("history")) == set(range(1, 299))
        assert f"enphase/{SERIAL}/readings/inverter/1" in {message.topic for message in sink.heard}


def test_a_receipt_for_another_journal_or_none_removes_nothing(
    outbox: Running, sink: Sink, mqtt: Settings, tmp_path: Path
) -> None:
    """Only our own rows go, and rubbish on the topic does no harm."""
    with outbox() as box, Connection(mqtt("vandal"), stop=threading.Event(), persistent_session=False) as vandal:
        take(box, production(1))
        wait_until(lambda: sink.values("readings") == [1], "it is heard")
        other = Receipt(journal="another", sequences=((1, 100),)).to_json()
        for payload in (other, b"", b"{", b'{"journal": 3}'):
            vandal.publish("enphase/services/carbon-sink/receipts", payload).result(10)
        take(box, production(2))
        wait_until(lambda: sink.values("readings") == [1, 2], "it goes on")
    assert kept(tmp_path) == 2


def test_without_a_sink_to_wait_for_the_brokers_word_ends_the_stay(outbox: Running, sink: Sink, tmp_path: Path) -> None:
    """JOURNAL_RECEIPTS_FROM=none: what somebody subscribed to has taken leaves the journal."""
    with outbox(receipts_from="none") as box:
        take(box, production(1), production(2))
        wait_until(lambda: box.counters["readings_receipted"] == 2, "both have gone")
    assert kept(tmp_path) == 0


@pytest.mark.mosquitto
def test_nobody_listening_is_no_success(outbox: Running, mqtt: Settings, tmp_path: Path) -> None:
    """The broker's reason code 0x10 keeps a reading in the journal, also where no sink is waited for."""
    with outbox(receipts_from="none") as box:
        take(box, production(1))
        wait_until(lambda: box._unreceipted, "the broker has answered")
    assert kept(tmp_path) == 1


def test_what_the_broker_passed_on_and_nobody_answered_for_is_not_news_again(
    outbox: Running, broker: Server, sink: Sink
) -> None:
    """After a half-open connection only the newest is published on readings/ again: its times never go back."""
    with Proxy(broker.port) as proxy, outbox(port=proxy.port) as box:
        take(box, production(0))
        wait_until(lambda: sink.values("readings") == [0], "it is heard")
        proxy.drop_responses()
        for number in range(1, 6):
            take(box, production(number))
            wait_until(lambda: number in sink.values("readings"), "it is heard")  # noqa: B023

        proxy.reset_all()

        wait_until(lambda: len(sink.values("history")) == 4, "what may be lost comes again")
        wait_until(lambda: sink.values("readings")[-2:] == [5, 5], "the newest, too")
        assert sink.values("readings") == [0, 1, 2, 3, 4, 5, 5]
        assert sorted(sink.values("history")) == [1, 2, 3, 4]
        sink.receipt_all()
        wait_until(lambda: box.counters["readings_receipted"] == 6, "all are receipted")


def test_a_reading_over_which_the_connection_breaks_holds_up_no_other(
    outbox: Running, broker: Server, sink: Sink, tmp_path: Path
) -> None:
    """It is found by publishing one at a time, and waits; the connection does not break again and again."""
    with Journal(tmp_path / "journal.sqlite", keep_days=7, max_mb=10) as journal:
        journal.add(SERIAL, [production(number) for number in range(6)], time.time())
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as database, database:
        enlarged = "UPDATE readings SET payload = CAST(payload || ? AS BLOB) WHERE sequence = 1"
        database.execute(enlarged, [" " * 100_000])

    with Proxy(broker.port) as proxy:
        proxy.cut_after(50_000)
        with outbox(port=proxy.port, resend_after_s=1000) as box:
            wait_until(lambda: proxy.cuts, "the connection breaks")
            take(box, *(production(number) for number in range(6, 9)))

            wait_until(lambda: set(range(1, 9)) == {*sink.values("history"), *sink.values("readings")}, "all others")
            wait_until(lambda: 1 in box._unreceipted, "it waits")
            assert proxy.cuts == 2


def test_while_nothing_is_receipted_one_reading_at_a_time_is_sent_again(
    outbox: Running, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink whose Carbon is away for a day is not sent everything every two minutes: it waits at the broker."""
    monkeypatch.setattr(shared.outbox, "LOOK_AFTER_S", 1.0)
    with outbox() as box:
        take(box, *(production(number) for number in range(50)))
        wait_until(lambda: len(sink.values("readings") + sink.values("history")) == 50, "all are heard")

        wait_until(lambda: box.counters["readings_resent"] >= 3, "three looks")

        assert len(sink.listen()) < 60
        sink.receipt_all()
        wait_until(lambda: box.counters["readings_receipted"] == 50, "all are receipted")


def test_a_receipt_for_a_later_reading_tells_that_the_earlier_ones_were_lost(
    outbox: Running, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are sent again at once."""
    monkeypatch.setattr(shared.outbox, "LOOK_AFTER_S", 1.0)
    with outbox(resend_after_s=4.0) as box:
        take(box, *(production(number) for number in range(30)))
        wait_until(lambda: len(sink.values("readings") + sink.values("history")) == 30, "all are heard")
        take(box, production(30))
        wait_until(lambda: 30 in sink.values("readings"), "the newest is heard")
        assert box.counters["readings_resent"] == 0
        sink.heard = [message for message in sink.heard if b'"power_w":30.0' in message.payload]
        sink.receipt_all()

        wait_until(lambda: len(sink.values("history")) == 30, "the others come again")

        assert sorted(sink.values("history")) == list(range(30))
        assert box.counters["readings_resent"] == 30
