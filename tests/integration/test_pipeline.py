"""The whole pipeline as ``make run`` starts it: what the gateway served is what Graphite draws."""

import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateways.catalog import BY_NAME
from tests.integration.local_programs import local_settings, query_graphite, stored_points
from tests.programs import HOST, Program, wait_until

SERIAL = "122098765432"
SLOT_S = 10
"""Graphite's finest slot; of several readings in one the last counts."""

START_S = 60.0


def lately() -> int:
    """Return the time since which the tests look at Graphite."""
    return int(time.time()) - 900


class LocalRun(Program):
    """The whole pipeline as ``python -m deploy.local`` runs it, and what its ports return."""

    settings: dict[str, str]

    def newest(self, path: str) -> int:
        """Return the time of the newest point of a series, 0 if there is none."""
        return max(stored_points(self.settings["GRAPHITE_PORT"], path, lately()), default=0)

    def served(self, path: str) -> list[Any]:
        """Return the gateway's responses to a path, oldest first."""
        url = f"http://{HOST}:{self.settings['SIMULATOR_CONTROL_PORT']}/served?server=envoy&path={path}"
        with urllib.request.urlopen(url, timeout=5) as response:
            rows = json.loads(response.read())["served"]
        return [json.loads(row["body"]) for row in rows if row["status"] == 200]

    def pid_of(self, module: str) -> int | None:
        """Return the process that runs a module of ours below this program, None while there is none."""
        processes = {int(stat[0]): (int(stat[3]), command) for stat, command in _processes()}
        for pid, (_parent, command) in processes.items():
            if command[1:3] == ["-m", module]:
                # Process numbers wrap, so that a child may have a smaller one than its parent.
                ancestor = pid
                while ancestor != self.process.pid and ancestor in processes:
                    ancestor, _command = processes[ancestor]
                if ancestor == self.process.pid:
                    return pid
        return None


def _processes() -> Iterator[tuple[list[str], list[str]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = re.sub(r"\(.*\)", "name", (folder / "stat").read_text()).split()
            yield stat, (folder / "cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue


def started(state: Path, **more: str) -> LocalRun:
    """Return the pipeline on ports of its own, polling every two seconds."""
    settings = local_settings(state) | {
        "POLL_INTERVAL_S": "2",
        "POLL_SLOW_INTERVAL_S": "2",
        "SIMULATOR_SLOW_ANSWERS_S": "0",
    }
    local_run = LocalRun.python("deploy.local", log=state / "run.log", environment=settings | more)
    local_run.settings = settings | more
    return local_run


@pytest.fixture(scope="module")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    """Yield a running pipeline on a simulated roof, once it has printed its addresses."""
    with started(tmp_path_factory.mktemp("pipeline")) as local_run:
        wait_until(lambda: "Render: " in local_run.output, f"a Render: line after {local_run.output}", START_S)
        yield local_run


def test_a_started_pipeline_prints_its_addresses(local_run: LocalRun) -> None:
    """The page and the render API have lines of their own, and both respond."""
    port = local_run.settings["GRAPHITE_PORT"]
    lines = local_run.output.splitlines()

    assert f"Render: http://{HOST}:{port}/render" in lines
    graph = next(line.removeprefix("Graph: ") for line in lines if line.startswith("Graph: "))
    with urllib.request.urlopen(graph, timeout=5) as page:
        assert b"<html" in page.read()
    with urllib.request.urlopen(f"http://{HOST}:{port}/render?target=enphase.*&format=json", timeout=5) as response:
        assert response.status == 200


def test_graphite_holds_exactly_what_the_gateway_served(local_run: LocalRun) -> None:
    """Path, time and value of production, consumption and grid are the meters', slot by slot."""
    prefix, port = f"enphase.{SERIAL}", local_run.settings["GRAPHITE_PORT"]
    begin = local_run.newest(f"{prefix}.grid.power_w")
    wait_until(lambda: local_run.newest(f"{prefix}.grid.power_w") >= begin + 2 * SLOT_S, "two more slots")
    expected: dict[str, dict[int, float]] = {}
    for production, net in local_run.served("/ivp/meters/readings"):
        slot = production["timestamp"] // SLOT_S * SLOT_S
        for path, value in {
            "production.power_w": production["activePower"],
            "production.energy_lifetime_wh": production["actEnergyDlvd"],
            "consumption.power_w": round(production["activePower"] + net["activePower"], 3),
            "grid.power_w": net["activePower"],
            "grid.import_lifetime_wh": net["actEnergyDlvd"],
            "grid.export_lifetime_wh": net["actEnergyRcvd"],
            "meter.net-consumption.voltage_v": net["voltage"],
        }.items():
            expected.setdefault(path, {})[slot] = value

    for path, values in expected.items():
        stored = stored_points(port, f"{prefix}.{path}", lately())
        whole_slots = sorted(values)[:-1]
        assert len(whole_slots) >= 2
        assert {slot: stored.get(slot) for slot in whole_slots} == {slot: values[slot] for slot in whole_slots}


def test_every_inverters_report_is_stored_at_its_own_time(local_run: LocalRun) -> None:
    """An inverter's point has the time of its last report, not of the request."""
    (*_, devices) = local_run.served("/ivp/pdm/device_data")
    inverters = [device for device in devices.values() if isinstance(device, dict)]
    assert inverters
    for inverter in inverters:
        path = f"enphase.{SERIAL}.inverter.{inverter['sn']}.power_w"
        channel = inverter["channels"][0]
        slot = channel["lastReading"]["endDate"] // SLOT_S * SLOT_S
        stored = stored_points(local_run.settings["GRAPHITE_PORT"], path, slot - SLOT_S)

        assert stored.get(slot) == channel["watts"]["now"]


@pytest.mark.parametrize(
    "module", ["services.token_broker", "services.poller", "services.carbon_sink", "services.simulator"]
)
def test_a_killed_service_is_restarted_and_the_pipeline_continues(local_run: LocalRun, module: str) -> None:
    """After SIGKILL the service is started again, and new readings arrive."""
    pid = wait_until(lambda: local_run.pid_of(module), f"{module} runs")

    os.kill(pid, signal.SIGKILL)

    wait_until(lambda: local_run.pid_of(module) not in (None, pid), f"{module} runs again")
    path = f"enphase.{SERIAL}.grid.power_w"
    killed_at = local_run.newest(path)
    wait_until(lambda: local_run.newest(path) > killed_at, "a newer reading", START_S)


def test_readings_delivered_are_counted_in_graphite(local_run: LocalRun) -> None:
    """The sink's own metrics take the same path as the readings."""
    path = "enphase.services.carbon-sink.metrics.readings_delivered"
    points = wait_until(lambda: stored_points(local_run.settings["GRAPHITE_PORT"], path, lately()), "metrics")

    assert max(points.values()) > 0


def test_the_terminal_shows_the_newest_values(local_run: LocalRun) -> None:
    """A line has production, consumption, import or export with units, and how many readings arrived."""
    line = re.compile(r"production .*k?W +consumption .*k?W +(im|ex)port .*k?W +readings delivered [\d ,]+")

    assert wait_until(lambda: line.search(local_run.output), "a line of values")


def test_sigterm_ends_everything_and_leaves_nothing_running(local_run: LocalRun) -> None:
    """One signal ends all programs; exit code 0."""
    pids = [local_run.pid_of(module) for module in ("services.poller", "services.carbon_sink", "deploy.local.graphite")]

    assert local_run.stop() == 0
    for pid in pids:
        assert pid is not None
        assert not Path(f"/proc/{pid}").exists()
    assert "Traceback" not in local_run.output


def test_an_old_gateways_readings_are_drawn_at_their_own_time(tmp_path: Path) -> None:
    """What a gateway measured months ago is in Graphite at its own time, in the slots kept for ten years."""
    recording = BY_NAME["7.6.175_three_phases"].write(tmp_path / "gateway")
    production, net = json.loads((recording / "ivp_meters_readings").read_text())
    slot = production["timestamp"] // 900 * 900
    with started(tmp_path, SIMULATOR_RECORDING=str(recording)) as local_run:
        port = local_run.settings["GRAPHITE_PORT"]
        wait_until(lambda: gateways(port), f"a gateway in Graphite; {local_run.output}", START_S)
        for path, value in {
            "production.power_w": production["activePower"],
            "production.energy_lifetime_wh": production["actEnergyDlvd"],
            "grid.power_w": net["activePower"],
            "meter.production.phase.3.voltage_v": production["channels"][2]["voltage"],
        }.items():
            full_path = f"enphase.{gateways(port)[0]}.{path}"
            drawn = wait_until(lambda full_path=full_path: stored_points(port, full_path, slot - 3600), path)  # type: ignore[misc]
            assert drawn == {slot: value}


def gateways(port: str) -> list[str]:
    """Return the serial numbers of the gateways that have a grid in Graphite."""
    try:
        found = query_graphite(port, "/metrics/find", query="enphase.*.grid.power_w")
    except OSError:
        return []
    assert isinstance(found, list)
    return [metric["id"].split(".")[1] for metric in found]
