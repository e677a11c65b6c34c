"""The offset of a gateway's clock, and the correction of its times.

A gateway sets its clock over the internet. Without that, or after a power loss, the clock can be hours wrong, or be
reset to 1970 (amykyta3/envoy-logger, envoy_logger/model.py). Times with the same offset keep their order and
distance when that offset is subtracted from all of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

TOLERANCE_S = 60
"""A smaller offset counts as none: readings are up to 30 s old, and a response can take seconds."""

STEADY_S = 5
"""A newly observed offset that differs by less is ignored: each observation is off by up to the response time."""

MAX_CORRECTED_OFFSET_S = 31 * 86_400
"""A running clock does not lose more. Two clocks that are farther apart are a recording, or ours is wrong."""


@dataclass(slots=True)
class GatewayClock:
    """The clock of one gateway, compared with ours."""

    ours: Callable[[], float] = time.time
    built_at: int = 0
    """When the gateway's firmware was built: a clock that shows an earlier time was reset."""
    _offset_s: float = field(default=0.0, init=False)

    def observe(self, shown: int | None, at: float, built_at: int = 0) -> None:
        """Note what the gateway's clock showed at a time of ours; None changes nothing."""
        if shown is None:
            return
        self.built_at = built_at
        offset_s = shown - at
        if abs(offset_s - self._offset_s) > STEADY_S:
            self._offset_s = offset_s

    @property
    def offset_s(self) -> int | None:
        """How far the gateway's clock is ahead of ours; None where it is right."""
        return round(self._offset_s) if abs(self._offset_s) > TOLERANCE_S else None

    @property
    def correction_s(self) -> int:
        """What is added to the gateway's times.

        Nothing where the clocks are more than a month apart and the gateway's was not reset: either may be wrong then.
        """
        if self.offset_s is None:
            return 0
        was_reset = self.ours() + self._offset_s < self.built_at
        return -self.offset_s if was_reset or abs(self._offset_s) <= MAX_CORRECTED_OFFSET_S else 0

    def now(self) -> int:
        """Return the time at which to stamp what has no time of its own; the correction makes it ours again."""
        return int(self.ours() - self.correction_s)

    def agrees(self, timestamp: int) -> bool:
        """Return whether the time of a measurement made now fits the offset that was observed."""
        return abs(timestamp - (self.ours() + self._offset_s)) <= TOLERANCE_S


def describe_offset(offset_s: int) -> str:
    """Return an offset for people: ``2.0 h behind ours``."""
    size_s = abs(offset_s)
    if size_s >= 2 * 86_400:
        size = f"{size_s / 86_400:.0f} days"
    elif size_s >= 2 * 3600:
        size = f"{size_s / 3600:.1f} h"
    else:
        size = f"{size_s} s"
    return f"{size} {'ahead of' if offset_s > 0 else 'behind'} ours"
