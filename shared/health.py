"""Whether a running service is well: it says so in a file every few seconds, and ``--health`` reads it.

Well means connected and progressing, not merely alive: a service that hangs stops saying anything, and that counts.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from shared.checks import CheckResult

logger = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_S = 5.0
STALE_AFTER_S = 60.0


class Health:
    """A service's word on how it is."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._said: str | None = None
        self._said_at = 0.0
        self._is_mute = False

    def report(self, fault: str | None) -> None:
        """Say what is wrong, or with None that all is well; cheap to call as often as one likes.

        On a full disk it is silent, which counts as unwell.
        """
        word, now = fault or "", self._clock()
        if word == self._said and abs(now - self._said_at) < HEARTBEAT_INTERVAL_S:
            return
        self._said, self._said_at = word, now
        beside = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(word)
            beside.replace(self._path)
        except OSError as error:
            if not self._is_mute:
                logger.warning("cannot say in %s how we are: %s", self._path, error)
            self._is_mute = True
        else:
            self._is_mute = False


def check_health(path: Path, now: float) -> CheckResult:
    """Return what a running service last said of itself."""
    try:
        fault, silent_s = path.read_text(), now - path.stat().st_mtime
    except FileNotFoundError:
        return CheckResult(
            ok=False, what="health", text=f"the service has not said anything yet in {path}; does it run?"
        )
    if silent_s > STALE_AFTER_S:
        last = f"; the last was: {fault}" if fault else ""
        return CheckResult(ok=False, what="health", text=f"no word of the service for {silent_s:.0f} s{last}")
    return CheckResult(ok=not fault, what="health", text=fault or "connected and progressing")
