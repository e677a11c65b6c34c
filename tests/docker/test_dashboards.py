"""Every target of every panel, queried from a real Graphite with a simulated year, and the values it must return."""

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
    PREFIX,
    QUARTER_HOUR_S,
    TROUBLED,
    UNMETERED,
    WHOLE,
    SimulatedDays,
)

ELSEWHERE = "America/New_York"
"""Graphite's time zone, which must not matter."""


@pytest.fixture(scope="session")
def graphite(docker_compose_command: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graphite]:
    """Yield a Graphite with the simulated days; the command shows that there is an engine."""
    with running(tmp_path_factory.mktemp("house"), ELSEWHERE) as graphite:
        yield graphite


# --- Every query ---


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_target_queried_from_graphite_returns_data(graphite: Graphite, query: Query) -> None:
    """Each target of each panel gives at least one series with a value, under a name for people."""
    series = graphite.fetch(query)

    assert any(series.values())
    assert all(re.fullmatch(r"[\w .-]+", name) for name in series)


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_house_without_meters_makes_no_panel_fail(graphite: Graphite, query: Query) -> None:
    """What is not measured is an empty panel, not an error."""
    graphite.fetch(query, UNMETERED)


def test_every_panel_is_drawn_by_graphite(graphite: Graphite, tmp_path: Path) -> None:
    """Each panel has a picture to be looked at."""
    draw(graphite, tmp_path)

    pictures = [picture.read_bytes() for picture in tmp_path.iterdir()]
    assert len(pictures) == len({(query.dashboard["uid"], query.panel["id"]) for query in QUERIES})
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_the_variable_lists_the_gateways_and_not_the_services(graphite: Graphite) -> None:
    """The choice of gateways is their serial numbers."""
    for dashboard in {id(query.dashboard): query.dashboard for query in QUERIES}.values():
        [serial] = [each for each in dashboard["templating"]["list"] if each["name"] == "serial"]
        found = graphite.find(serial["query"].replace("$prefix", PREFIX))
        chosen = [name for name in found if re.search(serial["regex"].strip("/"), name)]

        assert "services" in found
        assert sorted(chosen) == [WHOLE, TROUBLED, UNMETERED]


# --- Energies are what the counters counted ---


def truth(days: SimulatedDays, since: int, until: int) -> dict[str, float]:
    """Return the energies between two times as the house knows them."""
    energy = days.counted(since, until)
    return {
        "Production": energy.produced_wh,
        "Consumption": energy.consumed_wh + energy.discharged_wh - energy.charged_wh,
        "Import": sum(energy.imported_wh),
        "Export": sum(energy.exported_wh),
    }


def test_energy_today_is_the_difference_of_the_counters(graphite: Graphite) -> None:
    """Today's quarter-hours add up to what was counted since midnight."""
    shown = graphite.panel("Energy today")

    expected = truth(graphite.days, graphite.days.midnight, graphite.days.now)
    assert {name: sum(values.values()) for name, values in shown.items()} == pytest.approx(expected, abs=1)
    assert expected["Production"] > 1000


def test_each_quarter_hour_has_its_own_energy(graphite: Graphite) -> None:
    """Each bar is what was counted in its quarter-hour, to ten seconds."""
    days = graphite.days
    shown = graphite.panel("Energy today")

    for start in range(days.midnight + QUARTER_HOUR_S, days.now - QUARTER_HOUR_S, QUARTER_HOUR_S):
        expected = truth(days, start - 10, start + QUARTER_HOUR_S - 10)
        assert {name: values[start] for name, values in shown.items()} == pytest.approx(expected, abs=0.1)


def test_energy_is_right_across_a_gap_and_a_reboot(graphite: Graphite) -> None:
    """Two hours without readings cost nothing, and counters that began again cost what they counted unseen."""
    days, problem = graphite.days, graphite.days.problem
    shown = graphite.panel("Energy today", TROUBLED)

    day = truth(days, days.midnight, days.now)
    unseen = truth(days, problem.rebooted_at - 10, problem.rebooted_at + 300)
    expected = {name: day[name] - unseen[name] for name in day}
    assert {name: sum(values.values()) for name, values in shown.items()} == pytest.approx(expected, abs=2)


def test_a_gap_is_filled_evenly_with_what_was_counted_in_it(graphite: Graphite) -> None:
    """The quarter-hours of a gap are equal, and are together what the counters gained."""
    days, (begin, end) = graphite.days, graphite.days.problem.gap
    shown = graphite.panel("Energy today", TROUBLED)["Production"]

    bars = [shown[start] for start in range(begin + QUARTER_HOUR_S, end - QUARTER_HOUR_S, QUARTER_HOUR_S)]
    counted_wh = truth(days, begin, end)["Production"]
    assert bars == pytest.approx([counted_wh * QUARTER_HOUR_S / (end - begin)] * len(bars))


@pytest.mark.parametrize(
    ("panel", "slot_s", "label"),
    [
        ("This week, day by day", 10, "%Y-%m-%d"),
        ("The last 30 days", 60, "%Y-%m-%d"),
        ("The year, month by month", 900, "%Y-%m"),
    ],
)
def test_days_and_months_are_the_difference_of_the_counters(
    graphite: Graphite, panel: str, slot_s: int, label: str
) -> None:
    """Hours added up by local days and months, as Grafana does it, are what was counted from midnight to midnight."""
    days, timezone = graphite.days, ZoneInfo(graphite.days.timezone)

    def group(time: int) -> str:
        return datetime.fromtimestamp(time, timezone).strftime(label)

    shown_since = queries_of(panel)[0].since(days.now, timezone)
    midnights = range(max(shown_since, days.roof.midnight(days.roof.commissioned)), days.now, DAY_S)
    begins = {group(midnight): midnight for midnight in reversed(midnights)}
    begins = dict(sorted(begins.items()))
    ends = [*list(begins.values())[1:], days.now]
    for name, hours in graphite.panel(panel).items():
        shown: dict[str, float] = dict.fromkeys(begins, 0)
        for time, energy_wh in hours.items():
            shown[group(time)] += energy_wh
        expected = {each: truth(days, begins[each], end)[name] for each, end in zip(begins, ends, strict=True)}
        first = next(iter(begins))
        # Before the first reading shown nothing can be counted, and these are an hour apart a year ago.
        assert shown.pop(first) == pytest.approx(expected.pop(first), abs=500)
        # At either end what flows in a slot may be counted in the neighbour.
        assert shown == pytest.approx(expected, abs=1 + 1000 * slot_s / HOUR_S)


def test_own_use_is_in_percent_of_todays_energies(graphite: Graphite) -> None:
    """Self-consumption and self-sufficiency are computed by their definitions."""
    energy = truth(graphite.days, graphite.days.midnight, graphite.days.now)
    shown = {name: values[max(values)] for name, values in graphite.panel("Own use today").items()}

    assert shown == pytest.approx(
        {
            "Self-consumption": 100 * (1 - energy["Export"] / energy["Production"]),
            "Self-sufficiency": 100 * (1 - energy["Import"] / energy["Consumption"]),
        },
        abs=0.1,
    )
    assert all(0 < share < 100 for share in shown.values())


def test_power_now_is_the_newest(graphite: Graphite) -> None:
    """The house's draw counts the battery in, which the gateway does not."""
    power = graphite.days.house.at(graphite.days.now).power
    shown = {name: values[max(values)] for name, values in graphite.panel("Power now").items()}

    assert shown == pytest.approx(
        {
            "Production": power.production_w,
            "Consumption": power.load_w,
            "Grid": sum(power.net_w),
            "Battery": power.battery_w,
        }
    )


# --- Panels and pipeline ---


def test_a_shaded_and_a_silent_inverter_are_last(graphite: Graphite) -> None:
    """Half the light is half the median, no report is nothing, and the worst come last."""
    days = graphite.days
    today = graphite.panel("Today against the median")
    share = {serial: values[max(values)] for serial, values in today.items()}

    assert list(share)[-2:] == [days.shaded, days.silent]
    assert share.pop(days.silent) == 0
    assert share.pop(days.shaded) == pytest.approx(50, abs=5)
    assert list(share.values()) == pytest.approx([100] * len(share), abs=6)


def test_energy_from_reported_power_is_close_to_the_counters(graphite: Graphite) -> None:
    """What is added up from five-minute powers is within three percent of what the inverters counted."""
    estimated = graphite.panel("Today's energy, from reported power")
    counted = graphite.panel("Today's energy, by the inverters' own counters")

    for serial, hours in counted.items():
        if serial != graphite.days.silent:
            assert sum(estimated[serial].values()) == pytest.approx(sum(hours.values()), rel=0.03)


def test_the_gap_of_a_gateway_is_counted_in_minutes(graphite: Graphite) -> None:
    """Two hours without a reading are 120 minutes; a gateway that was always read has none."""
    whole, troubled = (graphite.panel("Without a reading today", serial)["Minutes"] for serial in (WHOLE, TROUBLED))

    assert sum(whole.values()) == 0
    assert sum(troubled.values()) == pytest.approx(120, abs=5)


def test_the_age_of_the_newest_reading_grows_through_a_gap(graphite: Graphite) -> None:
    """It is that of the newest slot now, and was two hours at the gap's end."""
    (begin, end) = graphite.days.problem.gap
    ages = graphite.panel("Age of the newest reading", TROUBLED)["Age"]

    assert ages[max(ages)] <= 20
    assert max(ages.values()) == pytest.approx(end - begin, abs=60)


def test_readings_per_minute_and_errors_are_what_was_counted(graphite: Graphite) -> None:
    """Twelve readings in ten seconds are seventy-two a minute; kinds of errors that did not occur are not drawn."""
    rates = {name: sorted(values.values()) for name, values in graphite.panel("Readings per minute").items()}
    errors = graphite.panel("Errors by kind, hour by hour")

    assert {name: values[len(values) // 2] for name, values in rates.items()} == dict.fromkeys(
        ("taken", "delivered", "receipted"), 72
    )
    assert set(errors) == {"poller.requests_failed", "poller.readings_resent"}
    assert sum(errors["poller.requests_failed"].values()) == 7
