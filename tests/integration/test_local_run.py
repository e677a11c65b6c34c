import os
import signal
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.integration.local_programs import local_settings
from tests.programs import HOST, Program, listening, wait_until


@pytest.mark.parametrize("setting", ["MQTT_PORT", "CARBON_PORT", "GRAPHITE_PORT", "SIMULATOR_ENVOY_PORT"])
def test_a_port_in_use_is_reported_with_its_setting(tmp_path: Path, setting: str) -> None:
    """Nothing is started or written, and one line has the setting to change."""
    settings = local_settings(tmp_path / "state")
    with socket.create_server((HOST, int(settings[setting]))), _run(settings, tmp_path) as run:
        assert run.process.wait(20) == 2
    assert run.output == (
        f"bad setting {setting}: another program listens on port {settings[setting]}; stop it or choose another port\n"
    )
    assert not (tmp_path / "state").exists()


def test_with_a_real_gateway_the_simulators_ports_are_not_checked(tmp_path: Path) -> None:
    """With ENVOY_HOST there is no simulator."""
    settings = local_settings(tmp_path / "state") | {"ENVOY_HOST": "127.0.0.1:9"}
    with socket.create_server((HOST, int(settings["SIMULATOR_ENVOY_PORT"]))), _run(settings, tmp_path) as run:
        wait_until(lambda: listening(int(settings["CARBON_PORT"])), "Carbon listens")
    assert "simulator " not in run.output


def test_two_settings_with_the_same_port_are_reported(tmp_path: Path) -> None:
    """They are found before one of the programs fails to start."""
    settings = local_settings(tmp_path / "state")
    settings["CARBON_PORT"] = settings["MQTT_PORT"]
    with _run(settings, tmp_path) as run:
        assert run.process.wait(20) == 2
    assert run.output == f"bad setting CARBON_PORT: {settings['MQTT_PORT']} is also MQTT_PORT; choose another port\n"


@pytest.mark.parametrize("days", [-365, -31, 31, 365])
def test_a_simulated_time_that_is_not_drawn_is_a_bad_setting(tmp_path: Path, days: int) -> None:
    """Nothing is started, instead of a page without readings."""
    start = (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="minutes")
    with _run(local_settings(tmp_path / "state") | {"SIMULATOR_START": start}, tmp_path) as run:
        assert run.process.wait(20) == 2
    assert run.output == (
        f"bad setting SIMULATOR_START: {start} is {abs(days)} days from now, where nothing is drawn; "
        "choose a time within 30 days\n"
    )
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("days", [-29, 29])
def test_a_simulated_time_within_a_month_is_drawn_now(tmp_path: Path, days: int) -> None:
    """The poller corrects the gateway's clock, so that the sun of another day and hour is drawn at the current time."""
    start = datetime.now(UTC) + timedelta(days=days)
    with _run(local_settings(tmp_path / "state") | {"SIMULATOR_START": start.isoformat()}, tmp_path) as run:
        wait_until(lambda: "Render: " in run.output, f"readings in Graphite; {run.output}")


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything(tmp_path: Path, signal_number: signal.Signals) -> None:
    """One signal stops every process, none is left running, and the exit code is 0."""
    settings = local_settings(tmp_path / "state")
    with _run(settings, tmp_path) as run:
        for setting in ("MQTT_PORT", "CARBON_PORT", "GRAPHITE_PORT"):
            wait_until(lambda port=int(settings[setting]): listening(port), f"{setting} serves")  # type: ignore[misc]
        assert len(_processes_of(tmp_path)) > 8
        assert run.stop(signal_number) == 0
    assert _processes_of(tmp_path) == []


def test_a_signal_during_the_start_stops_everything(tmp_path: Path) -> None:
    """No process is left running after an immediate stop."""
    settings = local_settings(tmp_path / "state")
    with _run(settings, tmp_path) as run:
        wait_until((tmp_path / "state").exists, "the start has begun")
        os.killpg(run.process.pid, signal.SIGTERM)
        assert run.process.wait(20) == 0
    assert _processes_of(tmp_path) == []


def test_a_killed_broker_and_carbon_are_restarted(tmp_path: Path) -> None:
    """The pipeline recovers without its user after its broker and its storage were killed."""
    settings = local_settings(tmp_path / "state")
    ports = [int(settings[name]) for name in ("MQTT_PORT", "CARBON_PORT")]
    with _run(settings, tmp_path) as run:
        wait_until(lambda: all(map(listening, ports)), "broker and Carbon serve")
        for programs in (("mosquitto -c", "iotcore --config"), ("carbon-cache",)):
            [pid] = [pid for pid, command in _commands_of(tmp_path).items() if any(map(command.count, programs))]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: pid not in _processes_of(tmp_path), "the killed process is gone")  # type: ignore[misc]
        wait_until(lambda: run.output.count("killed by SIGKILL; restarting in 0.") == 2, "both restarts are logged")
        wait_until(lambda: all(map(listening, ports)), "broker and Carbon serve again")


def test_a_service_with_a_bad_setting_stops_everything_and_is_reported_last(tmp_path: Path) -> None:
    """What the user must correct is the last line on the terminal."""
    settings = local_settings(tmp_path / "state") | {"POLL_INTERVAL_S": "soon"}
    with _run(settings, tmp_path) as run:
        assert run.process.wait(30) == 2
    last_line = run.output.splitlines()[-1]
    assert last_line.startswith("poller exited with code 2, so everything was stopped: bad setting POLL_INTERVAL_S")
    assert _processes_of(tmp_path) == []


def _run(settings: dict[str, str], logs: Path) -> Program:
    return Program.python("deploy.local", log=logs / "log", environment=settings)


def _processes_of(directory: Path) -> list[int]:
    return list(_commands_of(directory))


def _commands_of(directory: Path) -> dict[int, str]:
    """Return the command lines of the running processes whose state is in this test's directory."""
    commands = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (process / "environ").read_bytes(), (process / "cmdline").read_bytes()
        except OSError:  # it has exited since
            continue
        if f"STATE_DIR={directory}".encode() in environment:
            commands[int(process.name)] = command.replace(b"\0", b" ").decode()
    return commands
