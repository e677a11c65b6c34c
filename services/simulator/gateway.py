"""The simulated gateway: its model, and its state at a second, after reboots and with a clock that can be wrong."""

import random
import threading
from dataclasses import dataclass, replace
from functools import cached_property

from services.simulator.battery import Battery
from services.simulator.clock import Clock
from services.simulator.day import Power
from services.simulator.energy import Energy
from services.simulator.house import House
from services.simulator.inverters import Inverter, Inverters, Report
from services.simulator.meters import Meter, read_meters

SOFTWARE = {5: "D5.0.62", 7: "D7.6.175", 8: "D8.2.4286"}
TOKEN_FIRMWARE = 7
"""The first firmware that requires a token."""


@dataclass(frozen=True)
class Model:
    """The gateway's properties, which do not change."""

    serial: str
    firmware: int
    phases: int
    metered: bool
    timezone: str
    inverters: tuple[Inverter, ...]
    batteries: int
    battery: Battery
    """The sum of all batteries."""
    commissioned_at: int

    @property
    def software(self) -> str:
        """The firmware as in ``/info``."""
        return SOFTWARE[self.firmware]

    @property
    def needs_token(self) -> bool:
        """Whether it uses HTTPS and requires a token."""
        return self.firmware >= TOKEN_FIRMWARE

    @cached_property
    def battery_serials(self) -> list[str]:
        """The batteries' serial numbers."""
        first = random.Random(f"{self.serial} batteries").randrange(10**5) * 1000  # noqa: S311 - not a secret
        return [f"4921{first + number:08d}" for number in range(1, self.batteries + 1)]


@dataclass(frozen=True)
class State:
    """What the gateway knows at one second; times are those of its own clock."""

    time: int
    power: Power
    lifetime: Energy
    today: Energy
    last_seven_days: Energy
    hours: float
    """Since the commissioning or the last reboot."""
    meters: tuple[Meter, ...]
    reports: tuple[Report, ...]


class Gateway:
    """A gateway that measures a house."""

    def __init__(self, model: Model, house: House, clock: Clock) -> None:
        self.model = model
        self._clock = clock
        self._house = house
        self._inverters = Inverters(house, list(model.inverters))
        self._lock = threading.Lock()
        self._rebooted_at: int | None = None
        self._newest: tuple[tuple[int, int, int | None], State] | None = None
        """The newest state, with what it was computed from."""

    def reboot(self) -> None:
        """Reset all counters to zero."""
        self._rebooted_at = int(self._clock.now())

    def restore_counters(self) -> None:
        """Undo the reset of :meth:`reboot`."""
        self._rebooted_at = None

    def state(self) -> State:
        """Return the state now; the same for a whole second, so that responses agree."""
        key = (int(self._clock.now()), int(self._clock.gateway_offset_s), self._rebooted_at)
        with self._lock:
            if self._newest is None or self._newest[0] != key:
                self._newest = (key, self._compute_state(*key))
            return self._newest[1]

    def _compute_state(self, now: int, offset_s: int, rebooted_at: int | None) -> State:
        moment = self._house.at(now)
        lifetime, today, week = moment.lifetime, moment.today, moment.last_seven_days
        reports = self._inverters.reports(now)
        counting_since = self.model.commissioned_at
        if rebooted_at is not None and rebooted_at <= now:
            before = self._house.at(rebooted_at)
            counting_since = rebooted_at
            lifetime = lifetime - before.lifetime
            if today.load_wh > lifetime.load_wh:  # the reboot was today
                today = lifetime
            if week.load_wh > (lifetime - today).load_wh:
                week = lifetime - today
            reports = [_subtract_production(report, before.lifetime.produced_wh) for report in reports]
        hours = (now - counting_since) / 3600
        meters = (
            read_meters(moment.power, lifetime, hours, now, battery=self.model.batteries > 0)
            if self.model.metered
            else []
        )
        reports = [replace(report, time=report.time + offset_s if report.time else 0) for report in reports]
        return State(now + offset_s, moment.power, lifetime, today, week, hours, tuple(meters), tuple(reports))


def _subtract_production(report: Report, produced_wh: float) -> Report:
    """Return an inverter's report without its share of an earlier production."""
    lifetime_j = max(0, report.lifetime_j - round(produced_wh * report.inverter.share * 3600))
    return replace(report, lifetime_j=lifetime_j, today_wh=min(report.today_wh, round(lifetime_j / 3600)))
