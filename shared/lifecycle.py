"""How a service starts to stop, and what its exit code tells whoever started it."""

import enum
import signal
import threading
from types import FrameType


class ExitCode(enum.IntEnum):
    """What a service's exit code tells its supervisor."""

    STOPPED = 0
    FAILED = 1
    BAD_SETTINGS = 2
    """A person must act first: starting again would fail again."""
    TAKEN_OVER = 3
    """Another program uses this service's MQTT client id: starting again would throw that one out."""


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM or SIGINT sets.

    Call it from the main thread. Everything that waits, waits on this event, so that a stop is never slept through.
    """
    stop = threading.Event()

    def set_stop(_signal_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, set_stop)
    signal.signal(signal.SIGINT, set_stop)
    return stop
