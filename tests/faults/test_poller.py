"""Rows P3, P5 and P6 of the fault matrix, and what other subscribers notice of all this: nothing."""

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
from tests.faults.house import fill, house_in, pause, small_disk, standing_house
from tests.programs import HOST, Program, wait_until

DAY_S = 86_400
BACKLOG = 20_000
DRAIN_S = 60
FRESH_WITHIN_S = 10
"""A second until the next poll, one until the sink's batch is full, one until Carbon writes; and a busy machine."""


@pytest.mark.root
def test_p3_the_journals_disk_is_full(tmp_path: Path) -> None:
    """Readings go out without being kept, which is told and counted; what was kept still drains."""
    with small_disk(tmp_path / "poller", 2000) as filler, standing_house(tmp_path) as house:
        house.sink.stop()
        house.poll_on(3)
        fill(filler)
        house.poll_on(3)
        fill(filler)  # the reserve, too, which the poller has set free
        house.poll_on(5)
        assert "without being kept" in house.poller.output
        assert "make room" in house.poller.output
        house.sink.start()

        house.everything_arrives()
        wait_until(lambda: house.metric("readings_not_journaled") > 0, "it is counted")
        filler.unlink()
        house.everything_arrives()
        wait_until(lambda: house.metric("journal_rows") < 60, "the journal drains", 40)


WITH_ANOTHER_CLOCK = """
import os
import time
from pathlib import Path
shift, true_time = Path(os.environ["CLOCK_SHIFT_FILE"]), time.time
time.time = lambda: true_time() + float(shift.read_text())
from services.{service}.__main__ import main
raise SystemExit(main())
"""


def with_another_clock(service: Program, name: str, shift: Path) -> Program:
    """Return a service whose clock is ahead of ours by the seconds that stand in a file."""
    return Program(
        [sys.executable, "-c", WITH_ANOTHER_CLOCK.format(service=name)],
        shift.with_name(f"{name}.log"),
        service._environment | {"CLOCK_SHIFT_FILE": str(shift)},
    )


def test_p5_the_pollers_clock_jumps(tmp_path: Path) -> None:
    """Polls go on at their pace, times stay the gateway's, and nothing that waits is taken for a year old."""
    with house_in(tmp_path) as house:
        shift = tmp_path / "shift"

        def set_clock(seconds: float) -> None:
            new = shift.with_suffix(".new")
            new.write_text(str(seconds))
            new.replace(shift)

        set_clock(0)
        house.poller = with_another_clock(house.poller, "poller", shift)
        house.start()
        house.broker.kill()
        house.poll_on(2)
        for seconds in (400 * DAY_S, 400 * DAY_S - 30, -400 * DAY_S, 0):
            set_clock(seconds)
            began = time.monotonic()
            house.poll_on(11 if seconds == 400 * DAY_S else 3)  # the journal is looked after every ten seconds
            assert time.monotonic() - began < 20
        house.broker.start()

        # The poller drops up to two readings while it doubts the clocks.
        house.everything_arrives(but=3)
        assert "were given up" not in house.poller.output
        assert "the clock was set" in house.poller.output


def test_p5_the_sinks_clock_is_wrong_at_first(tmp_path: Path) -> None:
    """A machine without a clock starts in the past: what seems to be of the future is refused, and comes again."""
    with house_in(tmp_path) as house:
        shift = tmp_path / "shift"
        shift.write_text(str(-400 * DAY_S))
        house.sink = with_another_clock(house.sink, "carbon_sink", shift)
        house.run(house.broker, house.carbon, house.sink, house.poller)
        wait_until(lambda: "in the future" in house.sink.output, "the sink refuses readings")
        house.poll_on(5)
        right = shift.with_suffix(".new")
        right.write_text("0")
        right.replace(shift)

        house.everything_arrives()


@pytest.mark.mosquitto
def test_p6_a_long_outage_leaves_a_large_journal(tmp_path: Path) -> None:
    """All of it drains at hundreds a second, and fresh readings never wait for it."""
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

    with standing_house(tmp_path) as house:
        began = time.monotonic()
        while (done := drained()) < BACKLOG:
            assert time.monotonic() - began < DRAIN_S, f"{done} of {BACKLOG} drained"
            late_s = max(house.served()) - max(house.stored())
            assert late_s <= FRESH_WITHIN_S
            pause(0.5)
        rate = BACKLOG / (time.monotonic() - began)
        print(f"drained {BACKLOG} readings at {rate:.0f} a second")  # noqa: T201 - with pytest -s

        house.everything_arrives()
        _times, values = whisper.fetch(str(file), begin - 1, begin + BACKLOG - 1)
        assert values == [float(number) for number in range(BACKLOG)]
        wait_until(lambda: house.metric("readings_receipted") >= BACKLOG, "each has its receipt", DRAIN_S)


@contextmanager
def other_subscriber(port: int) -> Iterator[dict[str, list[tuple[int, int]]]]:
    """Yield the times and journal rows that somebody else's MQTT client hears, by topic."""
    heard: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def note(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        if not message.retain:
            row = int(dict(message.properties.UserProperty)["sequence"])  # type: ignore[union-attr]
            heard[message.topic].append((json.loads(message.payload)["timestamp"], row))

    def listen(client: Client, *_connack: object) -> None:
        client.subscribe("enphase/+/readings/#", qos=1)

    client = Client(CallbackAPIVersion.VERSION2, "somebody else", protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = note
    client.on_connect = listen
    client.reconnect_delay_set(1, 1)
    client.connect(HOST, port)
    client.loop_start()
    yield heard
    client.disconnect()
    client.loop_stop()


@pytest.mark.parametrize("broker_too", [False, True])
def test_other_subscribers_are_not_disturbed(tmp_path: Path, broker_too: bool) -> None:  # noqa: FBT001 - pytest's parameter
    """On ``readings/`` each kind's times go forward, whatever is killed; what is sent again is not heard there."""
    chance = random.Random(5)
    with standing_house(tmp_path) as house, other_subscriber(house.broker.port) as heard:
        victims = [house.sink, house.poller, house.carbon, house.poller, *([house.broker] * 2 if broker_too else [])]
        for victim in victims:
            house.poll_on(2)
            victim.kill()
            pause(chance.uniform(0, 2))
            victim.start()
        house.everything_arrives(but=3)

        assert any("grid" in topic for topic in heard)
        for topic, readings in heard.items():
            times, rows = zip(*readings, strict=True)
            assert list(times) == sorted(times), topic
            # The broker itself may repeat what was on its way when it died: MQTT's "at least once".
            assert broker_too or len(rows) == len(set(rows)), topic
