"""The gateway's clock held against ours: how wrong it is, and when a reading was really taken.

A gateway sets its clock by the internet; where it has none, or has lost its power, the clock can be hours wrong, or
stand at 1970 (amykyta3/envoy-logger, envoy_logger/model.py). Times that are wrong alike keep their order and distance
when all are corrected by one offset.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

BOUND_S = 60
"""A clock that is off by less is right: its readings are up to 30 s old, and an answer may take seconds."""

STEADY_S = 5
"""The offset is told in whole seconds, and each look at it is off by as many as the answer took."""

MAX_OFFSET_S = 31 * 86_400
"""A gateway that ran cannot lose more than this; two clocks farther apart are a recording, or ours is wrong."""


@dataclass(slots=True)
class GatewayClock:
    """What is known of a gateway's clock."""

    ours: Callable[[], float] = time.time
    built_at: int = 0
    """When the gateway's firmware was built: a clock that shows an earlier time was reset."""
    _offset_s: float = field(default=0.0, init=False)

    def shows(self, shown: int, at: float, built_at: int = 0) -> None:
        """Take in what the gateway's clock showed at a time of ours."""
        self.built_at = built_at
        offset_s = shown - at
        if abs(offset_s - self._offset_s) > STEADY_S:
            self._offset_s = offset_s

    @property
    def offset_s(self) -> int | None:
        """How far the gateway's clock is ahead of ours, None where it is right."""
        return round(self._offset_s) if abs(self._offset_s) > BOUND_S else None

    @property
    def correction_s(self) -> int:
        """What is added to the gateway's times to make them true.

        Nothing where the two clocks are years apart, unless the gateway's was plainly reset: then it cannot be known
        which of them is wrong.
        """
        if self.offset_s is None:
            return 0
        was_reset = self.ours() + self._offset_s < self.built_at
        return -self.offset_s if was_reset or abs(self._offset_s) <= MAX_OFFSET_S else 0

    def now(self) -> int:
        """Return what the gateway's clock shows now."""
        return int(self.ours() - self.correction_s if self.correction_s else self.ours())

    def agrees(self, told: int) -> bool:
        """Return whether a time that the gateway gave for a measurement of now fits what is known of its clock."""
        return abs(told - (self.ours() + self._offset_s)) <= BOUND_S


def told(offset_s: int) -> str:
    """Return how far a gateway's clock is off, as a person says it: ``2 h behind ours``."""
    size_s = abs(offset_s)
    if size_s >= 2 * 86_400:
        size = f"{size_s / 86_400:.0f} days"
    elif size_s >= 2 * 3600:
        size = f"{size_s / 3600:.1f} h"
    else:
        size = f"{size_s} s"
    return f"{size} {'ahead of' if offset_s > 0 else 'behind'} ours"
