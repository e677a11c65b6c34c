"""Faults of the connection between the services and the broker."""

import random
import time
from pathlib import Path

import pytest

from tests.faults.pipeline import Pipeline, memory_mb, open_files, packet_loss, prepared_pipeline, random_delay
from tests.programs import Program, wait_until

CONNACK = b"\x20\x03\x00\x00\x00"
SESSION_TAKEN_OVER = b"\xe0\x02\x8e\x00"
MALFORMED = {
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "noise": b"\xff" * 50,
    "length without end": CONNACK + b"\x30\xff\xff\xff\xff\xff",
    "topic that is not UTF-8": CONNACK + b"\x30\x06\x00\x02\xff\xfe\x00a",
    "unknown reason code": CONNACK + b"\x40\x04\x00\x01\x55\x00",
    "truncated SUBACK": CONNACK + b"\x90\x02\x00\x01",
}


def is_bounded(program: Program) -> bool:
    """Return whether a service uses no more memory and files than it should."""
    return memory_mb(program) < 120 and open_files(program) < 60


def restart_if_ended(*services: Program) -> None:
    """Start services again that ended because of a fault, as their supervisor does."""
    for service in services:
        if not service.running:
            assert service.process.returncode == 1
            service.start()


def test_repeated_connection_resets_lose_nothing(pipeline: Pipeline) -> None:
    """A storm of resets delays readings."""
    chance = random.Random(4)
    for _reset in range(20):
        pipeline.proxy.reset_all()
        random_delay(chance, 0.8)

    pipeline.assert_everything_arrives()
    assert pipeline.proxy.cuts > 5
    assert is_bounded(pipeline.poller)
    assert is_bounded(pipeline.sink)


def test_a_half_open_connection_is_detected_by_its_keepalive(pipeline: Pipeline) -> None:
    """What was published on it without an acknowledgement is published again."""
    pipeline.proxy.drop_responses()
    wait_until(lambda: "lost the connection to the broker" in pipeline.poller.output, "the poller detects it")

    pipeline.assert_everything_arrives()


def test_a_broker_that_accepts_and_never_responds_delays_readings(pipeline: Pipeline) -> None:
    """Polls continue, and the poller times out by itself."""
    pipeline.proxy.accept_only()
    pipeline.proxy.reset_all()
    pipeline.wait_for_polls(8)
    assert "not connected" in pipeline.health_problem("poller")
    pipeline.proxy.end_faults()

    pipeline.assert_everything_arrives()


def test_malformed_packets_leave_no_service_idle(pipeline: Pipeline) -> None:
    """After each of them a service reconnects, or ends and is started again, and in the end readings arrive."""
    services = (pipeline.poller, pipeline.sink)
    for name, malformed in MALFORMED.items():
        pipeline.proxy.respond_with(malformed)
        pipeline.proxy.reset_all()
        connections = len(pipeline.proxy.received) + len(services)

        def both_reconnect(target: int = connections) -> bool:
            restart_if_ended(*services)
            return len(pipeline.proxy.received) >= target

        # Each failure doubles the time until the next attempt, up to half a minute.
        wait_until(both_reconnect, f"both services get: {name}", 100)
    pipeline.proxy.end_faults()
    ended_at = int(time.time())

    def fresh_readings_arrive() -> bool:
        restart_if_ended(*services)
        return max(pipeline.stored()) > ended_at

    wait_until(fresh_readings_arrive, "fresh readings arrive", 100)
    pipeline.assert_everything_arrives(lost_polls=2)
    assert is_bounded(pipeline.poller)


def test_a_session_taken_over_by_another_client_ends_the_service(pipeline: Pipeline) -> None:
    """With reason code 0x8E (Mosquitto 2.0.11 only closes the connection) it exits with 3 and logs what to do."""
    pipeline.proxy.respond_with(CONNACK + SESSION_TAKEN_OVER)
    pipeline.proxy.reset_all()

    assert pipeline.poller.process.wait(60) == 3
    assert pipeline.sink.process.wait(60) == 3
    assert "another program uses the client id 'poller'" in pipeline.poller.output
    assert "MQTT_CLIENT_ID" in pipeline.poller.output
    pipeline.proxy.end_faults()
    pipeline.sink.start()
    pipeline.poller.start()

    pipeline.assert_everything_arrives(lost_polls=2)


def test_a_broker_that_starts_last_gets_every_reading(tmp_path: Path) -> None:
    """The poller polls before there is a broker."""
    with prepared_pipeline(tmp_path) as pipeline:
        pipeline.run(pipeline.poller)
        pipeline.wait_for_polls(5)
        pipeline.run(pipeline.carbon, pipeline.broker, pipeline.sink)

        pipeline.assert_everything_arrives()


def test_a_broker_name_that_does_not_resolve_delays_readings(pipeline: Pipeline, tmp_path: Path) -> None:
    """The poller continues and names the host once; with the right name its readings are published."""
    pipeline.poller.stop()
    unresolved = Program(
        pipeline.poller._arguments,
        tmp_path / "unresolved.log",
        pipeline.poller._environment | {"MQTT_HOST": "nowhere.invalid"},
    )
    with unresolved:
        pipeline.wait_for_polls(5)
        wait_until(lambda: "nowhere.invalid" in unresolved.output, f"the host is named; {unresolved.output}")
        assert unresolved.output.count("nowhere.invalid") == 1
        assert unresolved.stop(deadline_s=10) == 0
    pipeline.poller.start()

    pipeline.assert_everything_arrives(lost_polls=2)


def test_a_connection_of_64_kbit_per_second_loses_nothing(pipeline: Pipeline) -> None:
    """A slow connection delays readings."""
    pipeline.proxy.limit_rate(8000)
    pipeline.broker.kill()
    pipeline.wait_for_polls(5)
    pipeline.broker.start()

    pipeline.assert_everything_arrives()


@pytest.mark.root
def test_a_fifth_of_all_packets_lost_loses_no_reading(pipeline: Pipeline) -> None:
    """Lost packets between services, broker and Carbon delay readings."""
    with packet_loss([pipeline.proxy.port, pipeline.broker.port, pipeline.carbon.port], 0.2):
        pipeline.wait_for_polls(15)

    pipeline.assert_everything_arrives()
