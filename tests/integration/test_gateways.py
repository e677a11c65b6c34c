"""What the poller reads of each gateway in `tests/gateways`: every firmware, every oddity."""

import ast
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.gateways import Gateway
from tests.gateways.catalog import GATEWAYS
from tests.programs import ROOT, clean_environment, simulator

GRID = ("power_w", "import_lifetime_wh", "export_lifetime_wh")
Printed = dict[str, dict[str, object]]


def read_once(gateway: Gateway, state: Path) -> Printed:
    """Return the payloads that ``poller --once`` prints for a gateway, by kind."""
    with simulator(state, recording=gateway.write(state / "gateway")) as served:
        settings = {"ENVOY_HOST": served.envoy_url, "ENVOY_TOKEN": served.token(), "STATE_DIR": str(state)}
        ended = subprocess.run(
            [sys.executable, "-m", "services.poller", "--once"],
            env=clean_environment() | settings,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    return {line["topic"].split("/readings/")[1]: line["payload"] for line in lines}


def kinds_of_meters(gateway: Gateway) -> set[str]:
    """Return the kinds of readings that the meters should give."""
    meters = gateway.expected.meters
    phases = {f"meter/{meter}/phase/{n}" for meter, count in meters.items() for n in range(1, count + 1)}
    return {f"meter/{meter}" for meter in meters} | phases | {f"meter/{lone}" for lone in gateway.expected.lone_phases}


@pytest.mark.parametrize("gateway", GATEWAYS, ids=lambda gateway: gateway.name)
def test_a_gateway_of_this_kind_is_read_as_described(gateway: Gateway, tmp_path: Path) -> None:
    """Power, energies, meters, inverters and batteries are the described ones, and nothing else is published."""
    expected = gateway.expected
    printed = read_once(gateway, tmp_path)

    production = printed.get("production", {})
    assert production.get("source") == expected.source
    assert (production["power_w"], production.get("energy_lifetime_wh")) == expected.production
    consumption = printed.get("consumption")
    assert (consumption and (consumption["power_w"], consumption.get("energy_lifetime_wh"))) == expected.consumption
    grid = printed.get("grid")
    assert (grid and tuple(grid.get(name) for name in GRID)) == expected.grid
    assert {kind for kind in printed if kind.startswith("meter/")} == kinds_of_meters(gateway)
    assert sum(kind.startswith("inverter/") for kind in printed) == expected.inverters
    assert sum(kind.startswith("battery/") for kind in printed) == expected.batteries
    battery = printed.get("battery", {})
    assert {name: battery.get(name) for name in expected.battery or {}} == (expected.battery or {})
    energy = printed.get("energy", {})
    assert {name: value for name, value in energy.items() if name != "timestamp"} == expected.energy


RECORD_RULES = """
import sys
import threading

applied = set()


def note(frame, event, result):
    if event == "return" and frame.f_code.co_filename.endswith("quirks.py"):
        first_argument = next(iter(frame.f_locals.values()), None)
        if result is not None and result is not False and result is not first_argument:
            applied.add(frame.f_code.co_name)


sys.setprofile(note)
threading.setprofile(note)
from services.poller.__main__ import main

code = main()
sys.setprofile(None)
print("rules:", *applied, file=sys.stderr)
sys.exit(code)
"""
OVER_TIME = {"is_wrap"}
"""Rules that compare two polls."""


def test_every_quirk_rule_applies_to_a_gateway(tmp_path: Path) -> None:
    """A new rule needs a gateway that shows it."""
    (quirks,) = (ROOT / "services" / "poller").rglob("quirks.py")
    rules = {node.name for node in ast.parse(quirks.read_text()).body if isinstance(node, ast.FunctionDef)}
    with ExitStack() as running:
        served = [
            running.enter_context(
                simulator(tmp_path / gateway.name, recording=gateway.write(tmp_path / f"{gateway.name}-files"))
            )
            for gateway in GATEWAYS
        ]
        gateways = json.dumps([{"host": each.envoy_url, "token": each.token()} for each in served])
        ended = subprocess.run(
            [sys.executable, "-c", RECORD_RULES, "--once"],
            env=clean_environment() | {"ENVOYS": gateways, "STATE_DIR": str(tmp_path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert ended.returncode == 0, ended.stderr
    applied = set(ended.stderr.splitlines()[-1].removeprefix("rules:").split())
    assert rules - OVER_TIME - applied == set()
