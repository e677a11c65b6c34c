"""What each inverter last reported: every five minutes by daylight, each with its own share and its own second."""

import random
from dataclasses import dataclass, replace

from services.simulator.day import INVERTER_W
from services.simulator.house import House

REPORT_INTERVAL_S = 300
"""By default an inverter reports every five minutes (Matthew1471/Enphase-API, IVP/PEB/ReportSettings.adoc)."""
_DAYS_LOOKED_BACK = 3


@dataclass(frozen=True)
class Inverter:
    """One microinverter: its serial number, its part of the production, and the second it reports at."""

    serial: str
    share: float
    offset_s: int
    max_report_w: int


@dataclass(frozen=True)
class Report:
    """The newest report of one inverter; `time` is 0 where it never reported."""

    inverter: Inverter
    time: int
    power_w: int
    """The mean over the reported five minutes."""
    energy_j: int
    lifetime_j: int
    today_wh: int


def fit_inverters(serial: str, count: int) -> list[Inverter]:
    """Return the inverters of the gateway with this serial number."""
    chance = random.Random(f"{serial} inverters")  # noqa: S311 - made-up hardware, not a secret
    factors = [chance.uniform(0.96, 1.04) for _ in range(count)]
    first = chance.randrange(10**5) * 1000
    return [
        Inverter(
            f"4822{first + number:08d}",
            factor / sum(factors),
            chance.randrange(REPORT_INTERVAL_S),
            round(INVERTER_W * count * factor / sum(factors)),
        )
        for number, factor in enumerate(factors, 1)
    ]


class Inverters:
    """All inverters of a house; each report is worked out once."""

    def __init__(self, house: House, inverters: list[Inverter]) -> None:
        self._house = house
        self._inverters = inverters
        self._newest: dict[str, Report] = {}

    def reports(self, now: int) -> list[Report]:
        """Return the newest report of each inverter; by night that is the evening's last."""
        midnight = self._house.roof.midnight(self._house.roof.local_date(now))
        return [self._newest_report(inverter, now, midnight) for inverter in self._inverters]

    def _newest_report(self, inverter: Inverter, now: int, midnight: int) -> Report:
        time = self._report_time(inverter, now)
        known = self._newest.get(inverter.serial)
        if known is None or known.time != time:
            known = self._newest[inverter.serial] = self._report(inverter, time)
        return known if time >= midnight else replace(known, today_wh=0)

    def _report_time(self, inverter: Inverter, now: int) -> int:
        for days_back in range(_DAYS_LOOKED_BACK):
            daylight = self._house.daylight(now, days_back)
            if daylight:
                first, last = daylight
                latest = min(now, last)
                time = latest - (latest - inverter.offset_s) % REPORT_INTERVAL_S
                if time >= first:
                    return time
        return 0

    def _report(self, inverter: Inverter, time: int) -> Report:
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
