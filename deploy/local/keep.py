"""Keeps one program of the pipeline running: ``KEEP_COMMAND='python -m services.poller' python -m deploy.local.keep``.

honcho ends everything when one of its processes ends, so each process is this restarter with the program as its child.
What the child's exit code means stands in :class:`shared.lifecycle.ExitCode`: bad settings are passed on, taken over is
waited out, and anything else starts the child again after a growing delay, also when somebody stopped it.

The command comes by an environment variable, so that ``pkill -f services.poller`` hits the poller and not its keeper.
"""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from types import FrameType

from shared.lifecycle import ExitCode

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 15.0
SETTLED_AFTER_S = 60.0
"""A child that ran this long before it ended gets the first delay again."""
KILL_AFTER_S = 10
PR_SET_PDEATHSIG = 1  # linux/prctl.h

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Keeper:
    """Runs a command, again and again until told to stop."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()

    def stop(self, _signal_number: int, _frame: FrameType | None) -> None:
        """Pass the signal on to the child and give it a while; a signal handler."""
        self._stop.set()
        signal.alarm(KILL_AFTER_S)
        if self._child is not None:
            self._child.terminate()

    def kill(self, _signal_number: int, _frame: FrameType | None) -> None:
        """End a child that did not end when asked; a signal handler."""
        if self._child is not None:
            say(f"still running {KILL_AFTER_S} s after SIGTERM: killed")
            self._child.kill()

    def run(self) -> int:
        """Return the exit code to end with, once the child has ended for good or we were told to stop."""
        delay_s = FIRST_DELAY_S
        while not self._stop.is_set():
            started = time.monotonic()
            exit_code = self._run_once()
            if self._stop.is_set():
                break
            if exit_code == ExitCode.BAD_SETTINGS:
                return exit_code
            if exit_code == ExitCode.TAKEN_OVER:
                say("exit 3: another program uses this MQTT client id, so this one stays idle; stop the other first")
                self._stop.wait()
                break
            if time.monotonic() - started > SETTLED_AFTER_S:
                delay_s = FIRST_DELAY_S
            say(f"{how_it_ended(exit_code)}, starts again in {delay_s:g} s")
            self._stop.wait(delay_s)
            delay_s = min(2 * delay_s, MAX_DELAY_S)
        return ExitCode.STOPPED

    def _run_once(self) -> int:
        try:
            # In a process group of its own, so that a signal to our group reaches it once: through us.
            self._child = subprocess.Popen(  # noqa: S603 - the Procfile's own commands
                self._command,
                process_group=0,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        except OSError as error:
            say(f"can't start {self._command[0]!r}: {error.strerror}")
            return ExitCode.BAD_SETTINGS
        if self._stop.is_set():  # the signal came while the child was being started
            self._child.terminate()
        return self._child.wait()


def _end_with_parent() -> None:
    # A keeper that is killed with SIGKILL can pass nothing on; its child must not live on and hold its port.
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def how_it_ended(exit_code: int) -> str:
    """Return the words for a :class:`subprocess.Popen` return code."""
    return f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit {exit_code}"


def say(line: str) -> None:
    """Tell what happened in one line."""
    print(line, flush=True)  # noqa: T201 - honcho puts the process's name in front


def main() -> int:
    """Keep the program of ``KEEP_COMMAND``."""
    keeper = Keeper(shlex.split(os.environ.pop("KEEP_COMMAND")))
    signal.signal(signal.SIGTERM, keeper.stop)
    signal.signal(signal.SIGINT, keeper.stop)
    signal.signal(signal.SIGALRM, keeper.kill)
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main())
