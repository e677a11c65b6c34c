"""Rows B, P, S and X of the fault matrix: the broker and the poller killed, stopped, made to forget."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.faults.house import House, memory_mb, open_files, pause, standing_house
from tests.programs import HOST, wait_until


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Yield a house in which readings arrive."""
    with standing_house(tmp_path) as house:
        yield house


@pytest.mark.parametrize("seed", range(2))
def test_b1_broker_killed_and_started_again(house: House, seed: int) -> None:
    """Nothing is lost, whatever the broker had acknowledged and not saved."""
    chance = random.Random(seed)
    for _kill in range(2):
        house.poll_on(3)
        pause(chance.random())
        house.broker.kill()
        house.poll_on(2)
        house.broker.start()

    house.everything_arrives()


def test_b2_broker_killed_and_all_it_remembered_deleted(house: House) -> None:
    """What the broker forgot is published again by the poller."""
    house.poll_on(3)
    house.sink.stop()
    house.poll_on(3)
    house.broker.kill()
    for memory in house.state.rglob("mosquitto.db"):
        memory.unlink()
    house.broker.start()
    house.sink.start()

    house.everything_arrives()


def test_b3_broker_stopped_for_longer_than_two_keepalives(house: House) -> None:
    """Polls go on in time while the broker hangs, and their readings arrive when it wakes."""
    house.broker.process.send_signal(signal.SIGSTOP)
    try:
        house.poll_on(45)
        assert "not connected" in house.unwell("poller")
        assert "not connected" in house.unwell("carbon_sink")
    finally:
        house.broker.process.send_signal(signal.SIGCONT)

    house.everything_arrives()


def test_p1_poller_killed_at_any_time(house: House) -> None:
    """Each reading that was taken arrives; at most the poll under way is lost."""
    chance = random.Random(3)
    for _kill in range(4):
        house.poll_on(2)
        pause(chance.random())
        house.poller.kill()
        house.poller.start()

    house.everything_arrives(but=4)


def test_p1_poller_killed_while_the_broker_is_dead(house: House) -> None:
    """What was taken while nobody was there to hear it is on disk."""
    house.broker.kill()
    house.poll_on(5)
    house.poller.kill()
    house.poller.start()
    house.poll_on(3)
    house.broker.start()

    house.everything_arrives(but=1)


def test_p2_poller_told_to_stop_while_the_broker_is_dead(house: House) -> None:
    """It ends in time with 0, and its successor publishes what it left."""
    house.broker.kill()
    house.poll_on(5)
    assert house.poller.stop(deadline_s=10) == 0
    house.broker.start()
    house.poller.start()

    house.everything_arrives(but=1)


def test_c1_s1_carbon_and_the_sink_killed_together(house: House) -> None:
    """It loses nothing: the receipt had not been given yet."""
    for _kill in range(2):
        house.poll_on(3)
        house.carbon.kill()
        house.sink.kill()
        house.carbon.start()
        house.sink.start()

    house.everything_arrives()


def test_s5_sink_away_for_longer_than_its_session(house: House) -> None:
    """The broker forgets the sink and keeps nothing for it; the journal does, and all arrives once the sink is back."""
    house.sink.stop()
    forget = Client(CallbackAPIVersion.VERSION2, "carbon-sink", protocol=MQTTProtocolVersion.MQTTv5)
    forget.connect(HOST, house.broker.port, clean_start=True)  # a session of no length takes the other's place
    forget.loop_start()
    wait_until(forget.is_connected, "the session is taken")
    forget.disconnect()
    forget.loop_stop()
    house.poll_on(10)
    house.sink.start()

    house.everything_arrives()


def test_x1_anything_killed_at_random(house: House) -> None:
    """Half a minute of kills by a seed; bounded memory and descriptors at the end."""
    chance = random.Random(11)
    pollers_killed = 0
    for _kill in range(10):
        victim = chance.choice([house.broker, house.carbon, house.sink, house.poller])
        pollers_killed += victim is house.poller
        victim.kill()
        pause(chance.uniform(0, 2))
        victim.start()
        pause(chance.uniform(0, 2))

    house.everything_arrives(but=pollers_killed)
    for program in (house.poller, house.sink):
        assert memory_mb(program) < 120
        assert open_files(program) < 60
