"""The queries that Grafana sends to Graphite, and the stack's Graphite, filled with a simulated year."""

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
from tests.docker.simulated_days import PREFIX, WHOLE, SimulatedDays
from tests.programs import HOST, ROOT, wait_until

IMAGE = "graphiteapp/graphite-statsd:1.1.10-5"
DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
POINTS_AT_ONCE = 5000
USUAL_WIDTH = 1000
"""Points that Grafana requests: a panel's pixels."""

Series = dict[str, dict[int, float]]
"""Values by time, by the name in the legend; missing values are left out."""


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command of Docker's."""
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
        """Return the start of the panel's time range, epoch seconds, as Grafana computes it in the browser's zone."""
        start = self.panel.get("timeFrom") or self.dashboard["time"]["from"]
        return earlier(start if start.startswith("now") else f"now-{start}", now, timezone)


def earlier(expression: str, now: int, timezone: ZoneInfo) -> int:
    """Return the time of an expression like ``now-6d/d``: so much earlier, then back to the beginning of its day."""
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
    """Return the targets of the panel with this title."""
    found = [query for query in QUERIES if query.panel["title"] == panel]
    assert found, panel
    return found


class Graphite:
    """Graphite's API, and the house whose readings it holds."""

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

    def fetch(self, query: Query, serial: str = WHOLE) -> Series:
        """Return what Grafana receives for a panel's target."""
        response = self.render(query, serial, format="json")
        return {
            series["target"]: {time: value for value, time in series["datapoints"] if value is not None}
            for series in response.json()
        }

    def render(self, query: Query, serial: str = WHOLE, targets: Sequence[str] = (), **more: str) -> requests.Response:
        """Return the response to Grafana's request for a panel's target, or to one for other targets instead."""
        request = {
            "target": [
                target.replace("$prefix", PREFIX).replace("$serial", serial) for target in targets or [query.target]
            ],
            "from": str(query.since(self.days.now, ZoneInfo(self.days.timezone))),
            "until": str(self.days.now),
            "maxDataPoints": str(query.panel.get("maxDataPoints", USUAL_WIDTH)),
        }
        response = requests.post(f"{self._url}/render", data=request | more, timeout=60)
        assert response.ok, f"{query.target}: {response.status_code} {response.text[-600:]}"
        return response

    def has(self, title: str) -> bool:
        """Return whether a panel shows anything; Graphite fails while Carbon is making a file."""
        try:
            return any(self.panel(title).values())
        except AssertionError:
            return False

    def panel(self, title: str, serial: str = WHOLE) -> Series:
        """Return all series of a panel."""
        return {name: series for query in queries_of(title) for name, series in self.fetch(query, serial).items()}


@contextmanager
def running(state: Path, timezone: str | None) -> Iterator[Graphite]:
    """Run a Graphite as the compose stack runs it, in some time zone or the house's, filled with the simulated days."""
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
        for last_sent in ("Power now", "Now", "Age of the oldest reading without a receipt", "Token is good for"):
            wait_until(partial(graphite.has, last_sent), f"Carbon has written: {last_sent}")
        yield graphite
    finally:
        docker("rm", "--force", "--volumes", container)


def _published(container: str, port: int) -> int:
    return int(docker("port", container, f"{port}/tcp").stdout.split(":")[-1])


def send(points: Iterator[Point], port: int) -> None:
    """Send points in pickle frames, and return when Carbon has read them."""
    with socket.create_connection((HOST, port), timeout=60) as connection:
        while batch := list(islice(points, POINTS_AT_ONCE)):
            for frame in frames(batch):
                connection.sendall(frame)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
