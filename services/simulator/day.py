"""One day of the house, minute by minute: power as straight lines between minutes, energy as their exact integral."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from services.simulator.battery import Battery, follow
from services.simulator.curve import Curve
from services.simulator.energy import Energy
from services.simulator.household import load_w
from services.simulator.sun import Place, Sun
from services.simulator.weather import sky_transmission

STEP_S = 60
_STEP_H = STEP_S / 3600
_SUN_STEP_MINUTES = 5

PANEL_W = 400.0
INVERTER_W = 340.0
_SYSTEM_EFFICIENCY = 0.8
STANDBY_W = 0.08
"""What an inverter draws at night, shown by metered gateways as small negative production."""

LOAD_SHARES = {1: (1.0,), 2: (0.56, 0.44), 3: (0.42, 0.33, 0.25)}


@dataclass(frozen=True)
class Roof:
    """All that makes one simulated house different from another."""

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
        """Return the local date at an epoch second."""
        return datetime.fromtimestamp(time, ZoneInfo(self.timezone)).date()


@dataclass(frozen=True)
class Power:
    """Watts at one moment: production and discharge are positive, load and charge draw on them."""

    production_w: float
    load_w: float
    battery_w: float
    net_w: tuple[float, ...]
    """Over the grid meter, one value for each phase; import is positive."""
    stored_wh: float


class Day:
    """The house from one local midnight to the next."""

    def __init__(self, roof: Roof, day: date, stored_wh: float) -> None:
        self.start = roof.midnight(day)
        seed = f"{roof.seed} {day}"
        minutes = (roof.midnight(day + timedelta(days=1)) - self.start) // STEP_S
        production_w = _production_w(roof, seed, self.start, minutes)
        used_w = load_w(seed, minutes)
        if roof.battery.capacity_wh:
            surplus_w = [made - used for made, used in zip(production_w, used_w, strict=True)]
            battery_w, held_wh = follow(roof.battery, surplus_w, stored_wh, _STEP_H)
        else:
            battery_w = held_wh = [0.0] * (minutes + 1)
        given_w = [(made + given) / roof.phases for made, given in zip(production_w, battery_w, strict=True)]
        self._production_w = Curve(production_w, _STEP_H)
        self._load_w = Curve(used_w, _STEP_H)
        self._battery_w = Curve(battery_w, _STEP_H)
        self._stored_wh = Curve(held_wh, _STEP_H)
        self._net_w = [
            Curve([share * used - given for used, given in zip(used_w, given_w, strict=True)], _STEP_H)
            for share in LOAD_SHARES[roof.phases]
        ]
        light = [minute for minute, made_w in enumerate(production_w) if made_w > roof.inverters]
        self.daylight = (self.start + light[0] * STEP_S, self.start + light[-1] * STEP_S) if light else None
        """When the first and the last light worth a report reached the panels, in epoch seconds."""

    def _point(self, time: float) -> tuple[int, float]:
        step, rest_s = divmod(time - self.start, STEP_S)
        return int(step), rest_s / STEP_S

    def power(self, time: float) -> Power:
        """Return the power at a moment of this day."""
        point = self._point(time)
        return Power(
            self._production_w.at(*point),
            self._load_w.at(*point),
            self._battery_w.at(*point),
            tuple(net_w.at(*point) for net_w in self._net_w),
            self._stored_wh.at(*point),
        )

    def produced_wh(self, time: float) -> float:
        """Return what was produced from this day's midnight to a moment of it."""
        return self._production_w.areas(*self._point(time))[0]

    def energy(self, time: float) -> Energy:
        """Return what has flowed from this day's midnight to a moment of it."""
        point = self._point(time)
        return _energy(
            self._production_w.areas(*point),
            self._load_w.areas(*point),
            self._battery_w.areas(*point),
            [net_w.areas(*point) for net_w in self._net_w],
        )

    def whole_energy(self) -> Energy:
        """Return what flows from this midnight to the next."""
        return _energy(
            self._production_w.whole(),
            self._load_w.whole(),
            self._battery_w.whole(),
            [net_w.whole() for net_w in self._net_w],
        )

    @property
    def stored_at_end_wh(self) -> float:
        """Return what the battery holds at the next midnight."""
        return self._stored_wh.values[-1]


_Areas = tuple[float, float]


def _energy(production: _Areas, load: _Areas, battery: _Areas, net: list[_Areas]) -> Energy:
    imported, exported = zip(*net, strict=True)
    return Energy(*production, load[0], battery[1], battery[0], imported, exported)


def _production_w(roof: Roof, seed: str, start: int, minutes: int) -> list[float]:
    sun = Sun.on(roof.place, start + minutes * STEP_S / 2)
    knots = range(start, start + (minutes + _SUN_STEP_MINUTES + 1) * STEP_S, _SUN_STEP_MINUTES * STEP_S)
    light = [sun.clear_sky_w_per_m2(time) for time in knots]
    clear = [
        left + (right - left) * part / _SUN_STEP_MINUTES
        for left, right in pairwise(light)
        for part in range(_SUN_STEP_MINUTES)
    ]
    panels_w = roof.inverters * PANEL_W * _SYSTEM_EFFICIENCY / 1000
    max_w = roof.inverters * INVERTER_W
    night_w = -roof.inverters * STANDBY_W if roof.metered else 0.0
    return [
        min(max_w, panels_w * light * share) if light else night_w
        for light, share in zip(clear, sky_transmission(seed, minutes), strict=False)
    ]
