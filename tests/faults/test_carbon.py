"""Faults of Carbon and of the sink: killed, stopped, disconnected, and given invalid messages.

Each test ends with the same checks: each published reading is in Whisper at its time with its value, nothing else is,
and a fresh reading arrives.
"""

import json
import random
import signal
import time
from pathlib import Path

import pytest

from services.carbon_sink import sentinel
from services.carbon_sink.carbon import Carbon
from shared.health import check_health
from shared.messages import Receipt
from shared.mqtt import Connection, Message
from shared.readings import Production
from tests.conftest import SERIAL, Server
from tests.faults.pipeline import random_delay
from tests.faults.proxy import Proxy
from tests.programs import HOST, Program, free_port, now_in_slot, stored, wait_until

PATH = f"enphase.{SERIAL}.production.power_w"
COUNT = 60


class Feed:
    """Publishes readings, and checks what is stored and receipted."""

    def __init__(self, publisher: Connection, home: Path) -> None:
        self._publisher = publisher
        self._home = home
        self._begin = now_in_slot() - 20_000
        self.published: dict[int, float] = {}
        self.receipted: set[int] = set()

    def publish(self, count: int, pause_s: float = 0.0) -> None:
        """Publish readings, each with a different value."""
        for _reading in range(count):
            number = len(self.published)
            timestamp, power_w = self._begin + 10 * number, number + 0.25
            reading = Production(timestamp=timestamp, power_w=power_w, source="meter")
            topic = self._publisher.topics.history(SERIAL, reading.kind)
            self.published[timestamp] = power_w
            self._publisher.publish(
                topic, reading.to_json(), user_properties={"journal": "feed", "sequence": str(number)}
            ).result(30)
            time.sleep(pause_s)

    def assert_everything_is_stored(self) -> None:
        """Fail unless exactly what was published is stored, together with a fresh reading."""
        self.publish(1)
        for timestamp, power_w in self.published.items():
            self._wait_until_stored(timestamp, power_w)
        for timestamp in range(self._begin - 100, self._begin + 10 * len(self.published) + 100, 10):
            assert stored(self._home, PATH, timestamp) == self.published.get(timestamp)

    def _wait_until_stored(self, timestamp: int, power_w: float) -> None:
        wait_until(lambda: stored(self._home, PATH, timestamp) == power_w, f"{power_w} at {timestamp}")

    def receive_receipts(self) -> set[int]:
        """Return the rows that have been receipted so far."""
        message = self._publisher.receive(0.05)
        if isinstance(message, Message):
            self._publisher.acknowledge(message)
            if message.topic.endswith("/receipts"):
                for first, last in Receipt.from_json(message.payload).sequences:
                    self.receipted |= set(range(first, last + 1))
        return self.receipted

    def assert_everything_is_receipted(self) -> None:
        """Fail unless each reading gets a receipt."""
        wait_until(lambda: len(self.receive_receipts()) == len(self.published), "a receipt for each reading")


@pytest.fixture
def feed(publisher: Connection, tmp_path: Path) -> Feed:
    """Return a feed of readings to the sink."""
    return Feed(publisher, tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_carbon_killed_with_points_in_memory_gets_them_again(feed: Feed, carbon: Server, seed: int) -> None:
    """The sink resends what Carbon has read and may not have written."""
    feed.publish(COUNT)
    random_delay(random.Random(seed), 1.5)

    carbon.kill()
    carbon.start()

    feed.assert_everything_is_stored()
    feed.assert_everything_is_receipted()


@pytest.mark.parametrize("seed", range(3))
def test_carbon_stopped_with_points_in_memory_gets_them_again(feed: Feed, carbon: Server, seed: int) -> None:
    """Carbon loses them on SIGTERM too."""
    feed.publish(COUNT)
    random_delay(random.Random(seed), 1)

    carbon.stop()
    carbon.start()

    feed.assert_everything_is_stored()


def test_carbon_killed_during_a_resend_loses_nothing(feed: Feed, carbon: Server) -> None:
    """An interrupted resend starts from the beginning."""
    feed.publish(COUNT)
    for _kill in range(3):
        carbon.kill()
        feed.publish(5)
        carbon.start()
        feed.publish(5)

    feed.assert_everything_is_stored()


def test_an_outage_longer_than_the_settling_time_loses_nothing(feed: Feed, carbon: Server) -> None:
    """A batch does not settle while Carbon is down."""
    feed.publish(COUNT)
    carbon.kill()
    time.sleep(3)  # the duration is the fault: the fixture's sink settles after two

    carbon.start()

    feed.assert_everything_is_stored()


def test_a_carbon_that_accepts_connections_but_does_not_read_gets_everything_again(
    feed: Feed, carbon: Server, sink: Program, tmp_path: Path
) -> None:
    """No reading is acknowledged without the proof that Carbon has read it, and the health reports the fault."""
    feed.publish(1)
    feed.assert_everything_is_stored()
    carbon.process.send_signal(signal.SIGSTOP)
    try:
        feed.publish(COUNT)
        wait_until(lambda: "timed out" in sink.output, "the write times out")
        health = check_health(tmp_path / "carbon_sink" / "health", time.time())
        assert not health.ok
        assert "readings wait at the broker" in health.text
    finally:
        carbon.process.send_signal(signal.SIGCONT)

    feed.assert_everything_is_stored()


def test_a_carbon_that_hangs_and_is_then_killed_gets_everything_again(feed: Feed, carbon: Server) -> None:
    """Its connections stay open while it hangs, longer than the settling time, and yet there is no receipt."""
    feed.publish(1)
    feed.assert_everything_is_stored()
    feed.publish(COUNT)
    time.sleep(0.6)  # read, but for the most part not written
    carbon.process.send_signal(signal.SIGSTOP)
    time.sleep(4)  # the duration is the fault: the fixture's sink settles after two
    carbon.kill()
    carbon.start()

    feed.assert_everything_is_stored()
    feed.assert_everything_is_receipted()


def test_carbon_restarted_while_the_sink_is_idle_gets_the_next_batch(feed: Feed, carbon: Server) -> None:
    """The first write after a restart does not go to the old connection."""
    feed.publish(1)
    feed.assert_everything_is_stored()
    carbon.kill()
    carbon.start()

    feed.assert_everything_is_stored()


def test_a_carbon_that_closes_idle_connections_gets_everything_again(
    broker: Server, carbon: Server, tmp_path: Path, publisher: Connection, sink: Program
) -> None:
    """The sink takes each closed connection for a restart, and yet everything gets a receipt."""
    sink.stop()
    with Proxy(carbon.port) as proxy:
        proxy.close_idle_after(4)
        environment = {"MQTT_PORT": str(broker.port), "CARBON_HOST": f"{HOST}:{proxy.port}", "STATE_DIR": str(tmp_path)}
        settled = environment | {"CARBON_SETTLE_S": "2"}
        with Program.python("services.carbon_sink", log=tmp_path / "idle.log", environment=settled) as idle:
            feed = Feed(publisher, tmp_path)
            for _second in range(10):
                feed.publish(5, pause_s=0.2)
            assert proxy.cuts > 0

            feed.assert_everything_is_stored()
            feed.assert_everything_is_receipted()
            assert "resending" in idle.output


def test_the_sentinel_connection_is_replaced_before_it_is_closed_as_idle(
    carbon: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the idle timeout of go-carbon or carbon-relay-ng is not taken for a restart, and a real end is noticed."""
    monkeypatch.setattr(sentinel, "RENEW_INTERVAL_S", 0.5)
    with Proxy(carbon.port) as proxy:
        proxy.close_idle_after(1.5)
        store = Carbon([(HOST, proxy.port)])
        store.write([])
        for _look in range(40):
            store.maintain_sentinel()
            assert store.uninterrupted
            time.sleep(0.1)

        carbon.kill()

        def interrupted() -> bool:
            store.maintain_sentinel()
            return not store.uninterrupted

        wait_until(interrupted, "its end is noticed")


def test_a_batch_whose_connection_is_reset_is_resent(
    broker: Server, carbon: Server, tmp_path: Path, publisher: Connection, sink: Program
) -> None:
    """Carbon may have read a part of it, which is harmless."""
    sink.stop()
    with Proxy(carbon.port) as proxy:
        environment = {"MQTT_PORT": str(broker.port), "CARBON_HOST": f"{HOST}:{proxy.port}", "STATE_DIR": str(tmp_path)}
        with Program.python("services.carbon_sink", log=tmp_path / "reset.log", environment=environment) as resetting:
            feed = Feed(publisher, tmp_path)
            proxy.cut_after(300)
            feed.publish(COUNT)
            wait_until(lambda: proxy.cuts > 2, f"some connections are reset; {resetting.output}")
            proxy.end_faults()

            feed.assert_everything_is_stored()


def test_values_that_carbon_cannot_store_are_kept_as_dead_letters(
    feed: Feed, publisher: Connection, tmp_path: Path
) -> None:
    """NaN, infinity, huge integers and times out of range do not reach Carbon; the readings around them do."""
    topic = publisher.topics.history(SERIAL, "production")
    now = int(time.time())
    invalid = [
        (f"{now}", "NaN"),
        (f"{now}", "1e999"),
        (f"{now}", "1" + "0" * 400),
        (f"{now * 1000}", "1"),
        (f"{now + 86_400}", "1"),
        ("1", "1"),
        ("-1", "1"),
        (f"{now}.5", "1"),
        ('"now"', "1"),
    ]
    payloads = [
        f'{{"timestamp": {timestamp}, "power_w": {power_w}, "source": "meter"}}' for timestamp, power_w in invalid
    ]
    for payload in payloads:
        feed.publish(3)
        publisher.publish(topic, payload.encode()).result(10)

    feed.assert_everything_is_stored()
    kept = (tmp_path / "carbon_sink" / "dead-letters.jsonl").read_text().splitlines()
    assert [json.loads(line)["payload"] for line in kept] == [payload[:1000] for payload in payloads]


def test_a_sink_killed_between_batches_loses_nothing(feed: Feed, sink: Program) -> None:
    """The broker delivers what it had not acknowledged to the next process."""
    for _kill in range(4):
        feed.publish(15)
        sink.kill()
        sink.start()

    feed.assert_everything_is_stored()


def test_an_invalid_message_is_delivered_once(feed: Feed, publisher: Connection, sink: Program) -> None:
    """It is acknowledged, so a restarted sink does not receive it again."""
    for invalid in (b"", b"<html>", b"[" * 100_000, b"\xff", b'{"timestamp": 1}'):
        publisher.publish(publisher.topics.reading(SERIAL, "grid"), invalid).result(10)
        feed.publish(2)
    feed.assert_everything_is_stored()
    rejected = sink.output.count("rejected a message")
    sink.stop()
    sink.start()

    feed.assert_everything_is_stored()
    assert sink.output.count("rejected a message") == rejected > 0


def test_an_invalid_message_gets_a_receipt_unless_the_clock_may_be_wrong(feed: Feed, publisher: Connection) -> None:
    """Its publisher would resend it for ever; a reading of the future can be stored once the clock is right."""
    feed.publish(2)
    topic = publisher.topics.history(SERIAL, "production")
    ahead = f'{{"timestamp": {int(time.time()) + 3600}, "power_w": 1, "source": "meter"}}'.encode()
    for row, payload in ((100, b"<html>"), (101, b'{"timestamp": 1, "power_w": "1"}'), (102, ahead)):
        publisher.publish(topic, payload, user_properties={"journal": "feed", "sequence": str(row)}).result(10)
    feed.publish(2)

    wait_until(lambda: feed.receive_receipts() >= {0, 1, 2, 3, 100, 101}, "receipts")
    assert 102 not in feed.receive_receipts()


def test_a_reading_with_an_impossible_row_number_is_stored(feed: Feed, publisher: Connection) -> None:
    """A row number that no receipt can contain gets none, and does not end the sink."""
    topic = publisher.topics.history(SERIAL, "inverter/1")
    payload = f'{{"timestamp": {int(time.time())}, "power_w": 1}}'.encode()
    for row in ("-1", "9" * 19, "9" * 5000, "\u0661"):
        publisher.publish(topic, payload, user_properties={"journal": "feed", "sequence": row}).result(10)
    feed.publish(2)

    feed.assert_everything_is_stored()
    feed.assert_everything_is_receipted()


def test_a_broker_that_loses_its_sessions_while_a_batch_waits_loses_no_later_reading(
    feed: Feed, broker: Server, carbon: Server, publisher: Connection, sink: Program, tmp_path: Path
) -> None:
    """Acknowledgements of the old session are dropped: each would acknowledge a new message of the same number."""
    carbon.kill()
    feed.publish(5)
    wait_until(lambda: "readings wait at the broker" in sink.output, "a batch waits for Carbon")
    broker.kill()
    for database in tmp_path.rglob("mosquitto.db"):
        database.unlink()
    broker.start()
    wait_until(lambda: sink.output.count("connected to the broker") == 2, "the sink has reconnected")
    wait_until(lambda: publisher.connected, "the publisher has reconnected")
    carbon.start()

    feed.publish(20)

    feed.assert_everything_is_stored()


def test_a_second_carbon_gets_everything_unsettled_when_the_first_fails(
    broker: Server, carbon: Server, publisher: Connection, sink: Program, tmp_path: Path
) -> None:
    """With two addresses in CARBON_HOST the sink writes to the first that accepts a connection."""
    sink.stop()
    other_home = tmp_path / "other"
    other_home.mkdir()
    other = Server.python(
        "deploy.local.carbon",
        log=tmp_path / "other.log",
        environment={"CARBON_PORT": str(port := free_port()), "STATE_DIR": str(other_home)},
    )
    other.port = port
    environment = {
        "MQTT_PORT": str(broker.port),
        "CARBON_HOST": f"{HOST}:{carbon.port}, {HOST}:{port}",
        "STATE_DIR": str(tmp_path),
    }
    with other, Program.python("services.carbon_sink", log=tmp_path / "two.log", environment=environment):
        feed = Feed(publisher, other_home)
        feed.publish(20)
        timestamp, power_w = next(iter(feed.published.items()))
        wait_until(lambda: stored(tmp_path, PATH, timestamp) == power_w, "the first has stored it")

        carbon.kill()

        feed.assert_everything_is_stored()
