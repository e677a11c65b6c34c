"""The physics: energy is conserved, and the same seed gives the same house."""

import math
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from astral import Observer
from astral.sun import elevation

from services.simulator.battery import Battery
from services.simulator.day import Roof
from services.simulator.house import House
from services.simulator.inverters import REPORT_INTERVAL_S, Inverters, make_inverters
from services.simulator.sun import Place, Sun

BERLIN = ZoneInfo("Europe/Berlin")
ROOF = Roof(
    "7", Place(47.66, 9.18), "Europe/Berlin", date(2026, 6, 1), 1, metered=True, inverters=12, battery=Battery(0, 0)
)
WITH_BATTERY = replace(ROOF, battery=Battery(10_000, 7_680))
THREE_PHASES = replace(WITH_BATTERY, phases=3)
ROOFS = {"single-phase": ROOF, "battery": WITH_BATTERY, "three-phase battery": THREE_PHASES}
MIDNIGHT = int(datetime(2026, 6, 20, tzinfo=BERLIN).timestamp())
DAY_S = 86400


@pytest.fixture(params=ROOFS.values(), ids=list(ROOFS))
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    """Return three houses, for which the same laws hold."""
    return House(request.param, tmp_path)


def test_the_sun_is_where_astral_computes_it() -> None:
    """The elevations agree to half a degree, over the year and the day."""
    place = Place(47.66, 9.18)
    for month in (1, 3, 6, 10):
        for hour in (6, 9, 12, 15, 18):
            time = datetime(2026, month, 11, hour, tzinfo=UTC)
            expected = elevation(Observer(place.latitude, place.longitude), time, with_refraction=False)
            assert Sun.on(place, time.timestamp()).elevation_degrees(time.timestamp()) == pytest.approx(
                expected, abs=0.5
            )


def test_counters_over_a_day_are_the_integral_of_the_power(house: House) -> None:
    """Integrated numerically in steps of twelve seconds."""
    step_s = 12
    produced = standby = imported = exported = discharged = charged = load = 0.0
    before = house.at(MIDNIGHT)
    for second in range(MIDNIGHT, MIDNIGHT + DAY_S, step_s):
        middle = house.at(second + step_s // 2).power
        hours = step_s / 3600
        produced += max(0, middle.production_w) * hours
        standby += max(0, -middle.production_w) * hours
        discharged += max(0, middle.battery_w) * hours
        charged += max(0, -middle.battery_w) * hours
        load += middle.load_w * hours
        imported += sum(max(0, net_w) for net_w in middle.net_w) * hours
        exported += sum(max(0, -net_w) for net_w in middle.net_w) * hours
    after = house.at(MIDNIGHT + DAY_S - 1)
    whole = house.at(MIDNIGHT + DAY_S).lifetime - before.lifetime

    assert whole.produced_wh == pytest.approx(produced, rel=1e-4)
    assert whole.standby_wh == pytest.approx(standby, rel=1e-2)
    assert whole.load_wh == pytest.approx(load, rel=1e-4)
    assert whole.discharged_wh == pytest.approx(discharged, rel=1e-3, abs=0.1)
    assert whole.charged_wh == pytest.approx(charged, rel=1e-3, abs=0.1)
    assert sum(whole.imported_wh) == pytest.approx(imported, rel=1e-3, abs=0.5)
    assert sum(whole.exported_wh) == pytest.approx(exported, rel=1e-3, abs=0.5)
    assert after.today.produced_wh == pytest.approx(whole.produced_wh, abs=0.01)


def test_energy_is_conserved_at_every_moment(house: House) -> None:
    """Load is production plus battery plus grid, and so are their energies."""
    for second in range(MIDNIGHT, MIDNIGHT + DAY_S, 613):
        moment = house.at(second)
        power, energy = moment.power, moment.lifetime
        assert power.load_w == pytest.approx(power.production_w + power.battery_w + sum(power.net_w), abs=1e-6)
        grid_wh = sum(energy.imported_wh) - sum(energy.exported_wh)
        own_wh = energy.produced_wh - energy.standby_wh + energy.discharged_wh - energy.charged_wh
        assert energy.load_wh == pytest.approx(own_wh + grid_wh, abs=1e-3)
        assert energy.consumed_wh == pytest.approx(energy.produced_wh - energy.standby_wh + grid_wh, abs=1e-6)


def test_counters_never_move_backwards(house: House) -> None:
    """Each counter grows or keeps its value, over midnight too."""
    before = house.at(MIDNIGHT - 3600).lifetime.to_numbers()
    for second in range(MIDNIGHT - 3000, MIDNIGHT + DAY_S, 600):
        now = house.at(second).lifetime.to_numbers()
        assert all(new >= old for new, old in zip(now, before, strict=True))
        before = now


def test_power_has_no_step_at_midnight(house: House) -> None:
    """The last value of a day is the first of the next."""
    last, first = house.at(MIDNIGHT - 1).power, house.at(MIDNIGHT).power
    assert first.load_w == pytest.approx(last.load_w, abs=2)
    assert first.production_w == pytest.approx(last.production_w, abs=0.01)
    assert sum(first.net_w) == pytest.approx(sum(last.net_w), abs=10)
    assert first.stored_wh == pytest.approx(last.stored_wh, abs=1)


@pytest.mark.parametrize("roof", [WITH_BATTERY, THREE_PHASES])
def test_the_battery_stays_within_its_limits(roof: Roof, tmp_path: Path) -> None:
    """Over three days it charges and discharges between reserve and capacity, with a loss."""
    house = House(roof, tmp_path)
    battery = roof.battery
    moments = [house.at(second) for second in range(MIDNIGHT, MIDNIGHT + 3 * DAY_S, 150)]
    stored = [moment.power.stored_wh for moment in moments]
    assert battery.reserve_wh <= min(stored)
    assert max(stored) <= battery.capacity_wh
    assert all(abs(moment.power.battery_w) <= battery.power_w for moment in moments)
    moved = moments[-1].lifetime - moments[0].lifetime
    assert moved.charged_wh > moved.discharged_wh - (stored[0] - stored[-1]) > 0
    assert moved.charged_wh * 0.95 - moved.discharged_wh == pytest.approx(stored[-1] - stored[0], abs=1)


def test_production_at_night_is_slightly_negative_with_meters_and_zero_without(tmp_path: Path) -> None:
    """A production meter measures the inverters' standby power; inverters do not report it."""
    metered = House(ROOF, tmp_path).at(MIDNIGHT).power.production_w
    assert -5 < metered < 0
    assert House(replace(ROOF, metered=False), tmp_path).at(MIDNIGHT).power.production_w == 0


def test_the_same_seed_gives_the_same_house_and_another_seed_another(tmp_path: Path) -> None:
    """A day is a pure function of seed, place and time."""
    times = range(MIDNIGHT, MIDNIGHT + DAY_S, 1800)
    one, same = House(ROOF, tmp_path / "one"), House(ROOF, tmp_path / "same")
    other = House(replace(ROOF, seed="8"), tmp_path / "other")
    assert [one.at(time) for time in times] == [same.at(time) for time in times]
    assert one.at(MIDNIGHT + DAY_S // 2).power != other.at(MIDNIGHT + DAY_S // 2).power


def test_counters_continue_after_a_restart_with_or_without_the_totals_file(tmp_path: Path) -> None:
    """The file is a cache: with it, without it and with a corrupt one the counters are the same."""
    first = House(WITH_BATTERY, tmp_path).at(MIDNIGHT + 40_000)
    (file,) = tmp_path.iterdir()
    assert House(WITH_BATTERY, tmp_path).at(MIDNIGHT + 40_000) == first
    file.write_text('[["half a')
    assert House(WITH_BATTERY, tmp_path).at(MIDNIGHT + 40_000) == first


def test_production_is_higher_in_summer_than_in_winter_and_at_noon_than_in_the_morning(tmp_path: Path) -> None:
    """The sun, and not the random weather, determines the shape."""
    house = House(replace(ROOF, commissioned=date(2025, 12, 1)), tmp_path)

    def month_wh(year: int, month: int) -> float:
        start, end = (datetime(year, month, day, tzinfo=BERLIN).timestamp() for day in (2, 28))
        return house.produced_wh(int(end))[0] - house.produced_wh(int(start))[0]

    assert month_wh(2026, 6) > 2 * month_wh(2025, 12) > 0
    noon, morning = (house.at(MIDNIGHT + hour * 3600).power.production_w for hour in (13, 6))
    assert noon > morning > 0


def test_inverters_share_the_production_and_report_at_their_own_seconds(tmp_path: Path) -> None:
    """Every five minutes by daylight; the sum is the production, and the last report is kept at night."""
    house = House(ROOF, tmp_path)
    inverters = Inverters(house, make_inverters("122098765432", ROOF.inverters))
    noon = MIDNIGHT + 13 * 3600
    reports = inverters.reports(noon)
    assert len({report.inverter.serial for report in reports}) == ROOF.inverters
    for report in reports:
        assert report.time % REPORT_INTERVAL_S == report.inverter.offset_s
        assert 0 <= noon - report.time < REPORT_INTERVAL_S
        assert report.power_w == round(report.energy_j / REPORT_INTERVAL_S)
        assert report.power_w <= report.inverter.max_report_w
    lifetime_wh = sum(report.lifetime_j for report in reports) / 3600
    assert lifetime_wh == pytest.approx(house.at(noon).lifetime.produced_wh, rel=0.01)
    mean_w = (house.produced_wh(noon)[0] - house.produced_wh(noon - 600)[0]) * 6
    assert sum(report.power_w for report in reports) == pytest.approx(mean_w, rel=0.5)

    evening, night = inverters.reports(MIDNIGHT + 23 * 3600), inverters.reports(MIDNIGHT + DAY_S + 2 * 3600)
    assert [report.power_w for report in evening] == [report.power_w for report in night]
    assert [report.time for report in evening] == [report.time for report in night]
    assert all(report.today_wh == 0 for report in night)


def test_energy_is_conserved_on_the_day_of_a_clock_change(tmp_path: Path) -> None:
    """A local day of 25 hours has no gap and no overlap."""
    house = House(replace(ROOF, commissioned=date(2026, 10, 20)), tmp_path)
    midnight = int(datetime(2026, 10, 25, tzinfo=BERLIN).timestamp())
    next_midnight = int(datetime(2026, 10, 26, tzinfo=BERLIN).timestamp())
    assert next_midnight - midnight == 25 * 3600
    last = house.at(next_midnight - 1)
    assert math.isclose(last.lifetime.load_wh, house.at(next_midnight).lifetime.load_wh, abs_tol=0.1)
    assert house.at(next_midnight).today.load_wh == 0


def test_a_time_before_the_commissioning_is_an_error(tmp_path: Path) -> None:
    """The message has the date."""
    with pytest.raises(ValueError, match="commissioned on 2026-06-01"):
        House(ROOF, tmp_path).at(MIDNIGHT - 100 * DAY_S)
