"""A service's health: written to a file every few seconds, read by ``--health``.

Healthy means connected and progressing, not merely alive: a service that hangs stops writing, and a stale heartbeat is
a fault.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from shared.checks import CheckResult
from shared.files import write_atomically

logger = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_S = 5.0
STALE_AFTER_S = 60.0

HEALTHY = "connected and progressing"
"""The content of the file without a fault; an empty one is left by a power cut."""


class Health:
    """The health of this process, in a file."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._reported: str | None = None
        self._reported_at = 0.0
        self._write_failed = False

    def report(self, fault: str | None) -> None:
        """Write the fault, or with None that there is none; cheap to call often.

        It is written if it has changed or a heartbeat is due. A full disk is logged once; the heartbeat becomes stale.
        """
        text, now = fault or HEALTHY, self._clock()
        if text == self._reported and abs(now - self._reported_at) < HEARTBEAT_INTERVAL_S:
            return
        self._reported, self._reported_at = text, now
        try:
            # Two fsyncs every five seconds would wear out an SD card.
            write_atomically(self._path, text, durable=False)
        except OSError as error:
            if not self._write_failed:
                logger.warning("cannot write the health to %s: %s; --health will report a fault", self._path, error)
            self._write_failed = True
        else:
            self._write_failed = False


def check_health(path: Path, now: float) -> CheckResult:
    """Return what the running service reported last, and a fault if that is too long ago."""
    try:
        text, modified_at = path.read_text(errors="replace"), path.stat().st_mtime
    except FileNotFoundError:
        return _fault(f"no heartbeat in {path}; start the service, or set STATE_DIR to the folder that it uses")
    except OSError as error:
        return _fault(f"cannot read {path}: {error.strerror}; run this as the service's user")
    # The clock may have been set back since.
    age_s = abs(now - modified_at)
    if age_s > STALE_AFTER_S or not text:
        last_fault = f" (the last fault: {text})" if text not in ("", HEALTHY) else ""
        return _fault(f"no heartbeat for {age_s:.0f} s{last_fault}; see the service's log, then restart it")
    return CheckResult(ok=text == HEALTHY, what="health", text=text)


def _fault(text: str) -> CheckResult:
    return CheckResult(ok=False, what="health", text=text)
