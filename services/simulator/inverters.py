"""The newest report of each inverter: every five minutes by daylight, each inverter at its own second."""

import random
from dataclasses import dataclass, replace

from services.simulator.day import INVERTER_W
from services.simulator.house import House

REPORT_INTERVAL_S = 300
"""An inverter's default (Matthew1471/Enphase-API, IVP/PEB/ReportSettings.adoc)."""
MAX_DAYS_BACK = 3
"""How many days are searched for the last report."""


@dataclass(frozen=True)
class Inverter:
    """One microinverter."""

    serial: str
    share: float
    """Its fraction of the production."""
    offset_s: int
    """When it reports within each interval."""
    max_report_w: int


@dataclass(frozen=True)
class Report:
    """The newest report of one inverter."""

    inverter: Inverter
    time: int
    """Epoch seconds; 0 if it has never reported."""
    power_w: int
    """The mean of the interval."""
    energy_j: int
    """In the interval."""
    lifetime_j: int
    today_wh: int


def make_inverters(serial: str, count: int) -> list[Inverter]:
    """Return the inverters of the gateway with this serial number."""
    rng = random.Random(f"{serial} inverters")  # noqa: S311 - reproducible hardware, not a secret
    factors = [rng.uniform(0.96, 1.04) for _ in range(count)]
    first = rng.randrange(10**5) * 1000
    return [
        Inverter(
            f"4822{first + number:08d}",
            factor / sum(factors),
            rng.randrange(REPORT_INTERVAL_S),
            round(INVERTER_W * count * factor / sum(factors)),
        )
        for number, factor in enumerate(factors, 1)
    ]


class Inverters:
    """All inverters of a house; each report is computed once."""

    def __init__(self, house: House, inverters: list[Inverter]) -> None:
        self._house = house
        self._inverters = inverters
        self._newest: dict[str, Report] = {}

    def reports(self, now: int) -> list[Report]:
        """Return the newest report of each inverter; at night, the last one of the evening."""
        midnight = self._house.roof.midnight(self._house.roof.local_date(now))
        return [self._newest_report(inverter, now, midnight) for inverter in self._inverters]

    def _newest_report(self, inverter: Inverter, now: int, midnight: int) -> Report:
        time = self._report_time(inverter, now)
        newest = self._newest.get(inverter.serial)
        if newest is None or newest.time != time:
            newest = self._newest[inverter.serial] = self._compute_report(inverter, time)
        return newest if time >= midnight else replace(newest, today_wh=0)

    def _report_time(self, inverter: Inverter, now: int) -> int:
        for days_back in range(MAX_DAYS_BACK):
            daylight = self._house.daylight(now, days_back)
            if daylight:
                first, last = daylight
                latest = min(now, last)
                time = latest - (latest - inverter.offset_s) % REPORT_INTERVAL_S
                if time >= first:
                    return time
        return 0

    def _compute_report(self, inverter: Inverter, time: int) -> Report:
        if not time:
            return Report(inverter, 0, 0, 0, 0, 0)
        lifetime_wh, today_wh = self._house.produced_wh(time)
        before_wh, _ = self._house.produced_wh(time - REPORT_INTERVAL_S)
        energy_wh = (lifetime_wh - before_wh) * inverter.share
        return Report(
            inverter,
            time,
            round(energy_wh * 3600 / REPORT_INTERVAL_S),
            round(energy_wh * 3600),
            round(lifetime_wh * inverter.share * 3600),
            round(today_wh * inverter.share),
        )
