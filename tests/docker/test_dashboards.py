"""Every target of every panel, asked of a real Graphite that holds a simulated year, and the numbers it must tell."""

import json
import os
import pickle
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import pytest
import requests

from services.carbon_sink.points import Point
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
from tests.programs import HOST, ROOT, wait_until

IMAGE = "graphiteapp/graphite-statsd:1.1.10-5"
DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
POINTS_A_FRAME = 5000
USUAL_WIDTH = 1000
"""Points that Grafana asks for: a panel's pixels."""

Series = dict[str, dict[int, float]]
"""Values by time, by the name in the legend; without what is missing."""


def docker_or_skip() -> None:
    """Skip where no Docker engine answers or the image is missing; fail there with ``REQUIRE_DOCKER=1``."""
    if shutil.which("docker") is None:
        _without_docker("the docker command is missing")
    if (engine := _docker("version", "--format", "{{.Server.Version}}", check=False)).returncode:
        _without_docker(f"no Docker engine answers: {engine.stderr.strip()}")
    if _docker("image", "inspect", IMAGE, check=False).returncode and _docker("pull", IMAGE, check=False).returncode:
        _without_docker(f"the image {IMAGE} cannot be had")


def _without_docker(why: str) -> NoReturn:
    if os.environ.get("REQUIRE_DOCKER") == "1":
        pytest.fail(f"REQUIRE_DOCKER=1, but {why}")
    pytest.skip(why)


def _docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=check)


@dataclass(frozen=True)
class Question:
    """A target of a panel."""

    dashboard: Mapping[str, Any]
    panel: Mapping[str, Any]
    target: str

    def __str__(self) -> str:
        reference = next(each["refId"] for each in self.panel["targets"] if each["target"] == self.target)
        return f"{self.dashboard['uid']}-{self.panel['title']}-{reference}"

    def since(self, now: int, timezone: ZoneInfo) -> int:
        """Return where the time shown begins, in epoch seconds, as Grafana works it out in the browser's time zone."""
        told = self.panel.get("timeFrom") or self.dashboard["time"]["from"]
        return earlier(told if told.startswith("now") else f"now-{told}", now, timezone)


def earlier(told: str, now: int, timezone: ZoneInfo) -> int:
    """Return the time of an expression like ``now-6d/d``: so much earlier, then back to the beginning of its day."""
    parts = re.fullmatch(r"now(?:-(\d+)([mhdM]))?(?:/([dM]))?", told)
    assert parts is not None, told
    count, unit, begin = parts.groups()
    time = datetime.fromtimestamp(now, timezone)
    if unit == "M":
        months = time.year * 12 + time.month - 1 - int(count)
        time = time.replace(year=months // 12, month=months % 12 + 1, day=1)
    elif unit:
        time -= timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[unit]: int(count)})
    if begin:
        time = time.replace(hour=0, minute=0, second=0)
    if begin == "M":
        time = time.replace(day=1)
    return int(time.timestamp())


QUESTIONS = [
    Question(dashboard, panel, target["target"])
    for dashboard in (json.loads(file.read_text()) for file in sorted(DASHBOARDS.glob("*.json")))
    for panel in dashboard["panels"]
    for target in panel["targets"]
]


def questions(panel: str) -> list[Question]:
    """Return the targets of the panel with this title."""
    found = [question for question in QUESTIONS if question.panel["title"] == panel]
    assert found, panel
    return found


class Graphite:
    """Graphite's API, and the house whose readings it holds."""

    def __init__(self, port: int, days: SimulatedDays) -> None:
        self.days = days
        self._url = f"http://{HOST}:{port}"

    def ready(self) -> bool:
        """Return whether it answers."""
        try:
            return requests.get(f"{self._url}/render?target=x&format=json", timeout=5).ok
        except requests.ConnectionError:
            return False

    def find(self, query: str) -> list[str]:
        """Return the names that match a pattern."""
        answer = requests.get(f"{self._url}/metrics/find", params={"query": query}, timeout=10)
        return [node["text"] for node in answer.json()]

    def ask(self, question: Question, serial: str = WHOLE) -> Series:
        """Return what Grafana is answered for a panel's target."""
        answer = self.render(question, serial, format="json")
        return {
            series["target"]: {time: value for value, time in series["datapoints"] if value is not None}
            for series in answer.json()
        }

    def render(self, question: Question, serial: str = WHOLE, **more: str) -> requests.Response:
        """Return the answer to the request that Grafana makes for a panel's target."""
        asked = {
            "target": question.target.replace("$prefix", PREFIX).replace("$serial", serial),
            "from": str(question.since(self.days.now, ZoneInfo(self.days.timezone))),
            "until": str(self.days.now),
            "maxDataPoints": str(question.panel.get("maxDataPoints", USUAL_WIDTH)),
        }
        answer = requests.post(f"{self._url}/render", data=asked | more, timeout=60)
        assert answer.ok, f"{question.target}: {answer.status_code} {answer.text[-600:]}"
        return answer

    def has(self, title: str) -> bool:
        """Return whether a panel shows anything."""
        return any(self.panel(title).values())

    def panel(self, title: str, serial: str = WHOLE) -> Series:
        """Return all series of a panel."""
        return {name: series for question in questions(title) for name, series in self.ask(question, serial).items()}


@pytest.fixture(scope="session")
def graphite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graphite]:
    """Yield a Graphite that runs as the compose stack runs it and holds the simulated days."""
    docker_or_skip()
    days = SimulatedDays(tmp_path_factory.mktemp("house"))
    configuration = ROOT / "deploy" / "graphite"
    container = _docker(
        *("run", "--detach", "--rm", "--user", "10001:10001", "--read-only", "--cap-drop", "ALL"),
        *("--entrypoint", "/bin/sh", "--tmpfs", "/tmp", "--tmpfs", "/opt/graphite/storage:uid=10001"),
        *("--volume", f"{configuration}:/etc/enphase:ro", "--volume", f"{configuration}:/opt/graphite/conf:ro"),
        *("--publish", f"{HOST}::8080", "--publish", f"{HOST}::2004"),
        *(IMAGE, "/etc/enphase/start.sh"),
    ).stdout.strip()
    try:
        graphite = Graphite(_published(container, 8080), days)
        wait_until(graphite.ready, "Graphite answers")
        send(days.points(), _published(container, 2004))
        for last_sent in ("Power now", "Now", "Age of the oldest reading without a receipt", "Token is good for"):
            wait_until(partial(graphite.has, last_sent), f"Carbon has written: {last_sent}")
        yield graphite
    finally:
        _docker("rm", "--force", container)


def _published(container: str, port: int) -> int:
    return int(_docker("port", container, f"{port}/tcp").stdout.split(":")[-1])


def send(points: Iterator[Point], port: int) -> None:
    """Send points in pickle frames, and return when Carbon has read them."""
    with socket.create_connection((HOST, port), timeout=60) as connection:
        while batch := [(path, (time, value)) for path, value, time in islice(points, POINTS_A_FRAME)]:
            frame = pickle.dumps(batch, protocol=2)
            connection.sendall(struct.pack("!L", len(frame)) + frame)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


# --- Everything answers ---


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_a_target_asked_of_graphite_returns_data(graphite: Graphite, question: Question) -> None:
    """Each target of each panel gives at least one series with a value, under a name for people."""
    series = graphite.ask(question)

    assert any(series.values())
    assert all(re.fullmatch(r"[\w .-]+", name) for name in series)


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_a_house_without_meters_makes_no_panel_fail(graphite: Graphite, question: Question) -> None:
    """What is not measured is an empty panel, not an error."""
    graphite.ask(question, UNMETERED)


def test_the_variable_lists_the_gateways_and_not_the_services(graphite: Graphite) -> None:
    """The choice of gateways is their serial numbers."""
    for dashboard in {id(question.dashboard): question.dashboard for question in QUESTIONS}.values():
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
    told = graphite.panel("Energy today")

    expected = truth(graphite.days, graphite.days.midnight, graphite.days.now)
    assert {name: sum(values.values()) for name, values in told.items()} == pytest.approx(expected, abs=1)
    assert expected["Production"] > 1000


def test_each_quarter_hour_has_its_own_energy(graphite: Graphite) -> None:
    """Each bar is what was counted in its quarter-hour, to ten seconds."""
    days = graphite.days
    told = graphite.panel("Energy today")

    for start in range(days.midnight + QUARTER_HOUR_S, days.now - QUARTER_HOUR_S, QUARTER_HOUR_S):
        expected = truth(days, start - 10, start + QUARTER_HOUR_S - 10)
        assert {name: values[start] for name, values in told.items()} == pytest.approx(expected, abs=0.1)


def test_energy_is_right_across_a_gap_and_a_reboot(graphite: Graphite) -> None:
    """Two hours without readings cost nothing, and counters that began again cost what they counted unseen."""
    days, trouble = graphite.days, graphite.days.trouble
    told = graphite.panel("Energy today", TROUBLED)

    day = truth(days, days.midnight, days.now)
    unseen = truth(days, trouble.rebooted_at - 10, trouble.rebooted_at + 300)
    expected = {name: day[name] - unseen[name] for name in day}
    assert {name: sum(values.values()) for name, values in told.items()} == pytest.approx(expected, abs=2)


def test_a_gap_is_filled_evenly_with_what_was_counted_in_it(graphite: Graphite) -> None:
    """The quarter-hours of a gap are equal, and are together what the counters gained."""
    days, (begin, end) = graphite.days, graphite.days.trouble.gap
    told = graphite.panel("Energy today", TROUBLED)["Production"]

    bars = [told[start] for start in range(begin + QUARTER_HOUR_S, end - QUARTER_HOUR_S, QUARTER_HOUR_S)]
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

    shown_since = questions(panel)[0].since(days.now, timezone)
    midnights = range(max(shown_since, days.roof.midnight(days.roof.commissioned)), days.now, DAY_S)
    begins = {group(midnight): midnight for midnight in reversed(midnights)}
    begins = dict(sorted(begins.items()))
    ends = [*list(begins.values())[1:], days.now]
    for name, hours in graphite.panel(panel).items():
        told: dict[str, float] = dict.fromkeys(begins, 0)
        for time, energy_wh in hours.items():
            told[group(time)] += energy_wh
        expected = {each: truth(days, begins[each], end)[name] for each, end in zip(begins, ends, strict=True)}
        first = next(iter(begins))
        # Before the first reading shown nothing can be counted, and these are an hour apart a year ago.
        assert told.pop(first) == pytest.approx(expected.pop(first), abs=500)
        # At either end what flows in a slot may be counted in the neighbour.
        assert told == pytest.approx(expected, abs=1 + 1000 * slot_s / HOUR_S)


def test_own_use_is_told_in_percent_of_todays_energies(graphite: Graphite) -> None:
    """Self-consumption and self-sufficiency are what their definitions say."""
    energy = truth(graphite.days, graphite.days.midnight, graphite.days.now)
    told = {name: values[max(values)] for name, values in graphite.panel("Own use today").items()}

    assert told == pytest.approx(
        {
            "Self-consumption": 100 * (1 - energy["Export"] / energy["Production"]),
            "Self-sufficiency": 100 * (1 - energy["Import"] / energy["Consumption"]),
        },
        abs=0.1,
    )
    assert all(0 < share < 100 for share in told.values())


def test_power_now_is_the_newest(graphite: Graphite) -> None:
    """The house's draw counts the battery in, which the gateway does not."""
    power = graphite.days.house.at(graphite.days.now).power
    told = {name: values[max(values)] for name, values in graphite.panel("Power now").items()}

    assert told == pytest.approx(
        {
            "Production": power.production_w,
            "Consumption": power.load_w,
            "Grid": sum(power.net_w),
            "Battery": power.battery_w,
        }
    )


# --- Panels and pipeline ---


def test_a_shaded_and_a_silent_inverter_stand_out(graphite: Graphite) -> None:
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


def test_the_gap_of_a_gateway_is_told_in_minutes(graphite: Graphite) -> None:
    """Two hours without a reading are 120 minutes; a gateway that was always read has none."""
    whole, troubled = (graphite.panel("Without a reading today", serial)["Minutes"] for serial in (WHOLE, TROUBLED))

    assert sum(whole.values()) == 0
    assert sum(troubled.values()) == pytest.approx(120, abs=5)


def test_the_age_of_the_newest_reading_grows_through_a_gap(graphite: Graphite) -> None:
    """It is that of the newest slot now, and was two hours at the gap's end."""
    (begin, end) = graphite.days.trouble.gap
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
    assert set(errors) == {"poller.requests_failed", "poller.readings_sent_again"}
    assert sum(errors["poller.requests_failed"].values()) == 7
