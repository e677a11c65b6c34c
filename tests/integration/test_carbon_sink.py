"""What carbon_sink promises, between a real Mosquitto and a real Carbon with real Whisper files."""

import signal
from pathlib import Path

from shared.mqtt import Connection
from shared.readings import Grid, Inverter, Production
from tests.conftest import SERIAL, Server
from tests.programs import Program, now_in_slot, stored, wait_until


def test_a_reading_is_stored_exactly_where_its_timestamp_says(publisher: Connection, tmp_path: Path) -> None:
    """Each number of a reading is a value at its path and time, also under its alias, late or not."""
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
        wait_until(lambda: stored(tmp_path, path, timestamp) is not None, f"{path} at {timestamp}")  # noqa: B023 - called here
        assert stored(tmp_path, path, timestamp) == value


def test_readings_published_while_carbon_is_dead_are_stored_when_it_lives(
    publisher: Connection, carbon: Server, sink: Program, tmp_path: Path
) -> None:
    """The sink keeps what it could not write, the broker keeps the rest, and both arrive."""
    carbon.kill()
    start = now_in_slot() - 3000
    for step in range(200):
        reading = Production(timestamp=start + 10 * step, power_w=step, source="meter")
        publisher.publish(publisher.topics.history(SERIAL, reading.kind), reading.to_json())
    wait_until(lambda: "readings wait at the broker" in sink.output, "the sink notices")

    carbon.start()

    path = f"enphase.{SERIAL}.production.power_w"
    for step in range(200):
        wait_until(lambda: stored(tmp_path, path, start + 10 * step) == step, f"reading {step}")  # noqa: B023


def test_readings_published_while_the_sink_is_dead_are_stored_by_its_successor(
    publisher: Connection, sink: Program, tmp_path: Path
) -> None:
    """The broker keeps what the sink has not acknowledged."""
    sink.kill()
    now = now_in_slot()
    reading = Production(timestamp=now, power_w=77, source="meter")
    assert publisher.publish(publisher.topics.reading(SERIAL, reading.kind), reading.to_json()).result(10).accepted

    sink.start()

    wait_until(lambda: stored(tmp_path, f"enphase.{SERIAL}.production.power_w", now) == 77, "stored")


def test_a_message_that_is_no_reading_holds_up_nothing(publisher: Connection, sink: Program, tmp_path: Path) -> None:
    """Rubbish is acknowledged, counted, and told once a kind; what comes behind it is stored."""
    now = now_in_slot()
    for rubbish in (b"<html>", b"", b"[" * 50_000, b'{"timestamp": 1}', b"<html>", b'{"power_w": NaN}'):
        publisher.publish(publisher.topics.reading(SERIAL, "grid"), rubbish)
    reading = Production(timestamp=now, power_w=5, source="meter")
    publisher.publish(publisher.topics.reading(SERIAL, reading.kind), reading.to_json())

    wait_until(lambda: stored(tmp_path, f"enphase.{SERIAL}.production.power_w", now) == 5, "stored")
    assert sink.output.count("passed over") == 5


def test_a_dry_run_prints_points_and_takes_nothing_from_the_real_sink(
    publisher: Connection, broker: Server, tmp_path: Path
) -> None:
    """--dry-run shows 'path value timestamp' beside a running sink, which still stores every reading."""
    now = now_in_slot()
    reading = Production(timestamp=now, power_w=1234.5, source="meter")
    publisher.publish(publisher.topics.reading(SERIAL, reading.kind), reading.to_json(), retain=True).result(10)

    environment = {"MQTT_PORT": str(broker.port)}
    dry_run = Program.python("services.carbon_sink", "--dry-run", log=tmp_path / "dry.log", environment=environment)
    with dry_run:
        line = f"enphase.{SERIAL}.production.power_w 1234.5 {now}\n"
        wait_until(lambda: line in dry_run.output, "the line")
        assert dry_run.stop() == 0
    wait_until(lambda: stored(tmp_path, f"enphase.{SERIAL}.production.power_w", now) == 1234.5, "stored")


def test_told_to_stop_while_the_broker_hangs_the_sink_stops_in_time(
    broker: Server, publisher: Connection, sink: Program
) -> None:
    """SIGTERM ends it although the broker answers nothing more; exit code 0."""
    broker.process.send_signal(signal.SIGSTOP)
    try:
        assert sink.stop(deadline_s=9) == 0
    finally:
        broker.process.send_signal(signal.SIGCONT)


def test_told_to_stop_while_carbon_is_dead_the_sink_stops_in_time(
    carbon: Server, publisher: Connection, sink: Program
) -> None:
    """SIGTERM ends the wait for Carbon; exit code 0."""
    carbon.kill()
    reading = Production(timestamp=now_in_slot(), power_w=1, source="meter")
    publisher.publish(publisher.topics.reading(SERIAL, reading.kind), reading.to_json())
    wait_until(lambda: "readings wait at the broker" in sink.output, "the sink notices")

    assert sink.stop(deadline_s=10) == 0
