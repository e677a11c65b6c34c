import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.local_programs import local_settings, send_to_carbon, stored_points
from tests.needs import CHROMIUM
from tests.programs import HOST, Program, listening, wait_until

pytestmark = pytest.mark.chromium


@pytest.fixture
def local_graphite(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield the settings of a running Carbon and render API."""
    settings = local_settings(tmp_path)
    programs = [
        Program.python(f"deploy.local.{name}", log=tmp_path / f"{name}.log", environment=settings)
        for name in ("carbon", "graphite")
    ]
    with programs[0], programs[1]:
        for name in ("CARBON_PORT", "GRAPHITE_PORT"):
            wait_until(lambda port=int(settings[name]): listening(port), f"{name} serves")  # type: ignore[misc]
        yield settings


def test_a_page_with_readings_shows_and_draws_them(local_graphite: dict[str, str], tmp_path: Path) -> None:
    """A browser shows powers in kilowatts, import or export, and a line for each."""
    now_s = int(time.time()) // 10 * 10
    power = {"production": 2310.0, "consumption": 640.0, "grid": -1670.0}
    paths = {kind: f"enphase.122012345678.{kind}.power_w" for kind in power}
    points = [(paths[kind], (now_s - 10 * age, power[kind] + age)) for kind in power for age in range(30)]
    send_to_carbon(local_graphite["CARBON_PORT"], points)
    for path in paths.values():
        wait_until(
            lambda path=path: len(stored_points(local_graphite["GRAPHITE_PORT"], path, now_s - 600)) == 30,  # type: ignore[misc]
            "all points are stored",
        )
    page = _page_in_browser(local_graphite["GRAPHITE_PORT"], tmp_path)
    shown = {name: _text(page, name) for name in ("production", "consumption", "grid", "grid-direction", "summary")}
    assert shown == {
        "production": "2.31",
        "consumption": "0.64",
        "grid": "1.67",
        "grid-direction": "Export",
        "summary": "Exporting 1.67 kW: production is higher than consumption.",
    }
    assert re.fullmatch(r"newest reading \d+ s ago", _text(page, "age"))
    assert page.count('class="scatterlayer') == 2
    assert page.count('class="trace scatter') == 3
    assert 'id="state" role="status" hidden' in page


def test_a_page_without_readings_reports_that_it_waits(local_graphite: dict[str, str], tmp_path: Path) -> None:
    """There is a sentence instead of an empty chart."""
    page = _page_in_browser(local_graphite["GRAPHITE_PORT"], tmp_path)
    assert _text(page, "summary") == "Waiting for the first reading"
    assert _text(page, "state").startswith("No readings yet.")


def _page_in_browser(port: str, directory: Path) -> str:
    """Return the page's DOM four seconds after Chromium opened it."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={directory / 'browser'}",
        "--virtual-time-budget=4000",
        "--dump-dom",
        f"http://{HOST}:{port}/",
    ]
    return subprocess.run(command, capture_output=True, check=True, timeout=60, text=True).stdout


def _text(page: str, element_id: str) -> str:
    found = re.search(rf'id="{element_id}"[^>]*>([^<]*)<', page)
    assert found, f"no element {element_id} in {page}"
    return found.group(1)
