"""The pretend gateway: its model, and what it knows at a moment, after reboots and with a clock that may be wrong."""

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

_SOFTWARE = {5: "D5.0.62", 7: "D7.6.175", 8: "D8.2.4286"}
FIRMWARE_WITH_TOKENS = 7


@dataclass(frozen=True)
class Model:
    """What stands on the wall: fixed at the start."""

    serial: str
    firmware: int
    phases: int
    metered: bool
    timezone: str
    inverters: tuple[Inverter, ...]
    batteries: int
    battery: Battery
    """All batteries taken together."""
    commissioned_at: int

    @property
    def software(self) -> str:
        """Return the firmware as /info names it."""
        return _SOFTWARE[self.firmware]

    @property
    def takes_tokens(self) -> bool:
        """Return whether it speaks HTTPS and wants a token, as firmware 7 and newer do."""
        return self.firmware >= FIRMWARE_WITH_TOKENS

    @cached_property
    def battery_serials(self) -> list[str]:
        """Return the batteries' serial numbers."""
        first = random.Random(f"{self.serial} batteries").randrange(10**5) * 1000  # noqa: S311 - made-up hardware
        return [f"4921{first + number:08d}" for number in range(1, self.batteries + 1)]


@dataclass(frozen=True)
class View:
    """All that the gateway can tell at one second; times are as its own clock shows them."""

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
    """The gateway on its wall: house, clock and inverters in, views out."""

    def __init__(self, model: Model, house: House, clock: Clock) -> None:
        self.model = model
        self.clock = clock
        self._house = house
        self._inverters = Inverters(house, list(model.inverters))
        self._lock = threading.Lock()
        self._rebooted_at: int | None = None
        self._view: tuple[tuple[int, int, int | None], View] | None = None

    def reboot(self) -> None:
        """Start all counters at zero from now on."""
        self._rebooted_at = int(self.clock.now())

    def restore_counters(self) -> None:
        """Count from the commissioning again, as if there had been no reboot."""
        self._rebooted_at = None

    def view(self) -> View:
        """Return what the gateway knows now. The same for a whole second, so that its answers agree."""
        wrong_by_s = int(self.clock.wrong_by_s)
        key = (int(self.clock.now()), wrong_by_s, self._rebooted_at)
        with self._lock:
            if self._view is None or self._view[0] != key:
                self._view = (key, self._look(*key))
            return self._view[1]

    def _look(self, now: int, wrong_by_s: int, rebooted_at: int | None) -> View:
        moment = self._house.at(now)
        lifetime, today, week = moment.lifetime, moment.today, moment.last_seven_days
        reports = self._inverters.reports(now)
        since = self.model.commissioned_at
        if rebooted_at is not None and rebooted_at <= now:
            before = self._house.at(rebooted_at)
            since = rebooted_at
            lifetime = lifetime - before.lifetime
            if today.load_wh > lifetime.load_wh:  # it rebooted today
                today = lifetime
            if week.load_wh > (lifetime - today).load_wh:
                week = lifetime - today
            reports = [_since_reboot(report, before.lifetime.produced_wh) for report in reports]
        hours = (now - since) / 3600
        meters = (
            read_meters(moment.power, lifetime, hours, now, battery=self.model.batteries > 0)
            if self.model.metered
            else []
        )
        shown = [replace(report, time=report.time + wrong_by_s if report.time else 0) for report in reports]
        return View(now + wrong_by_s, moment.power, lifetime, today, week, hours, tuple(meters), tuple(shown))


def _since_reboot(report: Report, produced_before_wh: float) -> Report:
    lifetime_j = max(0, report.lifetime_j - round(produced_before_wh * report.inverter.share * 3600))
    return replace(report, lifetime_j=lifetime_j, today_wh=min(report.today_wh, round(lifetime_j / 3600)))
