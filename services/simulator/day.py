"""One day of the house in steps of a minute: power is linear between minutes, and energy its exact integral."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from services.simulator.battery import Battery, simulate_battery
from services.simulator.curve import Curve
from services.simulator.energy import Energy
from services.simulator.household import load_w
from services.simulator.sun import Place, Sun
from services.simulator.weather import sky_transmission

STEP_S = 60
STEP_H = STEP_S / 3600
SUN_STEP_MINUTES = 5

PANEL_W = 400.0
INVERTER_W = 340.0
SYSTEM_EFFICIENCY = 0.8
STANDBY_W = 0.08
"""What an inverter consumes at night; metered gateways measure it as a small negative production."""

LOAD_FRACTIONS = {1: (1.0,), 2: (0.56, 0.44), 3: (0.42, 0.33, 0.25)}
"""The fraction of the load on each phase, by the number of phases."""


@dataclass(frozen=True)
class Roof:
    """The parameters of a simulated house; equal parameters give equal days."""

    seed: str
    place: Place
    timezone: str
    commissioned: date
    phases: int
    metered: bool
    inverters: int
    battery: Battery

    def midnight(self, day: date) -> int:
        """Return when a local day begins, in epoch seconds."""
        return int(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.timezone)).timestamp())

    def local_date(self, time: float) -> date:
        """Return the local date of a time in epoch seconds."""
        return datetime.fromtimestamp(time, ZoneInfo(self.timezone)).date()


@dataclass(frozen=True)
class Power:
    """Power at one time, in watts."""

    production_w: float
    load_w: float
    battery_w: float
    """Positive when it discharges."""
    net_w: tuple[float, ...]
    """Of each phase at the grid meter; positive for import."""
    stored_wh: float
    """Energy in the battery."""


class Day:
    """The house from one local midnight to the next."""

    def __init__(self, roof: Roof, day: date, stored_wh: float) -> None:
        """Compute the day.

        Args:
            roof: the house.
            day: its local date.
            stored_wh: energy in the battery at midnight.
        """
        self.start = roof.midnight(day)
        seed = f"{roof.seed} {day}"
        minutes = (roof.midnight(day + timedelta(days=1)) - self.start) // STEP_S
        production_w = _production_w(roof, seed, self.start, minutes)
        loads_w = load_w(seed, minutes)
        if roof.battery.capacity_wh:
            surplus_w = [production - load for production, load in zip(production_w, loads_w, strict=True)]
            battery_w, energies_wh = simulate_battery(roof.battery, surplus_w, stored_wh, STEP_H)
        else:
            battery_w = energies_wh = [0.0] * (minutes + 1)
        supply_w = [(one + other) / roof.phases for one, other in zip(production_w, battery_w, strict=True)]
        self._production_w = Curve(production_w, STEP_H)
        self._load_w = Curve(loads_w, STEP_H)
        self._battery_w = Curve(battery_w, STEP_H)
        self._stored_wh = Curve(energies_wh, STEP_H)
        self._net_w = [
            Curve([fraction * load - supply for load, supply in zip(loads_w, supply_w, strict=True)], STEP_H)
            for fraction in LOAD_FRACTIONS[roof.phases]
        ]
        light = [minute for minute, power_w in enumerate(production_w) if power_w > roof.inverters]
        self.daylight = (self.start + light[0] * STEP_S, self.start + light[-1] * STEP_S) if light else None
        """When the production first and last exceeds a watt for each inverter, in epoch seconds."""

    def power(self, time: float) -> Power:
        """Return the power at a time of this day."""
        point = self._point(time)
        return Power(
            self._production_w.at(*point),
            self._load_w.at(*point),
            self._battery_w.at(*point),
            tuple(net_w.at(*point) for net_w in self._net_w),
            self._stored_wh.at(*point),
        )

    def produced_wh(self, time: float) -> float:
        """Return the production from this day's midnight to a time of it."""
        return self._production_w.areas(*self._point(time))[0]

    def energy(self, time: float) -> Energy:
        """Return the energy from this day's midnight to a time of it."""
        point = self._point(time)
        return _energy_of(
            self._production_w.areas(*point),
            self._load_w.areas(*point),
            self._battery_w.areas(*point),
            [net_w.areas(*point) for net_w in self._net_w],
        )

    def total_energy(self) -> Energy:
        """Return the energy from this midnight to the next."""
        return _energy_of(
            self._production_w.total_areas(),
            self._load_w.total_areas(),
            self._battery_w.total_areas(),
            [net_w.total_areas() for net_w in self._net_w],
        )

    @property
    def stored_at_end_wh(self) -> float:
        """The energy in the battery at the next midnight."""
        return self._stored_wh.values[-1]

    def _point(self, time: float) -> tuple[int, float]:
        step, rest_s = divmod(time - self.start, STEP_S)
        return int(step), rest_s / STEP_S


Areas = tuple[float, float]


def _energy_of(production: Areas, load: Areas, battery: Areas, net: list[Areas]) -> Energy:
    """Return the energy that areas above and below zero amount to."""
    imported, exported = zip(*net, strict=True)
    return Energy(*production, load[0], battery[1], battery[0], imported, exported)


def _production_w(roof: Roof, seed: str, start: int, minutes: int) -> list[float]:
    """Return the production of a day in watts, one value a minute."""
    sun = Sun.on(roof.place, start + minutes * STEP_S / 2)
    knots = range(start, start + (minutes + SUN_STEP_MINUTES + 1) * STEP_S, SUN_STEP_MINUTES * STEP_S)
    light = [sun.clear_sky_w_per_m2(time) for time in knots]
    clear_sky = [
        left + (right - left) * part / SUN_STEP_MINUTES
        for left, right in pairwise(light)
        for part in range(SUN_STEP_MINUTES)
    ]
    panels_w = roof.inverters * PANEL_W * SYSTEM_EFFICIENCY / 1000
    max_w = roof.inverters * INVERTER_W
    night_w = -roof.inverters * STANDBY_W if roof.metered else 0.0
    return [
        min(max_w, panels_w * light * fraction) if light else night_w
        for light, fraction in zip(clear_sky, sky_transmission(seed, minutes), strict=False)
    ]
