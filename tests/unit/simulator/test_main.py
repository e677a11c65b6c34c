"""The simulator as a program: its settings, what it prints, how it ends."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from services.simulator.__main__ import parse_options
from services.simulator.settings import CommandSettings, SimulatorSettings
from services.simulator.simulator import Simulator
from shared.settings import load
from tests.programs import ROOT, clean_environment

COMMAND = [sys.executable, "-m", "services.simulator"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the simulator until it exits, without a developer's settings."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def load_settings(monkeypatch: pytest.MonkeyPatch) -> Callable[..., CommandSettings]:
    """Return what loads the settings with options of the command line."""

    def load_settings(*arguments: str) -> CommandSettings:
        monkeypatch.setattr(sys, "argv", ["simulator", *arguments])
        return load(CommandSettings, parse_options())

    return load_settings


def test_options_have_the_names_of_variables_and_take_precedence(
    load_settings: Callable[..., CommandSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIMULATOR_SPEED is --speed, LOG_LEVEL is --log-level; an empty variable is no setting."""
    monkeypatch.setenv("SIMULATOR_SPEED", "60")
    monkeypatch.setenv("SIMULATOR_INVERTERS", "20")
    monkeypatch.setenv("SIMULATOR_BATTERIES", "")
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    arguments = ("--speed", "3600", "--fault", "503:count=2", "--fault", "slow", "--no-auth", "--log-format", "json")

    settings = load_settings(*arguments)

    simulated = settings.simulator
    assert (simulated.speed, simulated.inverters, simulated.batteries) == (3600, 20, 0)
    assert (simulated.fault, simulated.auth) == (("503:count=2", "slow"), False)
    assert (settings.log.level, settings.log.format) == ("DEBUG", "json")


def test_faults_can_be_a_variable(
    load_settings: Callable[..., CommandSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIMULATOR_FAULT is a JSON list."""
    monkeypatch.setenv("SIMULATOR_FAULT", '["503:count=2", "slow"]')

    assert load_settings().simulator.fault == ("503:count=2", "slow")


def test_start_without_an_offset_is_local_time_of_the_house() -> None:
    """06:00 in summer is 04:00 UTC in central Europe."""
    assert SimulatorSettings.model_validate({"start": "2026-06-21T06:00"}).start_time == 1782014400
    assert SimulatorSettings.model_validate({"start": "2026-06-21T06:00+00:00"}).start_time == 1782014400 + 7200
    assert SimulatorSettings().start_time is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--speed", "0"], "SIMULATOR_SPEED: "),
        (["--fault", "nonsense"], "SIMULATOR_FAULT: unknown fault 'nonsense'"),
        (["--serial", "12"], "SIMULATOR_SERIAL: "),
        (["--timezone", "Mars/Olympus"], "SIMULATOR_TIMEZONE: unknown time zone 'Mars/Olympus'"),
        (["--start", "2020-01-01"], "SIMULATOR_START: before the house was commissioned on 2026-01-01"),
        (["--commissioned", "2199-01-01"], "SIMULATOR_START: before the house was commissioned on 2199-01-01"),
        (["--recording", "/nowhere"], "SIMULATOR_RECORDING: "),
        (["--model", "diesel"], "SIMULATOR_MODEL: "),
        (["--log-level", "LOUD"], "LOG_LEVEL: "),
    ],
)
def test_an_invalid_setting_is_one_line_and_exit_code_2(
    load_settings: Callable[..., CommandSettings],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """The line has the name of the setting and what is wrong with it."""
    with pytest.raises(SystemExit) as ended:
        load_settings(*arguments)

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bad setting {message}")
    assert ended.value.code == 2


def test_an_unknown_variable_is_an_error(
    load_settings: Callable[..., CommandSettings],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A misspelled variable is not ignored."""
    monkeypatch.setenv("SIMULATOR_SPED", "60")

    with pytest.raises(SystemExit):
        load_settings()

    assert capsys.readouterr().err == "bad setting SIMULATOR_SPED: no such setting\n"


def test_with_invalid_settings_nothing_is_written(tmp_path: Path) -> None:
    """Two invalid settings are two lines, exit code 2 and no state folder."""
    state = tmp_path / "state"

    ended = run("--state-dir", str(state), "--speed", "x", "--inverters", "-1")

    names = [line.split(":")[0] for line in ended.stderr.splitlines()]
    assert names == ["bad setting SIMULATOR_INVERTERS", "bad setting SIMULATOR_SPEED"]
    assert ended.returncode == 2
    assert not state.exists()


def test_an_unknown_option_is_an_error() -> None:
    """The last line names the option."""
    ended = run("--nonsense")

    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith("unrecognized arguments: --nonsense")


def test_help_lists_every_setting_with_its_variable_and_default() -> None:
    """--help is the table of settings."""
    text = " ".join(run("--help").stdout.split())

    for name in SimulatorSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
        assert f"(SIMULATOR_{name.upper()})" in text
    assert "--log-level" in text
    assert "[sunshine]" in text
    assert "metered-single, metered-split, metered-three, unmetered" in text


def test_help_loads_no_library_of_the_simulation() -> None:
    """--help is quick, and works without the packages of the extra."""
    libraries = ("astral", "cryptography", "jwt", "requests")
    script = (
        "import runpy, sys; sys.argv = ['simulator', '--help']\n"
        "try: runpy.run_module('services.simulator', run_name='__main__')\n"
        f"finally: print([name for name in {libraries} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.stderr.strip() == "[]"


def test_the_program_prints_its_urls_and_stops_on_a_signal(tmp_path: Path) -> None:
    """One line for each URL, with the port that was chosen; SIGTERM ends it with exit code 0."""
    arguments = ["--envoy-port", "0", "--enlighten-port", "0", "--control-port", "0", "--state-dir", str(tmp_path)]
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
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


def test_a_port_in_use_is_reported_with_its_setting(start: Callable[..., Simulator], tmp_path: Path) -> None:
    """The message has the port and the setting; the exit code is 1."""
    port = start().control_url.rpartition(":")[2]

    ended = run("--envoy-port", "0", "--enlighten-port", "0", "--control-port", port, "--state-dir", str(tmp_path))

    assert ended.returncode == 1
    assert f"127.0.0.1:{port} (--control-port, SIMULATOR_CONTROL_PORT)" in ended.stderr
