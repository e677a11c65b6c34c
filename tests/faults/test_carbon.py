"""Rows C and S of the fault matrix: Carbon and the sink killed, stopped, cut off and poisoned.

Each ends with the oracle: what was published is in Whisper at its time with its value, nothing else is, and a fresh
reading passes.
"""

import json
import random
import signal
import time
from pathlib import Path

import pytest

import services.carbon_sink.carbon
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
    """Publishes readings, remembers each, and checks what is stored."""

    def __init__(self, publisher: Connection, home: Path) -> None:
        self._publisher = publisher
        self._home = home
        self._begin = now_in_slot() - 20_000
        self.published: dict[int, float] = {}
        self.receipted: set[int] = set()

    def publish(self, count: int, pause_s: float = 0.0) -> None:
        """Publish so many readings, each with a value of its own."""
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

    def all_is_stored(self) -> None:
        """Fail unless all that was published is stored as it was, and a fresh reading passes."""
        self.publish(1)
        for timestamp, power_w in self.published.items():
            wait_until(lambda: stored(self._home, PATH, timestamp) == power_w, f"{power_w} at {timestamp}")  # noqa: B023
        for timestamp in range(self._begin - 100, self._begin + 10 * len(self.published) + 100, 10):
            assert stored(self._home, PATH, timestamp) == self.published.get(timestamp)

    def hear(self) -> set[int]:
        """Return the rows that are receipted so far."""
        message = self._publisher.receive(0.05)
        if isinstance(message, Message):
            self._publisher.acknowledge(message)
            if message.topic.endswith("/receipts"):
                for first, last in Receipt.from_json(message.payload).sequences:
                    self.receipted |= set(range(first, last + 1))
        return self.receipted

    def all_is_receipted(self) -> None:
        """Fail unless each reading is receipted."""
        wait_until(lambda: len(self.hear()) == len(self.published), "a receipt for each reading")


@pytest.fixture
def feed(publisher: Connection, tmp_path: Path) -> Feed:
    """Return a feed of readings that go through the sink."""
    return Feed(publisher, tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_c1_carbon_killed_with_points_in_memory(feed: Feed, carbon: Server, seed: int) -> None:
    """What Carbon had read and not written is sent again when it is back."""
    feed.publish(COUNT)
    random_delay(random.Random(seed), 1.5)

    carbon.kill()
    carbon.start()

    feed.all_is_stored()
    feed.all_is_receipted()


@pytest.mark.parametrize("seed", range(3))
def test_c2_carbon_told_to_stop_with_points_in_memory(feed: Feed, carbon: Server, seed: int) -> None:
    """A SIGTERM loses what Carbon holds just as well; it is sent again."""
    feed.publish(COUNT)
    random_delay(random.Random(seed), 1)

    carbon.stop()
    carbon.start()

    feed.all_is_stored()


def test_c1_carbon_killed_again_while_points_are_sent_again(feed: Feed, carbon: Server) -> None:
    """Doubt that comes on top of doubt forgets nothing."""
    feed.publish(COUNT)
    for _kill in range(3):
        carbon.kill()
        feed.publish(5)
        carbon.start()
        feed.publish(5)

    feed.all_is_stored()


def test_c1_carbon_away_for_longer_than_it_takes_to_settle(feed: Feed, carbon: Server) -> None:
    """What was unsettled when Carbon went is unsettled when it comes back, however long that takes."""
    feed.publish(COUNT)
    carbon.kill()
    time.sleep(3)  # the duration is the fault: the fixture's sink settles after two

    carbon.start()

    feed.all_is_stored()


def test_c3_carbon_that_reads_no_more_is_not_believed(
    feed: Feed, carbon: Server, sink: Program, tmp_path: Path
) -> None:
    """A stopped Carbon accepts connections and reads nothing: no reading is acknowledged on its word."""
    feed.publish(1)
    feed.all_is_stored()
    carbon.process.send_signal(signal.SIGSTOP)
    try:
        feed.publish(COUNT)
        wait_until(lambda: "timed out" in sink.output, "the sink gives up on the proof")
        told = check_health(tmp_path / "carbon_sink" / "health", time.time())
        assert not told.ok
        assert "readings wait at the broker" in told.text
    finally:
        carbon.process.send_signal(signal.SIGCONT)

    feed.all_is_stored()


def test_c3_carbon_that_hangs_and_then_dies_is_given_no_receipt(feed: Feed, carbon: Server) -> None:
    """Its connections stand while it hangs, for longer than it takes to settle; what it had read is sent again."""
    feed.publish(1)
    feed.all_is_stored()
    feed.publish(COUNT)
    time.sleep(0.6)  # read, but for the most part not written
    carbon.process.send_signal(signal.SIGSTOP)
    time.sleep(4)  # the duration is the fault: the fixture's sink settles after two
    carbon.kill()
    carbon.start()

    feed.all_is_stored()
    feed.all_is_receipted()


def test_c5_carbon_restarted_under_an_idle_sink(feed: Feed, carbon: Server) -> None:
    """The first batch after a restart is not lost to a dead connection."""
    feed.publish(1)
    feed.all_is_stored()
    carbon.kill()
    carbon.start()

    feed.all_is_stored()


def test_c5_a_carbon_that_closes_idle_connections(
    broker: Server, carbon: Server, tmp_path: Path, publisher: Connection, sink: Program
) -> None:
    """As go-carbon and carbon-relay-ng do: what it closes is taken for a restart, and yet everything is receipted."""
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

            feed.all_is_stored()
            feed.all_is_receipted()
            assert "points again" in idle.output


def test_c5_the_held_connection_is_renewed_before_it_is_idle_for_long(
    carbon: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Carbon that closes idle connections is not taken for one that restarts; one that ends, still is."""
    monkeypatch.setattr(services.carbon_sink.carbon, "RENEW_AFTER_S", 0.5)
    with Proxy(carbon.port) as proxy:
        proxy.close_idle_after(1.5)
        store = Carbon([(HOST, proxy.port)])
        store.write([])
        for _look in range(40):
            assert store.uninterrupted()
            time.sleep(0.1)

        carbon.kill()

        wait_until(lambda: not store.uninterrupted(), "its end is noticed")


def test_c6_a_connection_reset_in_the_middle_of_a_batch(
    broker: Server, carbon: Server, tmp_path: Path, publisher: Connection, sink: Program
) -> None:
    """A batch that was cut off is sent again."""
    sink.stop()
    with Proxy(carbon.port) as proxy:
        environment = {"MQTT_PORT": str(broker.port), "CARBON_HOST": f"{HOST}:{proxy.port}", "STATE_DIR": str(tmp_path)}
        with Program.python("services.carbon_sink", log=tmp_path / "cut.log", environment=environment) as cut_off:
            feed = Feed(publisher, tmp_path)
            proxy.cut_after(300)
            feed.publish(COUNT)
            wait_until(lambda: proxy.cuts > 2, f"some cuts; {cut_off.output}")
            proxy.end_faults()

            feed.all_is_stored()


def test_c9_values_that_would_spoil_a_batch_never_reach_it(feed: Feed, publisher: Connection, tmp_path: Path) -> None:
    """NaN, infinity, huge integers and times out of range are kept as dead letters; their neighbours are stored."""
    topic = publisher.topics.history(SERIAL, "production")
    now = int(time.time())
    spoilt = [
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
    poison = [f'{{"timestamp": {timestamp}, "power_w": {power_w}, "source": "meter"}}' for timestamp, power_w in spoilt]
    for payload in poison:
        feed.publish(3)
        publisher.publish(topic, payload.encode()).result(10)

    feed.all_is_stored()
    kept = (tmp_path / "carbon_sink" / "dead-letters.jsonl").read_text().splitlines()
    assert [json.loads(line)["payload"] for line in kept] == [payload[:1000] for payload in poison]


def test_s1_sink_killed_in_the_middle_of_batches(feed: Feed, sink: Program) -> None:
    """What it had not acknowledged comes again to its successor."""
    for _kill in range(4):
        feed.publish(15)
        sink.kill()
        sink.start()

    feed.all_is_stored()


def test_s2_poison_between_readings_is_never_delivered_for_ever(
    feed: Feed, publisher: Connection, sink: Program
) -> None:
    """Each message that is no reading is passed over once, also after a restart."""
    for rubbish in (b"", b"<html>", b"[" * 100_000, b"\xff", b'{"timestamp": 1}'):
        publisher.publish(publisher.topics.reading(SERIAL, "grid"), rubbish).result(10)
        feed.publish(2)
    feed.all_is_stored()
    told = sink.output.count("passed over")
    sink.stop()
    sink.start()

    feed.all_is_stored()
    assert sink.output.count("passed over") == told


def test_s2_what_can_never_be_stored_is_receipted(feed: Feed, publisher: Connection) -> None:
    """Or its publisher would send it again for ever; what only our clock may be wrong about is not."""
    feed.publish(2)
    topic = publisher.topics.history(SERIAL, "production")
    ahead = f'{{"timestamp": {int(time.time()) + 3600}, "power_w": 1, "source": "meter"}}'.encode()
    for row, payload in ((100, b"<html>"), (101, b'{"timestamp": 1, "power_w": "1"}'), (102, ahead)):
        publisher.publish(topic, payload, user_properties={"journal": "feed", "sequence": str(row)}).result(10)
    feed.publish(2)

    wait_until(lambda: feed.hear() >= {0, 1, 2, 3, 100, 101}, "receipts")
    assert 102 not in feed.hear()


def test_s3_broker_that_lost_its_memory_with_a_batch_pending(
    feed: Feed, broker: Server, carbon: Server, publisher: Connection, sink: Program, tmp_path: Path
) -> None:
    """Acknowledgements of the lost session are thrown away: none of them hits a new message of the same number."""
    carbon.kill()
    feed.publish(5)
    wait_until(lambda: "readings wait at the broker" in sink.output, "a batch is pending")
    broker.kill()
    for memory in tmp_path.rglob("mosquitto.db"):
        memory.unlink()
    broker.start()
    wait_until(lambda: sink.output.count("connected to the broker") == 2, "the sink is back")
    wait_until(lambda: publisher.connected, "the publisher is back")
    carbon.start()

    feed.publish(20)

    feed.all_is_stored()


def test_several_carbons_the_next_one_is_used_when_the_first_is_lost(
    broker: Server, carbon: Server, publisher: Connection, sink: Program, tmp_path: Path
) -> None:
    """CARBON_HOST with two addresses: readings go to the first that answers, unsettled ones again to the next."""
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
        wait_until(lambda: stored(tmp_path, PATH, timestamp) == power_w, "the first has it")

        carbon.kill()

        feed.all_is_stored()
