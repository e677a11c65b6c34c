"""Counts of energy that must not fall: one that does is left out until it is plain that it began again.

A gateway that was replaced, or whose meters were set up anew, counts from a lower number on and goes on there. A count
that falls by multiples of 2^32 J has wrapped, and is no count of the lifetime any more.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from services.poller import quirks
from shared.readings import Reading

BELIEVED_AFTER_S = 300.0
"""A gateway that has just started may tell zeros for minutes (pyenphase/pyenphase, docs/known_issues.md)."""

COUNTERS = frozenset(
    {
        "energy_lifetime_wh",
        "import_lifetime_wh",
        "export_lifetime_wh",
        "charge_lifetime_wh",
        "discharge_lifetime_wh",
        "energy_delivered_wh",
        "energy_received_wh",
    }
)

AnyReading = TypeVar("AnyReading", bound=Reading)


@dataclass(slots=True)
class _Count:
    highest_wh: float
    fell_at: float | None = None


@dataclass(slots=True)
class Counters:
    """What a gateway has counted so far."""

    monotonic: Callable[[], float]
    _counts: dict[tuple[str, str], _Count] = field(default_factory=dict)
    left_out: int = 0
    """How many values were left out."""

    def checked(self, reading: AnyReading) -> AnyReading:
        """Return the reading without the counts that have fallen."""
        fallen = [
            name
            for name in COUNTERS & type(reading).model_fields.keys()
            if (energy_wh := getattr(reading, name)) is not None and self._has_fallen(reading.kind, name, energy_wh)
        ]
        if not fallen:
            return reading
        self.left_out += len(fallen)
        return reading.model_copy(update=dict.fromkeys(fallen))

    def _has_fallen(self, kind: str, name: str, energy_wh: float) -> bool:
        count = self._counts.setdefault((kind, name), _Count(energy_wh))
        fall_wh = count.highest_wh - energy_wh
        if fall_wh <= quirks.MIN_FALL_WH:
            count.highest_wh, count.fell_at = max(count.highest_wh, energy_wh), None
            return False
        if count.fell_at is None:
            count.fell_at = self.monotonic()
        if quirks.is_wrap(fall_wh) or self.monotonic() - count.fell_at < BELIEVED_AFTER_S:
            return True
        self._counts[kind, name] = _Count(energy_wh)
        return False
