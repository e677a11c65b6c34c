"""The broker, the poller and the sink are killed, stopped, or lose their memory."""

import random
import signal

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.faults.pipeline import Pipeline, memory_mb, open_files, random_delay
from tests.programs import HOST, wait_until

MAX_MEMORY_MB = 120
MAX_OPEN_FILES = 60


@pytest.mark.parametrize("seed", range(2))
def test_a_broker_killed_at_any_time_loses_nothing(pipeline: Pipeline, seed: int) -> None:
    """Nothing is lost of what the broker had acknowledged and not saved."""
    chance = random.Random(seed)
    for _kill in range(2):
        pipeline.wait_for_polls(3)
        random_delay(chance, 1)
        pipeline.broker.kill()
        pipeline.wait_for_polls(2)
        pipeline.broker.start()

    pipeline.assert_everything_arrives()


def test_a_broker_that_loses_its_database_loses_nothing(pipeline: Pipeline) -> None:
    """The poller publishes again what the broker forgot."""
    pipeline.wait_for_polls(3)
    pipeline.sink.stop()
    pipeline.wait_for_polls(3)
    pipeline.broker.kill()
    for database in pipeline.state.rglob("mosquitto.db"):
        database.unlink()
    pipeline.broker.start()
    pipeline.sink.start()

    pipeline.assert_everything_arrives()


def test_a_broker_that_hangs_for_two_keepalives_delays_readings(pipeline: Pipeline) -> None:
    """Polls continue on time while the broker hangs, both services report it, and the readings arrive afterwards."""
    pipeline.broker.process.send_signal(signal.SIGSTOP)
    try:
        pipeline.wait_for_polls(45)
        assert "not connected" in pipeline.health_problem("poller")
        assert "not connected" in pipeline.health_problem("carbon_sink")
    finally:
        pipeline.broker.process.send_signal(signal.SIGCONT)

    pipeline.assert_everything_arrives()


def test_a_poller_killed_at_any_time_loses_only_the_poll_in_progress(pipeline: Pipeline) -> None:
    """Each reading that was taken arrives."""
    chance = random.Random(3)
    kills = 4
    for _kill in range(kills):
        pipeline.wait_for_polls(2)
        random_delay(chance, 1)
        pipeline.poller.kill()
        pipeline.poller.start()

    pipeline.assert_everything_arrives(lost_polls=kills)


def test_a_poller_killed_while_the_broker_is_down_keeps_its_readings(pipeline: Pipeline) -> None:
    """What was taken while nothing could be published is on disk."""
    pipeline.broker.kill()
    pipeline.wait_for_polls(5)
    pipeline.poller.kill()
    pipeline.poller.start()
    pipeline.wait_for_polls(3)
    pipeline.broker.start()

    pipeline.assert_everything_arrives(lost_polls=1)


def test_a_poller_stopped_while_the_broker_is_down_exits_cleanly(pipeline: Pipeline) -> None:
    """It exits with 0 before the deadline, and the next one publishes its readings."""
    pipeline.broker.kill()
    pipeline.wait_for_polls(5)
    assert pipeline.poller.stop(deadline_s=10) == 0
    pipeline.broker.start()
    pipeline.poller.start()

    pipeline.assert_everything_arrives(lost_polls=1)


def test_carbon_and_sink_killed_together_lose_nothing(pipeline: Pipeline) -> None:
    """No receipt had been sent yet."""
    for _kill in range(2):
        pipeline.wait_for_polls(3)
        pipeline.carbon.kill()
        pipeline.sink.kill()
        pipeline.carbon.start()
        pipeline.sink.start()

    pipeline.assert_everything_arrives()


def test_a_sink_whose_session_has_expired_gets_everything_from_the_journal(pipeline: Pipeline) -> None:
    """The broker queues nothing for a session that is gone; the journal keeps it until the sink is back."""
    pipeline.sink.stop()
    expire = Client(CallbackAPIVersion.VERSION2, "carbon-sink", protocol=MQTTProtocolVersion.MQTTv5)
    expire.connect(HOST, pipeline.broker.port, clean_start=True)  # a session without duration replaces the sink's
    expire.loop_start()
    wait_until(expire.is_connected, "the session is replaced")
    expire.disconnect()
    expire.loop_stop()
    pipeline.wait_for_polls(10)
    pipeline.sink.start()

    pipeline.assert_everything_arrives()


def test_random_kills_lose_nothing_and_leak_nothing(pipeline: Pipeline) -> None:
    """Ten kills by a seed; memory and open files stay bounded."""
    chance = random.Random(11)
    pollers_killed = 0
    for _kill in range(10):
        program = chance.choice([pipeline.broker, pipeline.carbon, pipeline.sink, pipeline.poller])
        pollers_killed += program is pipeline.poller
        program.kill()
        random_delay(chance, 2)
        program.start()
        random_delay(chance, 2)

    pipeline.assert_everything_arrives(lost_polls=pollers_killed)
    for program in (pipeline.poller, pipeline.sink):
        assert memory_mb(program) < MAX_MEMORY_MB
        assert open_files(program) < MAX_OPEN_FILES
