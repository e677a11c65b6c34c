"""A full disk, clocks that jump, a large backlog, and what other subscribers notice of all this: nothing."""

import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import whisper
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from shared.journal import Journal
from shared.readings import Production
from tests.conftest import SERIAL
from tests.faults.pipeline import fill, prepared_pipeline, random_delay, running_pipeline, small_disk
from tests.programs import HOST, Program, wait_until

DAY_S = 86_400
BACKLOG = 20_000
DRAIN_DEADLINE_S = 240


@pytest.mark.root
def test_a_full_disk_of_the_journal_delays_no_reading(tmp_path: Path) -> None:
    """Readings are published without the journal, which is reported and counted; what it holds still drains."""
    with small_disk(tmp_path / "poller", 2000) as filler, running_pipeline(tmp_path) as pipeline:
        pipeline.sink.stop()
        pipeline.wait_for_polls(3)
        fill(filler)
        pipeline.wait_for_polls(3)
        fill(filler)  # also the reserve, which the poller has released
        pipeline.wait_for_polls(5)
        assert "No space left" in pipeline.poller.output or "disk is full" in pipeline.poller.output
        pipeline.sink.start()

        pipeline.assert_everything_arrives()
        wait_until(lambda: pipeline.metric("readings_not_journaled") > 0, "it is counted")
        filler.unlink()
        pipeline.assert_everything_arrives()
        wait_until(lambda: pipeline.metric("journal_rows") < 60, "the journal drains")


WITH_CLOCK_SHIFT = """
import os
import time
from pathlib import Path
shift, true_time = Path(os.environ["CLOCK_SHIFT_FILE"]), time.time
time.time = lambda: true_time() + float(shift.read_text())
from services.{service}.__main__ import main
raise SystemExit(main())
"""


class ClockShift:
    """A file with the seconds by which a service's clock is ahead."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock-shift"

    def set(self, seconds: float) -> None:
        """Set the service's clock."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)

    def applied_to(self, service: Program, name: str) -> Program:
        """Return a service with this clock."""
        return Program(
            [sys.executable, "-c", WITH_CLOCK_SHIFT.format(service=name)],
            self._file.with_name(f"{name}.log"),
            service._environment | {"CLOCK_SHIFT_FILE": str(self._file)},
        )


def test_jumps_of_the_pollers_clock_expire_nothing(tmp_path: Path) -> None:
    """Polls continue, times stay the gateway's, and no waiting reading is taken for a year old.

    While the poller's clock is far behind, each reading is from the future and must not be published: by
    the clocks alone it cannot be known whose is wrong. Exactly those readings are missing.
    """
    with prepared_pipeline(tmp_path) as pipeline:
        clock = ClockShift(tmp_path)
        clock.set(0)
        pipeline.poller = clock.applied_to(pipeline.poller, "poller")
        pipeline.start()
        pipeline.broker.kill()
        pipeline.wait_for_polls(2)
        clock.set(400 * DAY_S)
        pipeline.wait_for_polls(11)  # housekeeping of the journal comes every ten seconds
        clock.set(400 * DAY_S - 30)
        pipeline.wait_for_polls(3)
        behind_since = time.time()
        clock.set(-400 * DAY_S)
        pipeline.wait_for_polls(3)
        behind_until = time.time()
        clock.set(0)
        pipeline.wait_for_polls(3)
        pipeline.broker.start()

        # The poll in progress when the clock is set back may be taken by either clock.
        rejected = frozenset(pipeline.served(behind_since, behind_until))
        pipeline.assert_everything_arrives(rejected=rejected, lost_polls=1)
        assert pipeline.metric("readings_expired") == 0
        assert "the clock jumped" in pipeline.poller.output


def test_a_sink_whose_clock_is_behind_at_first_stores_everything_later(tmp_path: Path) -> None:
    """A machine without a clock starts in the past: what seems to be in the future is rejected and resent."""
    with prepared_pipeline(tmp_path) as pipeline:
        clock = ClockShift(tmp_path)
        clock.set(-400 * DAY_S)
        pipeline.sink = clock.applied_to(pipeline.sink, "carbon_sink")
        pipeline.run(pipeline.broker, pipeline.carbon, pipeline.sink, pipeline.poller)
        wait_until(lambda: "in the future" in pipeline.sink.output, "the sink rejects readings")
        pipeline.wait_for_polls(5)
        clock.set(0)

        pipeline.assert_everything_arrives()


@pytest.mark.mosquitto
def test_a_large_backlog_delays_no_fresh_reading(tmp_path: Path) -> None:
    """Readings that are served while the first tenth of the backlog drains are stored before it is drained."""
    begin = int(time.time()) - BACKLOG - 100
    with Journal(tmp_path / "poller" / "journal.sqlite", keep_days=7, max_mb=256) as journal:
        for start in range(0, BACKLOG, 1000):
            rows = [
                Production(timestamp=begin + number, power_w=float(number), source="meter")
                for number in range(start, start + 1000)
            ]
            journal.add(SERIAL, rows, time.time())
    file = tmp_path / "graphite" / "whisper" / "enphase" / SERIAL / "production" / "power_w.wsp"
    file.parent.mkdir(parents=True)
    whisper.create(str(file), [(1, DAY_S)])

    def drained() -> int:
        _times, values = whisper.fetch(str(file), begin - 1, begin + BACKLOG - 1)
        return sum(value is not None for value in values)

    with running_pipeline(tmp_path) as pipeline:
        wait_until(lambda: drained() >= BACKLOG // 10, "a tenth of the backlog", DRAIN_DEADLINE_S)
        fresh = max(pipeline.served())
        wait_until(lambda: max(pipeline.stored()) >= fresh, "a fresh reading")
        assert drained() < BACKLOG

        wait_until(lambda: drained() == BACKLOG, "all of the backlog", DRAIN_DEADLINE_S)
        pipeline.assert_everything_arrives()
        _times, values = whisper.fetch(str(file), begin - 1, begin + BACKLOG - 1)
        assert values == [float(number) for number in range(BACKLOG)]
        wait_until(lambda: pipeline.metric("readings_receipted") >= BACKLOG, "a receipt for each")


@contextmanager
def another_subscriber(port: int) -> Iterator[dict[str, list[tuple[int, int]]]]:
    """Yield the times and journal rows that another MQTT client receives, by topic."""
    received: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def note(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        if not message.retain:
            row = int(dict(message.properties.UserProperty)["sequence"])  # type: ignore[union-attr]
            received[message.topic].append((json.loads(message.payload)["timestamp"], row))

    def subscribe(client: Client, *_connack: object) -> None:
        client.subscribe("enphase/+/readings/#", qos=1)

    client = Client(CallbackAPIVersion.VERSION2, "another subscriber", protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = note
    client.on_connect = subscribe
    client.reconnect_delay_set(1, 1)
    client.connect(HOST, port)
    client.loop_start()
    yield received
    client.disconnect()
    client.loop_stop()


@pytest.mark.parametrize("programs", [["sink", "poller", "carbon", "poller"], ["poller", "broker", "sink", "broker"]])
def test_kills_do_not_disturb_other_subscribers(tmp_path: Path, programs: list[str]) -> None:
    """On ``readings/`` the times of each kind move forward, and nothing that is resent appears there."""
    chance = random.Random(5)
    with running_pipeline(tmp_path) as pipeline, another_subscriber(pipeline.broker.port) as received:
        for name in programs:
            program = getattr(pipeline, name)
            pipeline.wait_for_polls(2)
            program.kill()
            random_delay(chance, 2)
            program.start()
        pipeline.assert_everything_arrives(lost_polls=programs.count("poller"))

        assert any("grid" in topic for topic in received)
        for topic, readings in received.items():
            times, rows = zip(*readings, strict=True)
            assert list(times) == sorted(times), topic
            # A broker may repeat what was unacknowledged when it was killed: MQTT's "at least once".
            assert "broker" in programs or len(rows) == len(set(rows)), topic
