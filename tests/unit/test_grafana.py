"""The dashboards' files are what their program generates, and valid by Grafana's own types."""

import json
import re
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.__main__ import FILES, texts
from tests.docker.draw import picture_name
from tests.npm import node_with_packages

ROOT = Path(__file__).parents[2]
CHECKER = ROOT / "tests" / "grafana"
PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"
TYPE_CHECK_TIMEOUT_S = 60
GRID_WIDTH = 24

DASHBOARDS: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text()) for file in FILES.glob("*.json")}


def test_the_files_are_what_the_program_writes() -> None:
    """To change a dashboard, change the program and run ``python -m deploy.grafana``."""
    assert {file: file.read_text() for file in FILES.iterdir()} == texts()


def test_every_panel_has_a_picture_in_the_docs() -> None:
    """`python -m tests.docker.draw docs/dashboards` renders them."""
    shown = (ROOT / "docs" / "dashboards.md").read_text()
    pictures = {
        picture_name(name, panel["title"])
        for name, dashboard in DASHBOARDS.items()
        for panel in dashboard["panels"]
        if panel.get("targets")
    }

    assert {file.name for file in (ROOT / "docs" / "dashboards").iterdir()} == pictures
    assert {name for name in pictures if f"](dashboards/{name})" not in shown} == set()


@pytest.fixture(scope="session")
def node() -> str:
    """Return the path of node, with TypeScript and Grafana's types installed."""
    return node_with_packages(CHECKER)


def type_check(node: str, folder: Path, *dashboards: str) -> str:
    """Return the errors that TypeScript finds in dashboards by Grafana's types; empty if there are none."""
    types = CHECKER / "dashboard"
    sources = []
    for number, dashboard in enumerate(dashboards):
        source = folder / f"{number}.ts"
        source.write_text(f'import type {{ Dashboard }} from "{types}";\nexport const d: Dashboard = {dashboard};')
        sources.append(str(source))
    options = ["--strict", "--noEmit", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    tsc = CHECKER / "node_modules" / "typescript" / "bin" / "tsc"
    return subprocess.run(
        [node, str(tsc), *options, *sources],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TYPE_CHECK_TIMEOUT_S,
        check=False,
    ).stdout


@pytest.mark.npm
def test_the_dashboards_are_valid_by_grafanas_types(node: str, tmp_path: Path) -> None:
    """@grafana/schema 12 defines all fields, options and values."""
    assert type_check(node, tmp_path, *texts().values()) == ""


MISSPELT = [
    ('"schemaVersion": 42,', ""),
    ('"refresh"', '"refersh"'),
    ('"refresh": "1m"', '"refresh": 60'),
    ('"type": "barchart"', '"type": "bartchart"'),
    ('"timeFrom"', '"timeform"'),
    ('"drawStyle"', '"drawstyle"'),
    ('"drawStyle": "bars"', '"drawStyle": "bar"'),
    ('"reduceOptions"', '"reducer"'),
    ('"custom.transform"', '"custom.transfrom"'),
    ('"colorMode": "value"', '"colorMode": "values"'),
    ('"noValue"', '"novalue"'),
    ('"refId"', '"refid"'),
    ('"x": 0', '"X": 0'),
    ('"hide": 2', '"hidden": 2'),
]


@pytest.mark.npm
def test_a_misspelt_name_or_value_is_an_error(node: str, tmp_path: Path) -> None:
    """TypeScript finds it in any part of a dashboard, so the check above can fail."""
    correct = texts()[FILES / "solar-energy.json"]
    assert all(right in correct for right, _wrong in MISSPELT)

    errors = type_check(node, tmp_path, correct, *(correct.replace(right, wrong, 1) for right, wrong in MISSPELT))

    with_errors = {int(number) for number in re.findall(r"(\d+)\.ts\(\d+,\d+\): error TS", errors)}
    assert with_errors == set(range(1, len(MISSPELT) + 1)), errors


def test_the_type_checks_packages_are_pinned_by_hash_without_a_registry() -> None:
    """The lock names every package by its hash and the installing machine decides where it comes from."""
    packages = json.loads((CHECKER / "package-lock.json").read_text())["packages"]

    assert all("integrity" in package and "resolved" not in package for path, package in packages.items() if path)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_has_a_place_a_title_and_a_description(name: str) -> None:
    """Panels fill the grid without overlapping, and titles are unique."""
    panels = DASHBOARDS[name]["panels"]
    places = [panel["gridPos"] for panel in panels]
    covered = [
        (x, y)
        for place in places
        for x, y in product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
    ]

    assert len(covered) == len(set(covered)) == GRID_WIDTH * max(place["y"] + place["h"] for place in places)
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert all(panel["description"].endswith(".") for panel in panels)


def test_provisioned_files_are_where_the_compose_file_mounts_them() -> None:
    """The provider's folder is mounted, and the dashboards use the provisioned data source."""
    [provider] = yaml.safe_load((PROVISIONING / "dashboards" / "enphase.yaml").read_text())["providers"]
    [source] = yaml.safe_load((PROVISIONING / "datasources" / "graphite.yaml").read_text())["datasources"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    used = {
        json.dumps(each["datasource"])
        for dashboard in DASHBOARDS.values()
        for each in (*dashboard["panels"], *dashboard["templating"]["list"])
        if "datasource" in each
    }

    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in compose["grafana"]["volumes"]
    assert "./deploy/grafana/provisioning:/etc/grafana/provisioning:ro" in compose["grafana"]["volumes"]
    assert used == {json.dumps({"type": source["type"], "uid": source["uid"]})}
    assert source["url"] == "http://graphite:8080"
    assert set(compose["grafana"]["networks"]) & set(compose["graphite"]["networks"])


def test_every_metric_of_a_panel_is_part_of_the_contract() -> None:
    """The pipeline's panels request names of the contract."""
    contract = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text())
    published = set(re.findall(r"`(\w+)`", contract["components"]["schemas"]["Metrics"]["description"]))
    drawn = {
        name
        for panel in DASHBOARDS["pipeline"]["panels"]
        for target in panel["targets"]
        for names in re.findall(r"\.metrics\.(?:\{([\w,]+)\}|(\w+))", target["target"])
        for name in ",".join(names).strip(",").split(",")
    }

    assert len(drawn) > 10
    assert drawn <= published
