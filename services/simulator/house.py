"""The house through all its days: counters since the commissioning, and the day that is asked for."""

import hashlib
import json
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from services.simulator.day import Day, Power, Roof
from services.simulator.energy import Energy

_DAYS_KEPT = 4
_PHYSICS_VERSION = 1
"""To be raised when a day comes out differently than before: old totals are then counted again."""


@dataclass(frozen=True)
class Moment:
    """The house at one second: its power, and its counters."""

    time: int
    power: Power
    lifetime: Energy
    today: Energy
    last_seven_days: Energy
    """The seven days before today."""


class House:
    """One house, a pure function of its roof and the time; what days add up to is kept in a file."""

    def __init__(self, roof: Roof, totals_dir: Path) -> None:
        self.roof = roof
        digest = hashlib.sha256(f"{_PHYSICS_VERSION} {roof!r}".encode()).hexdigest()
        self._totals_file = totals_dir / f"days-{digest[:16]}.json"
        self._lock = threading.Lock()
        self._days: OrderedDict[date, Day] = OrderedDict()
        self._lifetimes = [Energy.none(roof.phases)]
        """The counters at each midnight since the commissioning."""
        self._stored_wh = [roof.battery.capacity_wh / 2]
        """The battery's charge at each midnight since the commissioning."""
        self._read_totals()

    def at(self, time: float) -> Moment:
        """Return the house at a second. Raises ValueError for a time before the commissioning."""
        second = int(time)
        day_date = self.roof.local_date(second)
        number = (day_date - self.roof.commissioned).days
        if number < 0:
            raise ValueError(f"the house was commissioned on {self.roof.commissioned}")
        with self._lock:
            self._count_until(number)
            day = self._day(number)
            today = day.energy(second)
            midnight = self._lifetimes[number]
            return Moment(
                second,
                day.power(second),
                midnight + today,
                today,
                midnight - self._lifetimes[max(0, number - 7)],
            )

    def daylight(self, time: float, days_back: int) -> tuple[int, int] | None:
        """Return when the first and the last light reached the panels on a day counted back from `time`.

        None on a day without light, and before the commissioning.
        """
        number = (self.roof.local_date(time) - self.roof.commissioned).days - days_back
        if number < 0:
            return None
        with self._lock:
            self._count_until(number)
            return self._day(number).daylight

    def produced_wh(self, time: int) -> tuple[float, float]:
        """Return what was produced since the commissioning and since local midnight: `at` for a single counter."""
        number = (self.roof.local_date(time) - self.roof.commissioned).days
        if number < 0:
            return 0.0, 0.0
        with self._lock:
            self._count_until(number)
            today_wh = self._day(number).produced_wh(time)
            return self._lifetimes[number].produced_wh + today_wh, today_wh

    def _day(self, number: int) -> Day:
        day_date = self.roof.commissioned + timedelta(days=number)
        day = self._days.get(day_date)
        if day is None:
            day = self._days[day_date] = Day(self.roof, day_date, self._stored_wh[number])
            if len(self._days) > _DAYS_KEPT:
                self._days.popitem(last=False)
        return day

    def _count_until(self, number: int) -> None:
        """Add up whole days until the midnight of day `number` is known, and keep them."""
        if len(self._lifetimes) > number:
            return
        while len(self._lifetimes) <= number:
            day = self._day(len(self._lifetimes) - 1)
            self._lifetimes.append(self._lifetimes[-1] + day.whole_energy())
            self._stored_wh.append(day.stored_at_end_wh)
        self._write_totals()

    def _read_totals(self) -> None:
        try:
            rows = json.loads(self._totals_file.read_text(encoding="utf-8"))
            lifetimes = [Energy.from_numbers([float(number) for number in row[1:]], self.roof.phases) for row in rows]
            stored = [float(row[0]) for row in rows]
        except (OSError, ValueError, TypeError, IndexError):
            return  # they are only there to save time
        if rows:
            self._lifetimes, self._stored_wh = lifetimes, stored

    def _write_totals(self) -> None:
        rows = [[stored, *energy.to_numbers()] for stored, energy in zip(self._stored_wh, self._lifetimes, strict=True)]
        self._totals_file.parent.mkdir(parents=True, exist_ok=True)
        new = self._totals_file.with_suffix(f".{os.getpid()}-{id(self)}.new")
        new.write_text(json.dumps(rows), encoding="utf-8")
        new.replace(self._totals_file)
