"""The readings of a simulated house over the last year, and the true energies to compare them with."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.carbon_sink.points import Point, points_of
from services.simulator.battery import Battery
from services.simulator.day import Day, Roof
from services.simulator.energy import Energy
from services.simulator.house import House, Moment
from services.simulator.inverters import REPORT_INTERVAL_S, Inverters, Report, make_inverters
from services.simulator.sun import Place
from shared.readings import Batteries, Consumption, Grid, Inverter, Metrics, Production, Reading
from shared.topics import ReadingTopic

PREFIX = "enphase"
UNINTERRUPTED, INTERRUPTED, UNMETERED = "122000000001", "122000000002", "122000000003"
"""Gateways: one without a gap, one with a gap and a reboot today, one without meters."""

INVERTERS = 8
CAPACITY_WH = 5000
HOUR_OF_DAY = 14
DAYS = 366
SLOT_S, MINUTE_S, QUARTER_HOUR_S, HOUR_S, DAY_S = 10, 60, 900, 3600, 86_400
RESET_CONFIRMED_AFTER_S = 300
"""How long the poller removes a counter that has fallen: services/poller/corrections.py."""


@dataclass(frozen=True)
class Interruption:
    """The gap and the reboot of the interrupted gateway today, in epoch seconds."""

    gap: tuple[int, int]
    """From the last reading before it to the first one after it."""
    rebooted_at: int


class SimulatedDays:
    """A house with three gateways, in the time zone where it is two in the afternoon now and the sun shines."""

    def __init__(self, state: Path) -> None:
        self.now = int(datetime.now(UTC).timestamp()) // SLOT_S * SLOT_S
        offset_h = (HOUR_OF_DAY - datetime.fromtimestamp(self.now, UTC).hour + 11) % 24 - 11
        # The sign is that of POSIX: Etc/GMT-2 is two hours ahead of Greenwich.
        self.timezone = f"Etc/GMT{-offset_h:+d}"
        today = datetime.fromtimestamp(self.now, UTC).date()
        roofs = [
            Roof(
                seed=f"dashboards {weather}",
                place=Place(35.0, 15.0 * offset_h),
                timezone=self.timezone,
                commissioned=today - timedelta(days=DAYS),
                phases=1,
                metered=True,
                inverters=INVERTERS,
                battery=Battery(CAPACITY_WH, 3840),
            )
            for weather in range(20)
        ]
        # The one with the most sun today.
        self.roof = max(
            roofs, key=lambda roof: Day(roof, roof.local_date(self.now), CAPACITY_WH / 2).produced_wh(self.now)
        )
        self.house = House(self.roof, state)
        self.midnight = self.roof.midnight(self.roof.local_date(self.now))
        self.interruption = Interruption(
            (self.midnight + 9 * HOUR_S + 1800, self.midnight + 11 * HOUR_S + 1800), self.midnight + 12 * HOUR_S
        )
        self.inverters = make_inverters(UNINTERRUPTED, INVERTERS)
        self.shaded, self.silent = (inverter.serial for inverter in self.inverters[1:3])
        """One produces half of what the others produce, and one has not reported today."""

    def counted(self, since: int, until: int) -> Energy:
        """Return the energies between two times."""
        return self.house.at(until).lifetime - self.house.at(since).lifetime

    def points(self) -> Iterator[Point]:
        """Yield every point, oldest first: every ten seconds today, before at the intervals of Whisper's archives."""
        first = self.roof.midnight(self.roof.commissioned)
        for time in _times(first, self.now):
            moment = self.house.at(time)
            for reading in metered(moment):
                yield from _points(UNINTERRUPTED, reading)
            if time >= self.midnight:
                yield from self._interrupted(moment)
                yield from _points(
                    UNMETERED,
                    Production(
                        timestamp=time,
                        power_w=moment.power.production_w,
                        energy_lifetime_wh=moment.lifetime.produced_wh,
                        source="gateway",
                    ),
                )
        yield from self._inverter_points()
        yield from self._service_points()

    def _interrupted(self, moment: Moment) -> Iterator[Point]:
        interruption = self.interruption
        if interruption.gap[0] < moment.time < interruption.gap[1]:
            return
        if moment.time >= interruption.rebooted_at:
            since = self.counted(interruption.rebooted_at, moment.time)
            moment = Moment(moment.time, moment.power, since, moment.today, moment.last_seven_days)
        left_out = 0 <= moment.time - interruption.rebooted_at < RESET_CONFIRMED_AFTER_S
        for reading in metered(moment):
            for point in _points(INTERRUPTED, reading):
                if not (left_out and point.path.endswith("lifetime_wh")):
                    yield point

    def _inverter_points(self) -> Iterator[Point]:
        inverters = Inverters(self.house, self.inverters)
        days_back = self.midnight - 92 * DAY_S
        reported: dict[str, int] = {}
        yesterday = self.midnight - DAY_S
        for time in (*range(days_back, yesterday, QUARTER_HOUR_S), *range(yesterday, self.now, REPORT_INTERVAL_S)):
            for report in inverters.reports(time):
                serial = report.inverter.serial
                if report.time == reported.get(serial) or report.time < days_back:
                    continue
                reported[serial] = report.time
                if serial != self.silent or report.time < self.midnight:
                    yield from _points(UNINTERRUPTED, self._inverter(report, counts=True))
                    yield from _points(UNMETERED, self._inverter(report, counts=False))

    def _inverter(self, report: Report, *, counts: bool) -> Inverter:
        share = 0.5 if report.inverter.serial == self.shaded else 1.0
        return Inverter(
            serial=report.inverter.serial,
            timestamp=report.time,
            power_w=report.power_w * share,
            energy_lifetime_wh=report.lifetime_j / 3600 * share if counts else None,
        )

    def _service_points(self) -> Iterator[Point]:
        """Yield the metrics of the services of six hours, with an error now and then."""
        taken = 0
        for i, time in enumerate(range(self.now - 6 * HOUR_S, self.now + 1, SLOT_S)):
            taken += 6 if self.interruption.gap[0] < time < self.interruption.gap[1] else 12
            yield from _metrics(
                "poller",
                time,
                gateways=2,
                gateways_online=1,
                readings_taken=taken,
                readings_receipted=max(0, taken - 36),
                readings_resent=i // 700,
                requests_failed=i // 300,
                journal_rows=36 + i % 7,
                oldest_unreceipted_s=31.5 + i // 60 % 3,
                poll_duration_s=0.2 + i // 30 % 4 / 50,
                clock_offset_s=2.0,
            )
            yield from _metrics("carbon-sink", time, readings_delivered=taken, points_unsettled=150 + i % 11)
            yield from _metrics("token-broker", time, gateways=2, tokens_good=2, token_days_left=364.5, logins_failed=0)


def metered(moment: Moment) -> Iterator[Reading]:
    """Yield the readings that the poller takes from a gateway with meters and a battery."""
    time, power, lifetime = moment.time, moment.power, moment.lifetime
    net_w = sum(power.net_w)
    yield Production(
        timestamp=time, power_w=power.production_w, energy_lifetime_wh=lifetime.produced_wh, source="meter"
    )
    yield Consumption(timestamp=time, power_w=power.production_w + net_w, energy_lifetime_wh=lifetime.consumed_wh)
    yield Grid(
        timestamp=time,
        power_w=net_w,
        import_power_w=max(net_w, 0),
        export_power_w=max(-net_w, 0),
        import_lifetime_wh=sum(lifetime.imported_wh),
        export_lifetime_wh=sum(lifetime.exported_wh),
    )
    yield Batteries(
        timestamp=time,
        power_w=power.battery_w,
        charge_percent=100 * power.stored_wh / CAPACITY_WH,
        available_energy_wh=power.stored_wh,
        capacity_wh=CAPACITY_WH,
        charge_lifetime_wh=lifetime.charged_wh,
        discharge_lifetime_wh=lifetime.discharged_wh,
    )


def _points(serial: str, reading: Reading) -> list[Point]:
    return points_of(ReadingTopic(serial, reading.kind), reading, PREFIX, {})


def _metrics(client_id: str, time: int, **numbers: float) -> list[Point]:
    reading = Metrics.model_validate({"timestamp": time, **numbers})
    return points_of(ReadingTopic(f"services/{client_id}", "metrics"), reading, PREFIX, {})


def _times(first: int, now: int) -> Iterator[int]:
    """Yield times: hourly a year ago, every ten seconds today."""
    midnight_ago_s = DAY_S
    for since_s, until_s, step_s in (
        (now - first, 92 * DAY_S, HOUR_S),
        (92 * DAY_S, 8 * DAY_S, QUARTER_HOUR_S),
        (8 * DAY_S, midnight_ago_s, MINUTE_S),
        (midnight_ago_s, -1, SLOT_S),
    ):
        yield from range(now - since_s + (-(now - since_s)) % step_s, now - until_s, step_s)
