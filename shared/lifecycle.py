"""How a service is stopped, and its exit codes."""

import enum
import os
import signal
import threading
from types import FrameType


class ExitCode(enum.IntEnum):
    """The exit code of a service, for the program that supervises it."""

    STOPPED = 0
    FAILED = 1
    BAD_SETTINGS = 2
    """The settings must be corrected first; a restart would fail again."""
    TAKEN_OVER = 3
    """Another program uses this service's MQTT client id; a restart would disconnect that one."""


def restrict_new_files() -> None:
    """Let only their owner read and write the files and folders that this process makes from now on."""
    os.umask(0o077)


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM or SIGINT sets.

    Call it from the main thread. Wait on this event instead of sleeping, so that a stop is never delayed.
    """
    stop = threading.Event()

    def set_stop(_signal_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, set_stop)
    signal.signal(signal.SIGINT, set_stop)
    return stop
