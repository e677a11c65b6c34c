"""Every target of every panel, sent to a real Graphite with the readings of a simulated year."""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.docker.dashboards import QUERIES, Graphite, Query, queries_of, running
from tests.docker.draw import draw
from tests.docker.simulated_days import (
    DAY_S,
    HOUR_S,
    INTERRUPTED,
    PREFIX,
    QUARTER_HOUR_S,
    UNINTERRUPTED,
    UNMETERED,
    SimulatedDays,
)

ELSEWHERE = "America/New_York"
"""Graphite's time zone, which must not change any result."""


@pytest.fixture(scope="session")
def graphite(docker_compose_command: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graphite]:
    """Yield a Graphite with the simulated days; the Compose command is what requires Docker."""
    with running(tmp_path_factory.mktemp("house"), ELSEWHERE) as graphite:
        yield graphite


# --- Every panel ---


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_target_returns_data(graphite: Graphite, query: Query) -> None:
    """Graphite returns at least one series with a value, and its name is readable."""
    series = graphite.fetch(query)

    assert any(series.values())
    assert all(re.fullmatch(r"[\w .-]+", name) for name in series)


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_target_of_a_gateway_without_meters_is_no_error(graphite: Graphite, query: Query) -> None:
    """What is not measured is an empty panel."""
    graphite.fetch(query, UNMETERED)


def test_every_panel_is_rendered_by_graphite(graphite: Graphite, tmp_path: Path) -> None:
    """There is a picture of each panel."""
    draw(graphite, tmp_path)

    pictures = [picture.read_bytes() for picture in tmp_path.iterdir()]
    assert len(pictures) == len({(query.dashboard["uid"], query.panel["id"]) for query in QUERIES})
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_the_variable_lists_the_gateways_without_the_services(graphite: Graphite) -> None:
    """The gateways are selected by their serial numbers."""
    for dashboard in {id(query.dashboard): query.dashboard for query in QUERIES}.values():
        [serial] = [each for each in dashboard["templating"]["list"] if each["name"] == "serial"]
        found = graphite.find(serial["query"].replace("$prefix", PREFIX))
        selected = [name for name in found if re.search(serial["regex"].strip("/"), name)]

        assert "services" in found
        assert sorted(selected) == [UNINTERRUPTED, INTERRUPTED, UNMETERED]


# --- Energies ---


def true_energies(days: SimulatedDays, since: int, until: int) -> dict[str, float]:
    """Return the energies of the house between two times."""
    energy = days.counted(since, until)
    return {
        "Production": energy.produced_wh,
        "Consumption": energy.consumed_wh + energy.discharged_wh - energy.charged_wh,
        "Import": sum(energy.imported_wh),
        "Export": sum(energy.exported_wh),
    }


def test_energy_today_is_the_difference_of_the_counters(graphite: Graphite) -> None:
    """The sum of today's quarter-hours is what was counted since midnight."""
    series = graphite.panel("Energy today")

    expected = true_energies(graphite.days, graphite.days.midnight, graphite.days.now)
    assert {name: sum(values.values()) for name, values in series.items()} == pytest.approx(expected, abs=1)
    assert expected["Production"] > 1000


def test_a_quarter_hour_has_the_energy_counted_in_it(graphite: Graphite) -> None:
    """The bounds of a quarter-hour are exact to ten seconds."""
    days = graphite.days
    series = graphite.panel("Energy today")

    for start in range(days.midnight + QUARTER_HOUR_S, days.now - QUARTER_HOUR_S, QUARTER_HOUR_S):
        expected = true_energies(days, start - 10, start + QUARTER_HOUR_S - 10)
        assert {name: values[start] for name, values in series.items()} == pytest.approx(expected, abs=0.1)


def test_energy_is_right_across_a_gap_and_a_reboot(graphite: Graphite) -> None:
    """A gap loses no energy; counters that restart lose only what they counted until the poller accepts them."""
    days, interruption = graphite.days, graphite.days.interruption
    series = graphite.panel("Energy today", INTERRUPTED)

    day = true_energies(days, days.midnight, days.now)
    unaccepted = true_energies(days, interruption.rebooted_at - 10, interruption.rebooted_at + 300)
    expected = {name: day[name] - unaccepted[name] for name in day}
    assert {name: sum(values.values()) for name, values in series.items()} == pytest.approx(expected, abs=2)


def test_the_energy_of_a_gap_is_spread_evenly_over_it(graphite: Graphite) -> None:
    """The quarter-hours of a gap are equal, and their sum is the increase of the counter."""
    days, (begin, end) = graphite.days, graphite.days.interruption.gap
    production = graphite.panel("Energy today", INTERRUPTED)["Production"]

    bars = [production[start] for start in range(begin + QUARTER_HOUR_S, end - QUARTER_HOUR_S, QUARTER_HOUR_S)]
    counted_wh = true_energies(days, begin, end)["Production"]
    assert bars == pytest.approx([counted_wh * QUARTER_HOUR_S / (end - begin)] * len(bars))


@pytest.mark.parametrize(
    ("panel", "slot_s", "label"),
    [
        ("The last 7 days", 10, "%Y-%m-%d"),
        ("The last 30 days", 60, "%Y-%m-%d"),
        ("The last 12 months", 900, "%Y-%m"),
    ],
)
def test_days_and_months_are_the_difference_of_the_counters(
    graphite: Graphite, panel: str, slot_s: int, label: str
) -> None:
    """Hours summed by local days and months, as Grafana does, are what was counted from midnight to midnight."""
    days, timezone = graphite.days, ZoneInfo(graphite.days.timezone)

    def group(time: int) -> str:
        return datetime.fromtimestamp(time, timezone).strftime(label)

    shown_since = queries_of(panel)[0].since(days.now, timezone)
    midnights = range(max(shown_since, days.roof.midnight(days.roof.commissioned)), days.now, DAY_S)
    begins = {group(midnight): midnight for midnight in reversed(midnights)}
    begins = dict(sorted(begins.items()))
    ends = [*list(begins.values())[1:], days.now]
    for name, hours in graphite.panel(panel).items():
        summed: dict[str, float] = dict.fromkeys(begins, 0)
        for time, energy_wh in hours.items():
            summed[group(time)] += energy_wh
        expected = {each: true_energies(days, begins[each], end)[name] for each, end in zip(begins, ends, strict=True)}
        first = next(iter(begins))
        # Energy before the first reading of the time range is not counted, and a year ago readings are an hour apart.
        assert summed.pop(first) == pytest.approx(expected.pop(first), abs=500)
        # The energy of a slot at either end may be counted in the adjacent day or month.
        assert summed == pytest.approx(expected, abs=1 + 1000 * slot_s / HOUR_S)


def test_self_consumption_and_self_sufficiency_are_percentages_of_todays_energies(graphite: Graphite) -> None:
    """Both match their definitions."""
    energy = true_energies(graphite.days, graphite.days.midnight, graphite.days.now)
    panel = graphite.panel("Self-consumption and self-sufficiency today")
    percentages = {name: values[max(values)] for name, values in panel.items()}

    assert percentages == pytest.approx(
        {
            "Self-consumption": 100 * (1 - energy["Export"] / energy["Production"]),
            "Self-sufficiency": 100 * (1 - energy["Import"] / energy["Consumption"]),
        },
        abs=0.1,
    )
    assert all(0 < share < 100 for share in percentages.values())


def test_power_now_is_the_newest_power(graphite: Graphite) -> None:
    """Consumption includes the battery, which the gateway leaves out."""
    power = graphite.days.house.at(graphite.days.now).power
    newest = {name: values[max(values)] for name, values in graphite.panel("Power now").items()}

    assert newest == pytest.approx(
        {
            "Production": power.production_w,
            "Consumption": power.load_w,
            "Grid": sum(power.net_w),
            "Battery": power.battery_w,
        }
    )


# --- Inverters and pipeline ---


def test_a_shaded_and_a_silent_inverter_have_the_lowest_percentages(graphite: Graphite) -> None:
    """Half the light is half the median, no report is 0, and the lowest come last."""
    days = graphite.days
    today = graphite.panel("Today, compared with the median")
    share = {serial: values[max(values)] for serial, values in today.items()}

    assert list(share)[-2:] == [days.shaded, days.silent]
    assert share.pop(days.silent) == 0
    assert share.pop(days.shaded) == pytest.approx(50, abs=5)
    assert list(share.values()) == pytest.approx([100] * len(share), abs=6)


def test_energy_from_reported_power_is_close_to_the_counters(graphite: Graphite) -> None:
    """The sum of five-minute powers is within three percent of the inverters' counters."""
    estimated = graphite.panel("Energy today, from reported power")
    counted = graphite.panel("Energy today, from the inverters' counters")

    for serial, hours in counted.items():
        if serial != graphite.days.silent:
            assert sum(estimated[serial].values()) == pytest.approx(sum(hours.values()), rel=0.03)


def test_the_time_without_readings_is_the_length_of_the_gap(graphite: Graphite) -> None:
    """A gap of two hours is 120 minutes; a gateway without a gap has none."""
    title = "Time without readings today"
    uninterrupted, interrupted = (graphite.panel(title, serial)["Minutes"] for serial in (UNINTERRUPTED, INTERRUPTED))

    assert sum(uninterrupted.values()) == 0
    assert sum(interrupted.values()) == pytest.approx(120, abs=5)


def test_the_age_of_the_newest_reading_grows_during_a_gap(graphite: Graphite) -> None:
    """It was two hours at the end of the gap, and is that of the newest slot now."""
    (begin, end) = graphite.days.interruption.gap
    ages = graphite.panel("Age of the newest reading", INTERRUPTED)["Age"]

    assert ages[max(ages)] <= 20
    assert max(ages.values()) == pytest.approx(end - begin, abs=60)


def test_readings_per_minute_and_errors_are_what_was_counted(graphite: Graphite) -> None:
    """Twelve readings in ten seconds are seventy-two a minute; errors that did not occur have no series."""
    rates = {name: sorted(values.values()) for name, values in graphite.panel("Readings per minute").items()}
    errors = graphite.panel("Errors by hour")

    assert {name: values[len(values) // 2] for name, values in rates.items()} == dict.fromkeys(
        ("taken", "delivered", "receipted"), 72
    )
    assert set(errors) == {"poller.requests_failed", "poller.readings_resent"}
    assert sum(errors["poller.requests_failed"].values()) == 7
