"""The simulated clock: it can start at another time, run faster, and be moved forward."""

import threading
import time


class Clock:
    """The simulated time, in epoch seconds, and the gateway's clock, which can be wrong."""

    def __init__(self, start: float | None = None, speed: float = 1.0) -> None:
        """Start the clock.

        Args:
            start: where it starts; the real time if None.
            speed: simulated seconds in a real one.
        """
        self.speed = speed
        self.gateway_offset_s = 0.0
        """How wrong the gateway's clock is."""
        self._lock = threading.Lock()
        self._started_at = time.monotonic()
        self._start = time.time() if start is None else start

    def now(self) -> float:
        """Return the simulated time, which determines the position of the sun."""
        with self._lock:
            return self._start + (time.monotonic() - self._started_at) * self.speed

    def gateway_now(self) -> float:
        """Return the time of the gateway's clock, which it writes into its responses."""
        return self.now() + self.gateway_offset_s

    def advance(self, seconds: float) -> None:
        """Move the simulated time forward."""
        with self._lock:
            self._start += seconds
