"""The last step of a poll: duplicates → true time → monotonic counters.

Each step has its own state, by kind of reading. The first works on the gateway's own times, so that a changed
correction makes no duplicate look new.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

from services.poller.clock import GatewayClock
from services.poller.interpret import quirks
from shared.readings import Inverter, Reading

AnyReading = TypeVar("AnyReading", bound=Reading)

CLOCK_SET_BACK_S = 3600
"""A time that is older than the newest by more comes from a gateway whose clock was set back."""

MAX_AHEAD_S = 3600
"""A reading that is further in the future has a wrong time."""

RESET_CONFIRMED_AFTER_S = 300.0
"""A gateway that has just started may report zeros for minutes (pyenphase/pyenphase, docs/known_issues.md)."""

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
"""The fields that count an energy and never fall."""


@dataclass(slots=True)
class Duplicates:
    """Recognizes readings that were read before.

    Two polls may fall into the same second of the gateway. Inverters report about every five minutes and not at night,
    and their last report is read again until then.
    """

    newest: dict[str, int] = field(default_factory=dict)
    """The newest time of each kind, by the gateway's clock."""

    def admit(self, reading: Reading) -> bool:
        """Return whether a reading is new, and remember it."""
        timestamp, newest = reading.timestamp, self.newest.get(reading.kind)
        if newest is None or timestamp > newest or timestamp < newest - CLOCK_SET_BACK_S:
            self.newest[reading.kind] = timestamp
            return True
        return timestamp < newest and not isinstance(reading, Inverter)


@dataclass(slots=True)
class _Counter:
    highest_wh: float
    fell_at: float | None = None


@dataclass(slots=True)
class MonotonicCounters:
    """Removes counters that fall, until it is certain that they were reset.

    A gateway that was replaced, or set up again, counts from a lower value on. A counter that falls by
    multiples of 2^32 J has wrapped, and is no counter of the lifetime any more.
    """

    monotonic: Callable[[], float] = time.monotonic
    counters: dict[tuple[str, str], _Counter] = field(default_factory=dict)
    """By kind and field."""
    rejected: int = 0
    """How many values were removed."""

    def without_falls(self, reading: AnyReading) -> AnyReading:
        """Return the reading without the counters that have fallen."""
        kind = reading.kind
        fallen = [
            name
            for name in _counters_of(type(reading))
            if (energy_wh := getattr(reading, name)) is not None and not self._admit(kind, name, energy_wh)
        ]
        if not fallen:
            return reading
        self.rejected += len(fallen)
        return reading.model_copy(update=dict.fromkeys(fallen))

    def _admit(self, kind: str, name: str, energy_wh: float) -> bool:
        counter = self.counters.setdefault((kind, name), _Counter(energy_wh))
        fall_wh = counter.highest_wh - energy_wh
        if fall_wh <= quirks.MIN_FALL_WH:
            counter.highest_wh, counter.fell_at = max(counter.highest_wh, energy_wh), None
            return True
        if counter.fell_at is None:
            counter.fell_at = self.monotonic()
        if quirks.is_wrap(fall_wh) or self.monotonic() - counter.fell_at < RESET_CONFIRMED_AFTER_S:
            return False
        self.counters[kind, name] = _Counter(energy_wh)
        return True


@cache
def _counters_of(reading_class: type[Reading]) -> frozenset[str]:
    return COUNTERS & reading_class.model_fields.keys()


class Corrections:
    """The pipeline of one gateway."""

    def __init__(self, clock: GatewayClock) -> None:
        self.duplicates = Duplicates()
        self.counters = MonotonicCounters()
        self._clock = clock

    def apply(self, readings: Iterable[Reading]) -> list[Reading]:
        """Return the readings that are new, at their true times, without counters that have fallen."""
        new = [reading for reading in readings if self.duplicates.admit(reading)]
        return [self.counters.without_falls(reading) for reading in at_true_times(new, self._clock)]


def at_true_times(readings: Iterable[Reading], clock: GatewayClock) -> list[Reading]:
    """Return the readings at times of our clock, without those from the future."""
    correction_s, latest = clock.correction_s, clock.ours() + MAX_AHEAD_S
    corrected = (
        reading.model_copy(update={"timestamp": reading.timestamp + correction_s}) if correction_s else reading
        for reading in readings
    )
    return [reading for reading in corrected if 0 < reading.timestamp <= latest]
