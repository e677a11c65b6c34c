"""What the outbox guarantees, with a real Mosquitto; the test acts as the sink."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import shared.outbox
from shared.journal import Journal
from shared.messages import Receipt
from shared.mqtt import Connection, Message, Publication, QueueFull, Subscription
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


class ManualSink:
    """Receives readings, and publishes receipts for them on request."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.received: list[Message] = []

    def publish_status(self, status: bytes) -> None:
        """Publish ``online`` or ``offline``."""
        self._connection.publish("enphase/services/carbon-sink/status", status, retain=True).result(10)

    def receive(self) -> list[Message]:
        """Return all that was received so far."""
        while isinstance(message := self._connection.receive(0.02), Message):
            self._connection.acknowledge(message)
            self.received.append(message)
        return self.received

    def values(self, branch: str) -> list[float]:
        """Return the powers received on ``readings`` or ``history``, in order."""
        topic = f"enphase/{SERIAL}/{branch}/production"
        return [json.loads(message.payload)["power_w"] for message in self.receive() if message.topic == topic]

    def publish_receipts(self) -> None:
        """Publish a receipt for everything received."""
        for journal in {message.user_properties["journal"] for message in self.receive()}:
            sequences = [
                m.user_properties["sequence"] for m in self.received if m.user_properties["journal"] == journal
            ]
            receipt = Receipt(journal=journal, sequences=tuple((int(one), int(one)) for one in sequences))
            self._connection.publish("enphase/services/carbon-sink/receipts", receipt.to_json()).result(10)


@pytest.fixture
def manual_sink(mqtt: Settings) -> Iterator[ManualSink]:
    """Yield a sink that is online."""
    filters = [
        Subscription("enphase/+/readings/#", retained_at_every_connect=False),
        Subscription("enphase/+/history/#"),
    ]
    with Connection(mqtt("sink"), stop=threading.Event(), subscriptions=filters) as connection:
        assert connection.wait_until_connected(10)
        manual_sink = ManualSink(connection)
        manual_sink.publish_status(b"online")
        yield manual_sink


@pytest.fixture
def outbox(mqtt: Settings, tmp_path: Path) -> Running:
    """Return a function that runs an outbox on one journal; each call is the next process."""

    @contextmanager
    def running(port: int | None = None, **settings: object) -> Iterator[Outbox]:
        broker = mqtt("poller").model_copy(update={"port": port} if port else {})
        journal_settings = JournalSettings.model_validate({"resend_after_s": 1.0} | settings)
        stop = threading.Event()
        filters = subscriptions(Topics("enphase"), journal_settings)
        with Connection(broker, stop=stop, subscriptions=filters) as connection:
            keep_days, max_mb = journal_settings.keep_days, journal_settings.max_mb
            journal = Journal(tmp_path / "journal.sqlite", keep_days=keep_days, max_mb=max_mb)
            outbox = Outbox(connection, journal, journal_settings)
            threads = [
                threading.Thread(target=outbox.run, args=(stop,)),
                threading.Thread(target=_forward_messages, args=(connection, outbox, stop)),
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


def _forward_messages(connection: Connection, outbox: Outbox, stop: threading.Event) -> None:
    while not stop.is_set():
        if isinstance(message := connection.receive(0.05), Message):
            connection.acknowledge(message)
            outbox.handle(message)


def row_count(tmp_path: Path) -> int:
    """Return how many rows the journal of an ended process has."""
    with Journal(tmp_path / "journal.sqlite", keep_days=7, max_mb=10) as journal:
        return journal.row_count()


def add(outbox: Outbox, *readings: Reading) -> None:
    """Add readings, each as a poll."""
    for reading in readings:
        outbox.add(SERIAL, [reading])


def test_a_reading_is_published_and_stays_in_the_journal_until_its_receipt(
    outbox: Running, manual_sink: ManualSink, tmp_path: Path
) -> None:
    """It carries the journal's name and its row number, and the receipt for them removes it."""
    with outbox() as box:
        add(box, production(1), production(2))
        wait_until(
            lambda: {1, 2} == {*manual_sink.values("readings"), *manual_sink.values("history")}, "both are received"
        )
        assert box.counters["readings_receipted"] == 0

        manual_sink.publish_receipts()

        wait_until(lambda: box.counters["readings_receipted"] == 2, "both are receipted")
    assert row_count(tmp_path) == 0


def test_a_reading_without_a_receipt_is_resent_on_history(outbox: Running, manual_sink: ManualSink) -> None:
    """While the sink is online it is resent there, and never on readings/."""
    with outbox() as box:
        box._next_housekeeping_at = float("-inf")
        add(box, production(1))
        wait_until(lambda: manual_sink.values("readings") == [1], "it is received")

        wait_until(lambda: 1.0 in manual_sink.values("history"), "it is resent", 40)

    assert manual_sink.values("readings") == [1]


def test_while_the_sink_is_offline_nothing_is_resent(outbox: Running, manual_sink: ManualSink, tmp_path: Path) -> None:
    """Readings without a receipt wait at the broker and in the journal."""
    manual_sink.publish_status(b"offline")
    with outbox() as box:
        add(box, production(1))
        wait_until(lambda: manual_sink.values("readings") == [1], "it is received")
        box._queue_resends(time.monotonic() + 1000)

        assert not box._backlog
    assert row_count(tmp_path) == 1


def test_rows_of_an_earlier_process_are_published_on_history_by_the_next(
    outbox: Running, manual_sink: ManualSink, tmp_path: Path
) -> None:
    """Readings without a receipt outlive the process; new ones are published on readings/."""
    with outbox() as box:
        add(box, *(production(number) for number in range(50)))
        wait_until(
            lambda: len(manual_sink.values("readings") + manual_sink.values("history")) == 50, "all are received"
        )
    manual_sink.received.clear()

    with outbox() as box:
        add(box, production(50))
        wait_until(lambda: len(manual_sink.values("history")) == 50, "all are resent")
        manual_sink.publish_receipts()
        wait_until(lambda: box.counters["readings_receipted"] == 51, "all are receipted")

    assert sorted(manual_sink.values("history")) == list(range(50))
    assert manual_sink.values("readings") == [50]
    assert row_count(tmp_path) == 0


def test_readings_added_while_the_broker_is_down_arrive_the_newest_first(
    outbox: Running, broker: Server, manual_sink: ManualSink
) -> None:
    """After an outage the newest of each kind is on readings/, everything older on history/; none is missing."""
    with outbox() as box:
        add(box, production(0))
        wait_until(lambda: manual_sink.values("readings") == [0], "it is received")
        broker.kill()
        add(box, Inverter(serial="1", timestamp=NOW, power_w=1), *(production(number) for number in range(1, 300)))
        wait_until(lambda: box.counters["readings_taken"] == 301, "all are added")

        broker.start()

        wait_until(lambda: len(manual_sink.values("history")) == 298, "all are received")
        assert manual_sink.values("readings") == [0, 299]
        assert set(manual_sink.values("history")) == set(range(1, 299))
        assert f"enphase/{SERIAL}/readings/inverter/1" in {message.topic for message in manual_sink.received}


def test_a_receipt_for_another_journal_or_none_removes_nothing(
    outbox: Running, manual_sink: ManualSink, mqtt: Settings, tmp_path: Path
) -> None:
    """Only rows of this journal are removed, and no message on the topic ends the outbox."""
    with outbox() as box, Connection(mqtt("other"), stop=threading.Event(), persistent_session=False) as other_client:
        add(box, production(1))
        wait_until(lambda: manual_sink.values("readings") == [1], "it is received")
        other = Receipt(journal="another", sequences=((1, 100),)).to_json()
        huge = json.dumps({"journal": box._journal.name, "sequences": [[0, 2**70]]}).encode()
        for payload in (other, huge, b"", b"{", b'{"journal": 3}'):
            other_client.publish("enphase/services/carbon-sink/receipts", payload).result(10)
        add(box, production(2))
        wait_until(lambda: manual_sink.values("readings") == [1, 2], "the next one is received")
    assert row_count(tmp_path) == 2


def test_without_receipts_the_brokers_acknowledgement_removes_a_row(
    outbox: Running, manual_sink: ManualSink, tmp_path: Path
) -> None:
    """JOURNAL_RECEIPTS_FROM=none: what a subscriber was there for leaves the journal."""
    with outbox(receipts_from="none") as box:
        add(box, production(1), production(2))
        wait_until(lambda: box.counters["readings_receipted"] == 2, "both are removed")
    assert row_count(tmp_path) == 0


@pytest.mark.mosquitto
def test_a_publication_without_a_subscriber_stays_in_the_journal(
    outbox: Running, mqtt: Settings, tmp_path: Path
) -> None:
    """The broker's reason code 0x10 does not count as delivered, also without receipts."""
    with outbox(receipts_from="none") as box:
        add(box, production(1))
        wait_until(lambda: box._unreceipted, "the broker has acknowledged")
    assert row_count(tmp_path) == 1


def test_after_a_half_open_connection_only_the_newest_is_published_on_readings_again(
    outbox: Running, broker: Server, manual_sink: ManualSink
) -> None:
    """What the broker has forwarded without its acknowledgement arriving is resent on history/: times never go back."""
    with Proxy(broker.port) as proxy, outbox(port=proxy.port) as box:
        add(box, production(0))
        wait_until(lambda: manual_sink.values("readings") == [0], "it is received")
        proxy.drop_responses()
        for number in range(1, 6):
            add(box, production(number))
            wait_until(lambda: number in manual_sink.values("readings"), "it is received")  # noqa: B023

        proxy.reset_all()

        wait_until(lambda: len(manual_sink.values("history")) == 4, "what may be lost is resent")
        wait_until(lambda: manual_sink.values("readings")[-2:] == [5, 5], "the newest too")
        assert manual_sink.values("readings") == [0, 1, 2, 3, 4, 5, 5]
        assert sorted(manual_sink.values("history")) == [1, 2, 3, 4]
        manual_sink.publish_receipts()
        wait_until(lambda: box.counters["readings_receipted"] == 6, "all are receipted")


def test_a_reading_that_breaks_the_connection_delays_no_other(
    outbox: Running, broker: Server, manual_sink: ManualSink, tmp_path: Path
) -> None:
    """It is found by publishing one at a time, and waits; the connection breaks twice and no more."""
    with Journal(tmp_path / "journal.sqlite", keep_days=7, max_mb=10) as journal:
        journal.add(SERIAL, [production(number) for number in range(6)], time.time())
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as database, database:
        enlarged = "UPDATE readings SET payload = CAST(payload || ? AS BLOB) WHERE sequence = 1"
        database.execute(enlarged, [" " * 100_000])

    with Proxy(broker.port) as proxy:
        proxy.cut_after(50_000)
        with outbox(port=proxy.port, resend_after_s=1000) as box:
            wait_until(lambda: proxy.cuts, "the connection breaks")
            add(box, *(production(number) for number in range(6, 9)))

            wait_until(
                lambda: set(range(1, 9)) == {*manual_sink.values("history"), *manual_sink.values("readings")},
                "all others",
            )
            wait_until(lambda: 1 in box._unreceipted, "it waits")
            assert proxy.cuts == 2


def test_while_nothing_has_a_receipt_one_reading_at_a_time_is_resent(
    outbox: Running, manual_sink: ManualSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Carbon is away for a day, readings wait at the broker and are not copied every two minutes."""
    monkeypatch.setattr(shared.outbox, "HOUSEKEEPING_INTERVAL_S", 1.0)
    with outbox() as box:
        add(box, *(production(number) for number in range(50)))
        wait_until(
            lambda: len(manual_sink.values("readings") + manual_sink.values("history")) == 50, "all are received"
        )

        wait_until(lambda: box.counters["readings_resent"] >= 3, "three resends")

        assert len(manual_sink.receive()) < 60
        manual_sink.publish_receipts()
        wait_until(lambda: box.counters["readings_receipted"] == 50, "all are receipted")


def test_a_receipt_for_a_later_reading_has_the_earlier_ones_resent(
    outbox: Running, manual_sink: ManualSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were lost, and all of them are resent at once."""
    monkeypatch.setattr(shared.outbox, "HOUSEKEEPING_INTERVAL_S", 1.0)
    with outbox(resend_after_s=4.0) as box:
        add(box, *(production(number) for number in range(30)))
        wait_until(
            lambda: len(manual_sink.values("readings") + manual_sink.values("history")) == 30, "all are received"
        )
        add(box, production(30))
        wait_until(lambda: 30 in manual_sink.values("readings"), "the newest is received")
        assert box.counters["readings_resent"] == 0
        manual_sink.received = [message for message in manual_sink.received if b'"power_w":30.0' in message.payload]
        manual_sink.publish_receipts()

        wait_until(lambda: len(manual_sink.values("history")) == 30, "the others are resent")

        assert sorted(manual_sink.values("history")) == list(range(30))
        assert box.counters["readings_resent"] == 30


def test_on_a_full_disk_readings_are_published_without_the_journal(outbox: Running, manual_sink: ManualSink) -> None:
    """They have no row number, and are counted; once there is space they are journaled again."""
    with outbox() as box:
        add(box, production(0))
        wait_until(lambda: manual_sink.values("readings") == [0], "it is received")
        (pages,) = box._journal._database.execute("PRAGMA page_count").fetchone()
        box._journal._database.execute(f"PRAGMA max_page_count = {pages}")
        many = [production(number) for number in range(1, 500)]
        box.add(SERIAL, many)
        wait_until(lambda: 499 in manual_sink.values("readings"), "they are received")
        box._journal._database.execute("PRAGMA max_page_count = 1000000")
        add(box, production(500))
        wait_until(lambda: 500 in manual_sink.values("readings"), "the next one is received")

        assert box.counters["readings_not_journaled"] == len(many)
    journaled = [message for message in manual_sink.received if "sequence" in message.user_properties]
    assert [json.loads(message.payload)["power_w"] for message in journaled] == [0, 500]


def test_while_the_queue_of_the_mqtt_client_is_full_readings_wait(
    outbox: Running, manual_sink: ManualSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is lost, and the outbox continues."""
    with outbox() as box:
        publish, failures = box._connection.publish, iter(range(5))

        def publish_later(topic: str, *arguments: Any, **keywords: Any) -> Future[Publication]:
            if next(failures, None) is not None:
                raise QueueFull("full")
            return publish(topic, *arguments, **keywords)

        monkeypatch.setattr(box._connection, "publish", publish_later)
        add(box, *(production(number) for number in range(10)))

        wait_until(
            lambda: len(manual_sink.values("readings") + manual_sink.values("history")) == 10, "all are received"
        )
