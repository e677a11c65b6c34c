"""The house over all its days: counters since the commissioning, and the power at a time."""

import hashlib
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from services.simulator.day import Day, Power, Roof
from services.simulator.energy import Energy
from shared.files import write_atomically

MAX_DAYS_IN_MEMORY = 4
PHYSICS_VERSION = 1
"""To be incremented when the same parameters give another day, so that stored totals are computed again."""


@dataclass(frozen=True)
class Moment:
    """The house at one second: its power and its counters."""

    time: int
    power: Power
    lifetime: Energy
    today: Energy
    last_seven_days: Energy
    """The seven days before today."""


class House:
    """One house, a pure function of its parameters and the time; totals of past days are cached in a file."""

    def __init__(self, roof: Roof, totals_dir: Path) -> None:
        self.roof = roof
        digest = hashlib.sha256(f"{PHYSICS_VERSION} {roof!r}".encode()).hexdigest()
        self._totals_file = totals_dir / f"days-{digest[:16]}.json"
        self._lock = threading.Lock()
        self._days: OrderedDict[date, Day] = OrderedDict()
        self._lifetimes = [Energy.zero(roof.phases)]
        """The counters at each midnight since the commissioning."""
        self._stored_wh = [roof.battery.capacity_wh / 2]
        """The energy in the battery at each midnight since the commissioning."""
        self._read_totals()

    def at(self, time: float) -> Moment:
        """Return the house at a second.

        Raises:
            ValueError: the time is before the commissioning.
            OSError: the totals cannot be stored.
        """
        second = int(time)
        number = self._day_number(second)
        if number < 0:
            raise ValueError(f"the house was commissioned on {self.roof.commissioned}")
        with self._lock:
            self._add_days_until(number)
            day = self._day(number)
            today = day.energy(second)
            midnight = self._lifetimes[number]
            last_seven_days = midnight - self._lifetimes[max(0, number - 7)]
            return Moment(second, day.power(second), midnight + today, today, last_seven_days)

    def daylight(self, time: float, days_back: int) -> tuple[int, int] | None:
        """Return when the production began and ended on the day that is so many days before a time, in epoch seconds.

        None on a day without production, and before the commissioning.
        """
        number = self._day_number(time) - days_back
        if number < 0:
            return None
        with self._lock:
            self._add_days_until(number)
            return self._day(number).daylight

    def produced_wh(self, time: int) -> tuple[float, float]:
        """Return the production since the commissioning and since local midnight, faster than :meth:`at`."""
        number = self._day_number(time)
        if number < 0:
            return 0.0, 0.0
        with self._lock:
            self._add_days_until(number)
            today_wh = self._day(number).produced_wh(time)
            return self._lifetimes[number].produced_wh + today_wh, today_wh

    def _day_number(self, time: float) -> int:
        return (self.roof.local_date(time) - self.roof.commissioned).days

    def _day(self, number: int) -> Day:
        day_date = self.roof.commissioned + timedelta(days=number)
        day = self._days.get(day_date)
        if day is None:
            day = self._days[day_date] = Day(self.roof, day_date, self._stored_wh[number])
            if len(self._days) > MAX_DAYS_IN_MEMORY:
                self._days.popitem(last=False)
        return day

    def _add_days_until(self, number: int) -> None:
        """Add whole days until the counters at the midnight of a day are known, and store the totals."""
        if len(self._lifetimes) > number:
            return
        while len(self._lifetimes) <= number:
            day = self._day(len(self._lifetimes) - 1)
            self._lifetimes.append(self._lifetimes[-1] + day.total_energy())
            self._stored_wh.append(day.stored_at_end_wh)
        rows = [[stored, *energy.to_numbers()] for stored, energy in zip(self._stored_wh, self._lifetimes, strict=True)]
        write_atomically(self._totals_file, json.dumps(rows), durable=False)

    def _read_totals(self) -> None:
        try:
            rows = json.loads(self._totals_file.read_text(encoding="utf-8"))
            lifetimes = [Energy.from_numbers([float(number) for number in row[1:]], self.roof.phases) for row in rows]
            stored_wh = [float(row[0]) for row in rows]
        except (OSError, ValueError, TypeError, IndexError):
            return  # a missing or corrupt cache is computed again
        if rows:
            self._lifetimes, self._stored_wh = lifetimes, stored_wh
