"""The simulated clock: it may start elsewhere, run faster, and be moved forward."""

import threading
import time


class Clock:
    """The time at the house, in epoch seconds.

    `now` is true: it moves the sun. `shown` is what the gateway believes, and writes into its answers; the two differ
    while the gateway's clock is set wrong.
    """

    def __init__(self, start: float | None = None, speed: float = 1.0) -> None:
        self.speed = speed
        self.wrong_by_s = 0.0
        self._lock = threading.Lock()
        self._real = time.monotonic()
        self._simulated = time.time() if start is None else start

    def now(self) -> float:
        """Return the time at the house."""
        with self._lock:
            return self._simulated + (time.monotonic() - self._real) * self.speed

    def shown(self) -> float:
        """Return the time that the gateway shows."""
        return self.now() + self.wrong_by_s

    def advance(self, seconds: float) -> None:
        """Let time pass at once."""
        with self._lock:
            self._simulated += seconds
