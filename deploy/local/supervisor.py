"""Restarts one program whenever it exits: ``SUPERVISED_COMMAND='…' python -m deploy.local.supervisor``.

honcho stops all of its processes when one exits, so each of them is this supervisor with the program as its child. The
child's exit code decides, see :class:`shared.lifecycle.ExitCode`: for bad settings the supervisor exits too, after a
takeover it waits to be stopped, and after anything else it restarts the child with a back-off.

The command is in an environment variable, so that ``pkill -f services.poller`` finds the poller and not its supervisor.
"""

import ctypes
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from types import FrameType

from shared import logs
from shared.backoff import backoff_s
from shared.lifecycle import ExitCode

logger = logging.getLogger("deploy.local.supervisor")

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 15.0
STABLE_AFTER_S = 60.0
"""After a child that ran longer, the back-off restarts at the first delay."""
KILL_TIMEOUT_S = 10
PR_SET_PDEATHSIG = 1  # linux/prctl.h

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Supervisor:
    """Runs a command, and restarts it until it is stopped."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()

    def stop(self, _signal_number: int, _frame: FrameType | None) -> None:
        """Terminate the child, and kill it if it does not exit in time; a signal handler."""
        self._stop.set()
        signal.alarm(KILL_TIMEOUT_S)
        if self._child is not None:
            self._child.terminate()

    def kill(self, _signal_number: int, _frame: FrameType | None) -> None:
        """Kill the child; a signal handler."""
        if self._child is not None:
            logger.warning("still running %s s after SIGTERM; killing it", KILL_TIMEOUT_S)
            self._child.kill()

    def run(self) -> int:
        """Run the command until this is stopped or a restart is useless; return the exit code."""
        failures = 0
        while not self._stop.is_set():
            started_s = time.monotonic()
            exit_code = self._run_once()
            if self._stop.is_set():
                break
            if exit_code == ExitCode.BAD_SETTINGS:
                return exit_code
            if exit_code == ExitCode.TAKEN_OVER:
                logger.error("not restarting: another program uses this MQTT client id; stop it, then restart make run")
                self._stop.wait()
                break
            failures = 1 if time.monotonic() - started_s > STABLE_AFTER_S else failures + 1
            delay_s = backoff_s(failures, first_s=FIRST_DELAY_S, max_s=MAX_DELAY_S)
            logger.warning("%s; restarting in %.1f s", describe_exit(exit_code), delay_s)
            self._stop.wait(delay_s)
        return ExitCode.STOPPED

    def _run_once(self) -> int:
        try:
            # In a process group of its own, so that a signal to our group reaches it only once, through us.
            self._child = subprocess.Popen(  # noqa: S603 - the Procfile's own commands
                self._command,
                process_group=0,
                preexec_fn=_terminate_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        except OSError as error:
            logger.error("cannot start %r: %s", self._command[0], error.strerror)  # noqa: TRY400 - a traceback adds nothing
            return ExitCode.BAD_SETTINGS
        if self._stop.is_set():  # the signal arrived while the child was being started
            self._child.terminate()
        return self._child.wait()


def _terminate_with_parent() -> None:
    # A supervisor that is killed with SIGKILL cannot stop its child, which would keep running and occupy its port.
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def describe_exit(exit_code: int) -> str:
    """Return a :class:`subprocess.Popen` return code in words."""
    return f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exited with code {exit_code}"


def main() -> int:
    """Supervise the program of ``SUPERVISED_COMMAND``."""
    logs.configure("INFO", "text")
    supervisor = Supervisor(shlex.split(os.environ.pop("SUPERVISED_COMMAND")))
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGINT, supervisor.stop)
    signal.signal(signal.SIGALRM, supervisor.kill)
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
