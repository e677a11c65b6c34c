"""What carbon_sink guarantees, between a real broker and a real Carbon with real Whisper files."""

import signal
from pathlib import Path

from shared.mqtt import Connection
from shared.readings import Grid, Inverter, Production
from tests.conftest import SERIAL, Server
from tests.programs import Program, now_in_slot, stored, wait_until


def wait_until_stored(home: Path, path: str, timestamp: int, value: float) -> None:
    """Wait until Whisper contains a value for a path at a time."""
    wait_until(lambda: stored(home, path, timestamp) == value, f"{value} of {path} at {timestamp}")


def test_each_number_of_a_reading_is_stored_at_the_readings_time(publisher: Connection, tmp_path: Path) -> None:
    """Also those of a late reading, and also at an alias."""
    now = now_in_slot()
    grid = Grid(timestamp=now, power_w=-812.125, import_power_w=0, export_power_w=812.125)
    late = Production(timestamp=now - 600, power_w=0.1, energy_lifetime_wh=12345678.9, source="meter")
    inverter = Inverter(serial="482300000001", timestamp=now - 20, power_w=211)
    publisher.publish(publisher.topics.reading(SERIAL, grid.kind), grid.to_json(), retain=True)
    publisher.publish(publisher.topics.history(SERIAL, late.kind), late.to_json())
    publisher.publish(publisher.topics.reading(SERIAL, inverter.kind), inverter.to_json(), retain=True)

    for path, timestamp, value in [
        (f"enphase.{SERIAL}.grid.power_w", now, -812.125),
        (f"enphase.{SERIAL}.grid.export_power_w", now, 812.125),
        (f"enphase.{SERIAL}.production.power_w", now - 600, 0.1),
        (f"enphase.{SERIAL}.production.energy_lifetime_wh", now - 600, 12345678.9),
        ("stats.gauges.solar.production", now - 600, 0.1),
        (f"enphase.{SERIAL}.inverter.482300000001.power_w", now - 20, 211.0),
    ]:
        wait_until_stored(tmp_path, path, timestamp, value)


def test_readings_published_while_carbon_is_down_are_stored_once_it_runs(
    publisher: Connection, carbon: Server, sink: Program, tmp_path: Path
) -> None:
    """The sink keeps one batch and the broker the rest; both are stored."""
    carbon.kill()
    start = now_in_slot() - 3000
    for step in range(200):
        reading = Production(timestamp=start + 10 * step, power_w=step, source="meter")
        publisher.publish(publisher.topics.history(SERIAL, reading.kind), reading.to_json())
    wait_until(lambda: "readings wait at the broker" in sink.output, "the sink reports it")

    carbon.start()

    path = f"enphase.{SERIAL}.production.power_w"
    for step in range(200):
        wait_until_stored(tmp_path, path, start + 10 * step, step)


def test_readings_published_while_the_sink_is_down_are_stored_once_it_runs(
    publisher: Connection, sink: Program, tmp_path: Path
) -> None:
    """The broker keeps what the sink has not acknowledged."""
    sink.kill()
    now = now_in_slot()
    reading = Production(timestamp=now, power_w=77, source="meter")
    assert publisher.publish(publisher.topics.reading(SERIAL, reading.kind), reading.to_json()).result(10).accepted

    sink.start()

    wait_until_stored(tmp_path, f"enphase.{SERIAL}.production.power_w", now, 77)


def test_an_invalid_message_does_not_block_the_readings_behind_it(
    publisher: Connection, sink: Program, tmp_path: Path
) -> None:
    """It is acknowledged, and logged once for each kind of fault."""
    now = now_in_slot()
    for invalid in (b"<html>", b"", b"[" * 50_000, b'{"timestamp": 1}', b"<html>", b'{"power_w": NaN}'):
        publisher.publish(publisher.topics.reading(SERIAL, "grid"), invalid)
    reading = Production(timestamp=now, power_w=5, source="meter")
    publisher.publish(publisher.topics.reading(SERIAL, reading.kind), reading.to_json())

    wait_until_stored(tmp_path, f"enphase.{SERIAL}.production.power_w", now, 5)
    assert sink.output.count("rejected a message") == 5


def test_a_dry_run_prints_points_and_takes_none_from_the_running_sink(
    publisher: Connection, broker: Server, tmp_path: Path
) -> None:
    """--dry-run prints 'path value timestamp' and writes no file; the running sink stores every reading."""
    now = now_in_slot()
    reading = Production(timestamp=now, power_w=1234.5, source="meter")
    publisher.publish(publisher.topics.reading(SERIAL, reading.kind), reading.to_json(), retain=True).result(10)

    state = tmp_path / "dry_run"
    environment = {"MQTT_PORT": str(broker.port), "STATE_DIR": str(state)}
    dry_run = Program.python("services.carbon_sink", "--dry-run", log=tmp_path / "dry.log", environment=environment)
    with dry_run:
        line = f"enphase.{SERIAL}.production.power_w 1234.5 {now}\n"
        wait_until(lambda: line in dry_run.output, "the point is printed")
        assert dry_run.stop() == 0
    wait_until_stored(tmp_path, f"enphase.{SERIAL}.production.power_w", now, 1234.5)
    assert not state.exists()


def test_a_sink_stopped_while_the_broker_hangs_exits_in_time(
    broker: Server, publisher: Connection, sink: Program
) -> None:
    """SIGTERM ends it with exit code 0, although the broker does not respond."""
    broker.process.send_signal(signal.SIGSTOP)
    try:
        assert sink.stop(deadline_s=9) == 0
    finally:
        broker.process.send_signal(signal.SIGCONT)


def test_a_sink_stopped_while_carbon_is_down_exits_in_time(
    carbon: Server, publisher: Connection, sink: Program
) -> None:
    """SIGTERM ends the wait for a retry, with exit code 0."""
    carbon.kill()
    reading = Production(timestamp=now_in_slot(), power_w=1, source="meter")
    publisher.publish(publisher.topics.reading(SERIAL, reading.kind), reading.to_json())
    wait_until(lambda: "readings wait at the broker" in sink.output, "the sink reports it")

    assert sink.stop(deadline_s=10) == 0
