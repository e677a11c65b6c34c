"""Runs the Procfile in one terminal until Ctrl-C, SIGTERM or the terminal is closed: ``python -m deploy.local``."""

import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TextIO

import honcho.manager
from honcho.environ import parse_procfile
from honcho.printer import Message, Printer

from deploy.local.settings import HOST, LocalSettings
from deploy.local.supervisor import KILL_TIMEOUT_S
from shared.lifecycle import ExitCode
from shared.settings import load, refuse

ROOT = Path(__file__).parents[2]
UNPREFIXED = "watch"
"""The process whose lines are the result and not a log; they are printed without a time and a name."""

STOPPED_LAST = {"broker", "carbon"}

MAX_START_DISTANCE_DAYS = 30
"""How far the simulated time may be from now.

The poller corrects a gateway's clock up to 31 days (services/poller/clock.py). Readings from further away keep their
times, which are not in the range that is drawn. The last day is for the time zone, which the setting may leave out.
"""


class Terminal(Printer):  # type: ignore[misc]  # honcho has no types
    """Prints the lines of the processes, and remembers the last line of each."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self.output: TextIO = sys.stdout
        self.last_lines: dict[str, str] = {}

    def write(self, message: Message) -> None:
        """Print one line; honcho's own, about which process was started or signalled, is left out."""
        if message.name == honcho.manager.SYSTEM_PRINTER_NAME:
            return
        text = message.data.decode(errors="replace").rstrip()
        try:
            if message.name == UNPREFIXED:
                print(text, file=self.output, flush=True)
            else:
                self.last_lines[message.name] = text
                super().write(message)
        except OSError:  # the terminal was closed, so Ctrl-C is impossible
            self.output = Path(os.devnull).open("w")  # noqa: SIM115 - open until the end
            os.kill(os.getpid(), signal.SIGTERM)


class Pipeline(honcho.manager.Manager):  # type: ignore[misc]  # honcho has no types
    """The processes of the Procfile, stopped together."""

    _services_terminated = False

    def terminate(self) -> None:
        """Terminate the services, and then broker and Carbon, so that no message is lost; repeats itself until done."""
        if not self._all_started():  # honcho raises KeyError for a process whose pid it does not know yet
            self._terminate_again_soon()
        elif services := [
            process
            for name, process in self._processes.items()
            if name not in STOPPED_LAST and "returncode" not in process
        ]:
            for service in [] if self._services_terminated else services:
                self._procmgr.terminate(service["pid"])
            self._services_terminated = True
            self._terminate_again_soon()
        else:
            super().terminate()

    def _terminate_again_soon(self) -> None:
        signal.signal(signal.SIGALRM, lambda _number, _frame: self.terminate())
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    def failed(self) -> dict[str, int]:
        """Return the exit codes of the processes that failed, by name."""
        expected = {0, -signal.SIGTERM}  # the latter from a process that had no signal handler yet
        exit_codes = {name: process["returncode"] for name, process in self._processes.items()}
        return {name: exit_code for name, exit_code in exit_codes.items() if exit_code not in expected}


def main() -> int:
    """Check the settings, run everything, and print why it ended; return the exit code."""
    # Until honcho handles the signals there is no other process to stop.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: sys.exit(ExitCode.STOPPED))
    settings = load(LocalSettings)
    if problems := [*port_problems(settings.ports()), *start_problems(settings, time.time())]:
        refuse(*problems)
    settings.state_dir.mkdir(parents=True, exist_ok=True)

    # The supervisors kill what does not exit in time; honcho must not kill the supervisors first.
    honcho.manager.KILL_WAIT = KILL_TIMEOUT_S + 5
    terminal = Terminal()
    pipeline = Pipeline(terminal)
    environment = settings.service_environment(os.environ) | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    }
    for name, command in processes(settings).items():
        pipeline.add_process(
            name,
            f"exec {shlex.quote(sys.executable)} -m deploy.local.supervisor",
            env=environment | {"SUPERVISED_COMMAND": command},
            cwd=str(ROOT),
        )
    # The processes have sessions of their own, so the end of this one does not reach them.
    signal.signal(signal.SIGHUP, _terminate)
    pipeline.loop()
    if pipeline.returncode in {rule["rc"] for rule in honcho.manager.SIGNALS.values()}:
        return ExitCode.STOPPED
    for name, exit_code in pipeline.failed().items():
        reason = terminal.last_lines.get(name, "it printed nothing")
        print(f"\n{name} exited with code {exit_code}, so everything was stopped: {reason}", file=sys.stderr)
    return int(pipeline.returncode)


def processes(settings: LocalSettings) -> Mapping[str, str]:
    """Return the Procfile's commands by name; without the simulator where a real gateway is read."""
    commands: dict[str, str] = parse_procfile((ROOT / "Procfile").read_text()).processes
    return {name: command for name, command in commands.items() if settings.simulated or name != "simulator"}


def port_problems(ports: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each setting whose port cannot be used."""
    users: dict[int, str] = {}
    for name, port in ports.items():
        if port in users:
            yield f"{name}: {port} is also {users[port]}; choose another port"
        elif not is_free(port):
            yield f"{name}: another program listens on port {port}; stop it or choose another port"
        users.setdefault(port, name)


def is_free(port: int) -> bool:
    """Return whether a program can listen on this port."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier program in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError:
            return False
    return True


def start_problems(settings: LocalSettings, now_s: float) -> Iterator[str]:
    """Yield a line if the simulated time is one whose readings would not be drawn."""
    if settings.simulated and (start := settings.simulator_start):
        distance_days = abs(start.timestamp() - now_s) / 86_400
        if distance_days > MAX_START_DISTANCE_DAYS:
            yield (
                f"SIMULATOR_START: {start.isoformat(timespec='minutes')} is {distance_days:.0f} days from now, where "
                f"nothing is drawn; choose a time within {MAX_START_DISTANCE_DAYS} days"
            )


def _terminate(_signal_number: int, _frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
