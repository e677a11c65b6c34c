"""Real programs for tests: started on free ports, killed, started again, and waited for without sleeping."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import whisper

from services.simulator.settings import SimulatorSettings
from services.simulator.simulator import Simulator

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
DEADLINE_S = 60.0

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value | None], what: str, deadline_s: float = DEADLINE_S) -> Value:
    """Return the condition's value once it is true; fail with what was waited for if it never is."""
    ends_at = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < ends_at, f"within {deadline_s:g} s never: {what}"
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a port on which nothing listens.

    It is below the range from which outgoing connections take theirs, so that none takes it before it is used.
    """
    while listening(port := random.randrange(10_000, 30_000)):
        pass
    return port


def listening(port: int) -> bool:
    """Return whether something listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def stored(home: Path, path: str, timestamp: int) -> float | None:
    """Return the value that Whisper holds for a path at a time."""
    file = home / "graphite" / "whisper" / f"{path.replace('.', '/')}.wsp"
    if not file.exists():
        return None
    try:
        (start, _end, step), values = whisper.fetch(str(file), timestamp - 10, timestamp + 10)
    except whisper.CorruptWhisperFile:  # Carbon is creating it
        return None
    return dict(zip(range(start, start + step * len(values), step), values, strict=True)).get(timestamp)


def now_in_slot() -> int:
    """Return a recent time that is a slot of the finest archive, so that it is stored as it is."""
    return int(time.time()) // 10 * 10


def simulator(state: Path, **settings: object) -> Simulator:
    """Return a simulator on free ports, not started yet, of a house a week old, which starts at once."""
    usual = {
        "envoy_port": 0,
        "enlighten_port": 0,
        "control_port": 0,
        "slow_answers_s": 0,
        "state_dir": state / "simulator",
        "commissioned": datetime.now(UTC).date() - timedelta(days=7),
    }
    return Simulator(SimulatorSettings.model_validate(usual | settings))


class Program:
    """A program that runs until the ``with`` block ends; its output goes to a file."""

    def __init__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._arguments = arguments
        # State that a test names no folder for is not a developer's either.
        self._environment = clean_environment() | {"STATE_DIR": str(log.parent)} | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._log = log

    @classmethod
    def python(cls, module: str, *arguments: str, log: Path, environment: Mapping[str, str] | None = None) -> Self:
        """Return a Python module of the project as a program."""
        return cls([sys.executable, "-m", module, *arguments], log, environment)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self.stop()

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, running or ended."""
        assert self._process is not None
        return self._process

    @property
    def output(self) -> str:
        """What it has printed so far, both streams together, over all its runs."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start it, in a process group of its own."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments, stdout=log, stderr=log, env=self._environment, cwd=ROOT, start_new_session=True
            )

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self, signal_number: int = signal.SIGTERM, deadline_s: float = DEADLINE_S) -> int:
        """End it with a signal and return its exit code; all of its group is killed if it does not end in time."""
        self.process.send_signal(signal_number)
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise


def clean_environment(*more: str) -> dict[str, str]:
    """Return this process's environment without settings of ours that a developer may have set.

    Args:
        more: beginnings of further names to leave out.
    """
    ours = (
        "MQTT_",
        "ENVOY",
        "ENLIGHTEN_",
        "POLL_",
        "CARBON_",
        "JOURNAL_",
        "LOG_",
        "SIMULATOR_",
        "STATE_DIR",
        "GRAPHITE_",
        *more,
    )
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
