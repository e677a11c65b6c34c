"""The simulator as a program: its settings, what it prints, how it ends."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from services.simulator.settings import BadSettings, SimulatorSettings, load_settings
from services.simulator.simulator import Simulator

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "services.simulator"]


def test_options_and_variables_have_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIMULATOR_SPEED is --speed, and the option wins."""
    monkeypatch.setenv("SIMULATOR_SPEED", "60")
    monkeypatch.setenv("SIMULATOR_INVERTERS", "20")
    monkeypatch.setenv("SIMULATOR_BATTERIES", "")
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    settings = load_settings(["--speed", "3600", "--fault", "503:count=2", "--fault", "slow", "--no-auth"])
    assert (settings.speed, settings.inverters, settings.batteries) == (3600, 20, 0)
    assert (settings.fault, settings.auth, settings.log_level) == (["503:count=2", "slow"], False, "DEBUG")


def test_start_is_the_houses_own_time_unless_it_says_otherwise() -> None:
    """06:00 in summer is four o'clock universal time in central Europe."""
    assert load_settings(["--start", "2026-06-21T06:00"]).start_time == 1782014400
    assert load_settings(["--start", "2026-06-21T06:00+00:00"]).start_time == 1782014400 + 7200
    assert load_settings([]).start_time is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--speed", "0"], "speed: "),
        (["--fault", "nonsense"], "fault: there is no fault 'nonsense'"),
        (["--serial", "12"], "serial: "),
        (["--timezone", "Mars/Olympus"], "timezone: this system knows no 'Mars/Olympus'"),
        (["--start", "2020-01-01"], "start: before the house was commissioned on 2026-01-01"),
        (["--commissioned", "2199-01-01"], "start: before the house was commissioned on 2199-01-01"),
        (["--recording", "/nowhere"], "recording: there is no folder /nowhere"),
        (["--nonsense"], "--nonsense"),
        (["--model", "diesel"], "model: "),
    ],
)
def test_bad_setting_is_told_in_one_line(arguments: list[str], told: str) -> None:
    """Each line names the setting and says what is wrong with it."""
    with pytest.raises(BadSettings) as refused:
        load_settings(arguments)
    (line,) = refused.value.lines
    assert told in line
    assert "\n" not in line


def test_program_with_bad_settings_touches_nothing_and_exits_2(tmp_path: Path) -> None:
    """Two bad settings, two lines, no state folder."""
    state = tmp_path / "state"
    arguments = ["--state-dir", str(state), "--speed", "x", "--inverters", "-1"]
    ended = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == ["bad setting inverters", "bad setting speed"]
    assert not state.exists()


def test_help_names_every_setting_its_variable_and_its_default() -> None:
    """--help is the table of settings."""
    ended = subprocess.run([*COMMAND, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    told = " ".join(ended.stdout.split())
    for name in SimulatorSettings.model_fields:
        variable = name if name.startswith("log_") else f"SIMULATOR_{name}"
        assert f"--{name.replace('_', '-')}" in told
        assert f"[env: {variable.upper()}]" in told.replace("[env: log", "[env: LOG").replace(
            "_level]", "_LEVEL]"
        ).replace("_format]", "_FORMAT]")
    assert "(default: sunshine)" in told


def test_program_tells_its_urls_answers_and_stops_on_a_signal(tmp_path: Path) -> None:
    """One line for each URL, chosen ports included; SIGTERM ends it with exit code 0."""
    arguments = ["--envoy-port", "0", "--enlighten-port", "0", "--control-port", "0", "--state-dir", str(tmp_path)]
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as program:
        try:
            assert program.stdout is not None
            lines = [program.stdout.readline().strip() for _ in range(3)]
            urls = {name: url for name, _, url in (line.partition(": ") for line in lines)}
            assert list(urls) == ["envoy", "enlighten", "control"]
            assert all(re.fullmatch(r"https?://127\.0\.0\.1:\d+", url) for url in urls.values())
            assert requests.get(f"{urls['control']}/clock", timeout=5).json()["speed"] == 1
            program.send_signal(signal.SIGTERM)
            assert program.wait(10) == 0
        finally:
            program.kill()


def test_port_that_is_taken_is_told_with_its_setting(start: Callable[..., Simulator], tmp_path: Path) -> None:
    """The program says which port, which setting, and exits 1."""
    taken = start().control_url.rpartition(":")[2]
    arguments = ["--envoy-port", "0", "--enlighten-port", "0", "--control-port", taken, "--state-dir", str(tmp_path)]
    ended = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert f"127.0.0.1:{taken} (--control-port, SIMULATOR_CONTROL_PORT)" in ended.stderr
