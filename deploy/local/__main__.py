"""Runs the Procfile in one terminal until Ctrl-C, SIGTERM or the terminal's end: ``python -m deploy.local``."""

import os
import shlex
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TextIO

import honcho.manager
from honcho.environ import parse_procfile
from honcho.printer import Message, Printer

from deploy.local.keep import KILL_AFTER_S
from deploy.local.settings import HOST, LocalSettings
from shared.lifecycle import ExitCode
from shared.settings import load

ROOT = Path(__file__).parents[2]
SPEAKS_FOR_ITSELF = "watch"
"""The process whose lines are the result, not its log: they stand without a name in front."""

ENDS_LAST = {"broker", "carbon"}


class Terminal(Printer):  # type: ignore[misc]  # honcho has no types
    """Writes what the processes say, and remembers each one's last words."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self.output: TextIO = sys.stdout
        self.last_words: dict[str, str] = {}

    def write(self, message: Message) -> None:
        """Write one message, without honcho's own about who was started and signalled."""
        if message.name == honcho.manager.SYSTEM_PRINTER_NAME:
            return
        text = message.data.decode(errors="replace").rstrip()
        try:
            if message.name == SPEAKS_FOR_ITSELF:
                print(text, file=self.output, flush=True)
            else:
                self.last_words[message.name] = text
                super().write(message)
        except OSError:  # the terminal was closed: nobody can press Ctrl-C any more
            self.output = Path(os.devnull).open("w")  # noqa: SIM115 - open till the end
            os.kill(os.getpid(), signal.SIGTERM)


class Pipeline(honcho.manager.Manager):  # type: ignore[misc]  # honcho has no types
    """The processes of the Procfile, ended together."""

    _first_told = False

    def terminate(self) -> None:
        """End the services, then what they talk to, so that they can finish; called again until all is said."""
        if not self._all_started():  # honcho raises KeyError for a process whose pid it doesn't know yet
            self._terminate_soon()
        elif services := [p for name, p in self._processes.items() if name not in ENDS_LAST and "returncode" not in p]:
            for service in [] if self._first_told else services:
                self._procmgr.terminate(service["pid"])
            self._first_told = True
            self._terminate_soon()
        else:
            super().terminate()

    def _terminate_soon(self) -> None:
        signal.signal(signal.SIGALRM, lambda _number, _frame: self.terminate())
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    def failed(self) -> dict[str, int]:
        """Return the exit codes of those that ended by themselves with one."""
        told_to_end = {0, -signal.SIGTERM}  # the latter if it had not yet begun to listen
        exit_codes = {name: process["returncode"] for name, process in self._processes.items()}
        return {name: exit_code for name, exit_code in exit_codes.items() if exit_code not in told_to_end}


def main() -> int:
    """Check, run, and tell why it ended."""
    # Until honcho takes over the signals there is nothing to end but us.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: sys.exit(ExitCode.STOPPED))
    settings = load(LocalSettings)
    faults = port_faults(settings.ports())
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        return ExitCode.BAD_SETTINGS
    settings.state_dir.mkdir(parents=True, exist_ok=True)

    # The keepers kill what does not end in time; honcho must not kill the keepers first.
    honcho.manager.KILL_WAIT = KILL_AFTER_S + 5
    terminal = Terminal()
    pipeline = Pipeline(terminal)
    environment = settings.service_environment(os.environ) | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    }
    for name, command in processes(settings).items():
        pipeline.add_process(
            name,
            f"exec {shlex.quote(sys.executable)} -m deploy.local.keep",
            env=environment | {"KEEP_COMMAND": command},
            cwd=str(ROOT),
        )
    # The processes have sessions of their own, which the end of ours does not reach.
    signal.signal(signal.SIGHUP, _as_sigterm)
    pipeline.loop()
    if pipeline.returncode in {rule["rc"] for rule in honcho.manager.SIGNALS.values()}:
        return ExitCode.STOPPED
    for name, exit_code in pipeline.failed().items():
        words = terminal.last_words.get(name, "it said nothing")
        print(f"\n{name} ended with exit {exit_code}, so everything was stopped: {words}", file=sys.stderr)
    return int(pipeline.returncode)


def processes(settings: LocalSettings) -> Mapping[str, str]:
    """Return the Procfile's commands by name; no simulator where a real gateway is read."""
    commands: dict[str, str] = parse_procfile((ROOT / "Procfile").read_text()).processes
    return {name: command for name, command in commands.items() if settings.simulated or name != "simulator"}


def port_faults(ports: Mapping[str, int]) -> list[str]:
    """Return a line for each setting whose port can't be listened on."""
    faults = []
    seen: dict[int, str] = {}
    for name, port in ports.items():
        if port in seen:
            faults.append(f"{name}: {port} is {seen[port]} already, set {name} to another")
        elif not is_free(port):
            faults.append(f"{name}: port {port} is taken by another program, set {name} to another or stop that one")
        seen.setdefault(port, name)
    return faults


def is_free(port: int) -> bool:
    """Return whether we could listen on this port."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are merely fading away is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError:
            return False
    return True


def _as_sigterm(_signal_number: int, _frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
