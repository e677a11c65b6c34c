"""A year of points is aggregated correctly in Whisper files, which are created by the rules as Carbon parses them."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest
import whisper

RULES = Path(__file__).parents[2] / "deploy" / "graphite"
MINUTE_S, QUARTER_HOUR_S, HOUR_S, DAY_S = 60, 900, 3600, 86_400
YEAR_S = 365 * DAY_S
NOW = 1_798_761_600
"""A midnight; the tests do not depend on the clock."""

RESET = NOW - 200 * DAY_S + 12 * HOUR_S + 7 * MINUTE_S

GATEWAY = "enphase.122012345678"
POWER = f"{GATEWAY}.production.power_w"
LIFETIME = f"{GATEWAY}.production.energy_lifetime_wh"
INVERTER = f"{GATEWAY}.inverter.482300000001.power_w"
PEAK = f"{GATEWAY}.inverter.482300000001.max_power_w"
INTERVAL = f"{GATEWAY}.interval.production_wh"

READ_RULES = """
import json, sys
from carbon.conf import settings
settings["CONF_DIR"] = sys.argv[1]
from carbon.storage import loadAggregationSchemas, loadStorageSchemas
schemas, aggregations = loadStorageSchemas(), loadAggregationSchemas()
rules = {}
for path in sys.argv[2:]:
    schema = next(each for each in schemas if each.matches(path))
    factor, method = next(each for each in aggregations if each.matches(path)).archives
    rules[path] = [[archive.getTuple() for archive in schema.archives], factor, method]
print(json.dumps(rules))
"""

Span = tuple[int, int]
Rule = tuple[list[tuple[int, int]], float, str]


@cache
def rules() -> Mapping[str, Rule]:
    """Return the archives, xFilesFactor and aggregation method with which Carbon creates each metric's file."""
    paths = [POWER, LIFETIME, INVERTER, PEAK, INTERVAL, *STORED]
    # In a process of its own, because the modules that Carbon imports emit warnings.
    read = subprocess.run(
        [sys.executable, "-c", READ_RULES, str(RULES), *paths], capture_output=True, text=True, timeout=60, check=True
    )
    return {path: (archives, factor, method) for path, (archives, factor, method) in json.loads(read.stdout).items()}


TEN_YEARS = [(10, 7 * DAY_S), (60, 90 * DAY_S), (900, 10 * YEAR_S)]
STORED = {
    f"{GATEWAY}.consumption.power_w": ("average", TEN_YEARS),
    f"{GATEWAY}.consumption.energy_lifetime_wh": ("last", TEN_YEARS),
    f"{GATEWAY}.grid.import_lifetime_wh": ("last", TEN_YEARS),
    f"{GATEWAY}.battery.charge_percent": ("average", TEN_YEARS),
    f"{GATEWAY}.battery.discharge_lifetime_wh": ("last", TEN_YEARS),
    f"{GATEWAY}.meter.net-consumption.phase.1.energy_received_wh": ("last", TEN_YEARS),
    f"{GATEWAY}.meter.production.voltage_v": ("average", TEN_YEARS),
    f"{GATEWAY}.energy.production_today_wh": ("last", TEN_YEARS),
    f"{GATEWAY}.energy.consumption_last_7_days_wh": ("last", TEN_YEARS),
    f"{GATEWAY}.inverter.482300000001.energy_lifetime_wh": ("last", TEN_YEARS),
    f"{GATEWAY}.inverter.482300000001.max_power_w": ("max", TEN_YEARS),
    f"{GATEWAY}.inverter.482300000001.temperature_c": ("average", TEN_YEARS),
    f"{GATEWAY}.interval.export_wh": ("sum", TEN_YEARS[2:]),
    "enphase.services.poller.metrics.journal_rows": ("last", TEN_YEARS[:2]),
    "stats.gauges.solar.production": ("average", TEN_YEARS),
    "house.solar.122012345678.grid.power_w": ("average", TEN_YEARS),
}


@pytest.mark.parametrize("path", STORED)
def test_a_metric_has_the_archives_and_the_aggregation_of_its_kind(path: str) -> None:
    """Powers are averaged, counters keep their last value, and one point in a coarse slot is enough."""
    archives, factor, method = rules()[path]

    stored_archives = [(step, step * count) for step, count in archives]
    assert (method, stored_archives, factor) == (STORED[path][0], STORED[path][1], 0)


def power_w(time: int) -> float:
    """Return a power that rises and falls with the day, different each day, with a ripple."""
    height = 3000 + 500 * math.sin(time // DAY_S)
    return max(0.0, height * math.sin((time % DAY_S / DAY_S - 0.25) * 2 * math.pi)) + time % 97


def lifetime_wh(time: int) -> float:
    """Return a counter that was reset 200 days ago, in the middle of a quarter-hour."""
    began = RESET if time >= RESET else NOW - 2 * YEAR_S
    return (time - began) / 10


def stored(file: Path, path: str, step_s: int, value: Callable[[int], float], *spans: Span) -> str:
    """Return a Whisper file with the points of a year, in order: the days of the spans, and one day a week."""
    archives, factor, method = rules()[path]
    whisper.create(str(file), archives, xFilesFactor=factor, aggregationMethod=method)
    days = {*range(NOW - 52 * 7 * DAY_S, NOW, 7 * DAY_S), *(day for span in spans for day in range(*span, DAY_S))}
    for midnight in sorted(days):
        points = [(time, value(time)) for time in range(midnight, midnight + DAY_S, step_s)]
        whisper.update_many(str(file), points, now=midnight + DAY_S)
    return str(file)


def slots(file: str, since: int, until: int) -> dict[int, float]:
    """Return the values of the finest archive that covers the span, without empty slots."""
    (start, end, step), values = whisper.fetch(file, since - 1, until - 1, now=NOW)
    return {time: value for time, value in zip(range(start, end, step), values, strict=True) if value is not None}


def expected(
    since: int,
    until: int,
    slot_s: int,
    step_s: int,
    value: Callable[[int], float],
    aggregate: Callable[[Iterable[float]], float],
) -> dict[int, float]:
    """Return the value that each slot must have."""
    return {
        slot: aggregate([value(time) for time in range(slot, slot + slot_s, step_s)])
        for slot in range(since, until, slot_s)
    }


def mean(values: Iterable[float]) -> float:
    """Return the mean."""
    counted = list(values)
    return sum(counted) / len(counted)


def last(values: Iterable[float]) -> float:
    """Return the last value."""
    return list(values)[-1]


A_YEAR_AGO = (NOW - YEAR_S, NOW - YEAR_S + 3 * DAY_S)
A_MONTH_AGO = (NOW - 30 * DAY_S, NOW - 28 * DAY_S)
YESTERDAY = (NOW - DAY_S, NOW)


def test_a_year_of_power_is_averaged(tmp_path: Path) -> None:
    """With one poll a minute, each value is stored for 90 days, and then the mean of each quarter-hour."""
    file = stored(tmp_path / "power.wsp", POWER, MINUTE_S, power_w, A_YEAR_AGO, A_MONTH_AGO, YESTERDAY)

    assert slots(file, *A_YEAR_AGO) == pytest.approx(expected(*A_YEAR_AGO, QUARTER_HOUR_S, MINUTE_S, power_w, mean))
    assert slots(file, *A_MONTH_AGO) == expected(*A_MONTH_AGO, MINUTE_S, MINUTE_S, power_w, last)
    assert slots(file, *YESTERDAY) == expected(*YESTERDAY, MINUTE_S, MINUTE_S, power_w, last)


def test_ten_seconds_are_averaged_to_minutes_and_these_to_quarter_hours(tmp_path: Path) -> None:
    """With a poll every ten seconds, each value is stored for a week."""
    before_90_days = (NOW - 99 * DAY_S, NOW - 98 * DAY_S)
    file = stored(tmp_path / "power.wsp", POWER, 10, power_w, before_90_days, A_MONTH_AGO, YESTERDAY)

    assert slots(file, *YESTERDAY) == expected(*YESTERDAY, 10, 10, power_w, last)
    assert slots(file, *A_MONTH_AGO) == pytest.approx(expected(*A_MONTH_AGO, MINUTE_S, 10, power_w, mean))
    assert slots(file, *before_90_days) == pytest.approx(expected(*before_90_days, QUARTER_HOUR_S, 10, power_w, mean))


def test_a_year_of_a_counter_keeps_the_last_value_of_each_quarter_hour(tmp_path: Path) -> None:
    """The energy of any day is the difference of two quarter-hours, and a reset is still a fall."""
    around_the_reset = (NOW - 201 * DAY_S, NOW - 199 * DAY_S)
    file = stored(tmp_path / "counter.wsp", LIFETIME, MINUTE_S, lifetime_wh, A_YEAR_AGO, around_the_reset)

    for span in (A_YEAR_AGO, around_the_reset):
        assert slots(file, *span) == expected(*span, QUARTER_HOUR_S, MINUTE_S, lifetime_wh, last)


def test_a_year_of_five_minute_reports_is_stored_completely(tmp_path: Path) -> None:
    """Four of five slots are empty, and each report is in its minute and in its quarter-hour."""
    file = stored(tmp_path / "inverter.wsp", INVERTER, 300, power_w, A_YEAR_AGO, YESTERDAY)
    peak = stored(tmp_path / "peak.wsp", PEAK, 300, power_w, A_YEAR_AGO)

    assert slots(file, *A_YEAR_AGO) == pytest.approx(expected(*A_YEAR_AGO, QUARTER_HOUR_S, 300, power_w, mean))
    assert slots(peak, *A_YEAR_AGO) == expected(*A_YEAR_AGO, QUARTER_HOUR_S, 300, power_w, max)
    assert slots(file, *YESTERDAY) == expected(*YESTERDAY, 300, 300, power_w, last)


def test_a_year_of_quarter_hours_is_stored_unchanged(tmp_path: Path) -> None:
    """Intervals are never aggregated, and one that is written again is not added."""
    year = (NOW - YEAR_S, NOW)
    file = stored(tmp_path / "interval.wsp", INTERVAL, QUARTER_HOUR_S, power_w, year)
    whisper.update_many(file, [(NOW - YEAR_S, power_w(NOW - YEAR_S))] * 2, now=NOW)

    assert slots(file, *year) == expected(*year, QUARTER_HOUR_S, QUARTER_HOUR_S, power_w, last)


def test_points_that_are_a_month_late_are_aggregated_like_the_others(tmp_path: Path) -> None:
    """A journal's readings after a long outage, or a backfill, change the means of their quarter-hours."""
    file = stored(tmp_path / "late.wsp", POWER, MINUTE_S, power_w)
    minutes = range(NOW - 31 * DAY_S, NOW - 30 * DAY_S, MINUTE_S)

    whisper.update_many(file, [(time, power_w(time)) for time in minutes], now=NOW)

    later = NOW + 80 * DAY_S
    (start, end, step), values = whisper.fetch(file, minutes[0] - 1, minutes[-1], now=later)
    aggregated = dict(zip(range(start, end, step), values, strict=True))
    assert aggregated == pytest.approx(
        expected(minutes[0], minutes[-1] + MINUTE_S, QUARTER_HOUR_S, MINUTE_S, power_w, mean)
    )
