"""The queries of the dashboards, and the stack's Graphite, filled with a simulated year, to send them to."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import requests

from services.carbon_sink.carbon import frames
from services.carbon_sink.points import Point
from tests.docker.simulated_days import PREFIX, UNINTERRUPTED, SimulatedDays
from tests.programs import HOST, ROOT, wait_until

IMAGE = "graphiteapp/graphite-statsd:1.1.10-5"
DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
BATCH_SIZE = 5000
PANEL_WIDTH = 1000
"""Maximum number of points that Grafana requests: a panel's pixels."""

Series = dict[str, dict[int, float]]
"""Values by time, by the name in the legend; empty slots are left out."""


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a Docker command."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=check)


@dataclass(frozen=True)
class Query:
    """A target of a panel."""

    dashboard: Mapping[str, Any]
    panel: Mapping[str, Any]
    target: str

    def __str__(self) -> str:
        reference = next(each["refId"] for each in self.panel["targets"] if each["target"] == self.target)
        return f"{self.dashboard['uid']}-{self.panel['title']}-{reference}"

    def since(self, now: int, timezone: ZoneInfo) -> int:
        """Return where the time range begins, in epoch seconds, as Grafana computes it in the browser's time zone."""
        time_from = self.panel.get("timeFrom") or self.dashboard["time"]["from"]
        return time_of(time_from if time_from.startswith("now") else f"now-{time_from}", now, timezone)


def time_of(expression: str, now: int, timezone: ZoneInfo) -> int:
    """Return the time of an expression such as ``now-6d/d``: six days earlier, rounded down to the day."""
    parts = re.fullmatch(r"now(?:-(\d+)([mhdM]))?(?:/([dM]))?", expression)
    assert parts is not None, expression
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


QUERIES = [
    Query(dashboard, panel, target["target"])
    for dashboard in (json.loads(file.read_text()) for file in sorted(DASHBOARDS.glob("*.json")))
    for panel in dashboard["panels"]
    for target in panel["targets"]
]


def queries_of(panel: str) -> list[Query]:
    """Return the queries of the panel with this title."""
    found = [query for query in QUERIES if query.panel["title"] == panel]
    assert found, panel
    return found


class Graphite:
    """A client of Graphite's API, and the house whose readings are in it."""

    def __init__(self, port: int, days: SimulatedDays) -> None:
        self.days = days
        self._url = f"http://{HOST}:{port}"

    def ready(self) -> bool:
        """Return whether it responds."""
        try:
            return requests.get(f"{self._url}/render?target=x&format=json", timeout=5).ok
        except requests.ConnectionError:
            return False

    def find(self, pattern: str) -> list[str]:
        """Return the names that match a pattern."""
        response = requests.get(f"{self._url}/metrics/find", params={"query": pattern}, timeout=10)
        return [node["text"] for node in response.json()]

    def fetch(self, query: Query, serial: str = UNINTERRUPTED) -> Series:
        """Return the series of a query."""
        response = self.render(query, serial, format="json")
        return {
            series["target"]: {time: value for value, time in series["datapoints"] if value is not None}
            for series in response.json()
        }

    def render(
        self, query: Query, serial: str = UNINTERRUPTED, targets: Sequence[str] = (), **more: str
    ) -> requests.Response:
        """Return the response to the request that Grafana sends for a query, or for other targets in its place."""
        parameters = {
            "target": [
                target.replace("$prefix", PREFIX).replace("$serial", serial) for target in targets or [query.target]
            ],
            "from": str(query.since(self.days.now, ZoneInfo(self.days.timezone))),
            "until": str(self.days.now),
            "maxDataPoints": str(query.panel.get("maxDataPoints", PANEL_WIDTH)),
        }
        response = requests.post(f"{self._url}/render", data=parameters | more, timeout=60)
        assert response.ok, f"{query.target}: {response.status_code} {response.text[-600:]}"
        return response

    def has(self, title: str) -> bool:
        """Return whether a panel has any value; Graphite fails while Carbon creates a file."""
        try:
            return any(self.panel(title).values())
        except AssertionError:
            return False

    def panel(self, title: str, serial: str = UNINTERRUPTED) -> Series:
        """Return all series of a panel."""
        return {name: series for query in queries_of(title) for name, series in self.fetch(query, serial).items()}


@contextmanager
def running(state: Path, timezone: str | None) -> Iterator[Graphite]:
    """Run the compose stack's Graphite with the points of the simulated days, in a time zone or the house's."""
    days = SimulatedDays(state)
    configuration = ROOT / "deploy" / "graphite"
    container = docker(
        *("run", "--detach", "--rm", "--user", "10001:10001", "--read-only", "--cap-drop", "ALL"),
        *("--entrypoint", "/bin/sh", "--tmpfs", "/tmp", "--tmpfs", "/opt/graphite/storage:uid=10001"),
        *("--volume", f"{configuration}:/etc/enphase:ro", "--volume", f"{configuration}:/opt/graphite/conf:ro"),
        *("--env", f"GRAPHITE_TIME_ZONE={timezone or days.timezone}"),
        *("--publish", f"{HOST}::8080", "--publish", f"{HOST}::2004"),
        *(IMAGE, "/etc/enphase/start.sh"),
    ).stdout.strip()
    try:
        graphite = Graphite(_published(container, 8080), days)
        wait_until(graphite.ready, "Graphite responds")
        send(days.points(), _published(container, 2004))
        for last_sent in ("Power now, by inverter", "Age of the oldest reading without a receipt", "Token expires in"):
            wait_until(partial(graphite.has, last_sent), f"Carbon has written: {last_sent}")
        yield graphite
    finally:
        docker("rm", "--force", "--volumes", container)


def _published(container: str, port: int) -> int:
    return int(docker("port", container, f"{port}/tcp").stdout.split(":")[-1])


def send(points: Iterator[Point], port: int) -> None:
    """Send points in pickle frames, and return when Carbon has read them."""
    with socket.create_connection((HOST, port), timeout=60) as connection:
        while batch := list(islice(points, BATCH_SIZE)):
            for frame in frames(batch):
                connection.sendall(frame)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
