import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import whisper

from tests.integration.local_programs import local_settings, query_graphite, send_to_carbon, stored_points
from tests.programs import HOST, Program, listening, wait_until

POWER = "enphase.122012345678.production.power_w"
LIFETIME = "enphase.122012345678.production.energy_lifetime_wh"
QUARTER_HOURS = "enphase.122012345678.interval.production_wh"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return settings whose state directory has a space in its name."""
    return local_settings(tmp_path / "a state")


@pytest.fixture
def local_graphite(environment: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield the settings of a running Carbon and render API."""
    with serving("carbon", environment, tmp_path), serving("graphite", environment, tmp_path):
        yield environment


@contextmanager
def serving(program: str, environment: dict[str, str], logs: Path) -> Iterator[Program]:
    """Run a program of deploy.local, and yield it when it listens."""
    port = int(environment[f"{program.upper()}_PORT"])
    with Program.python(f"deploy.local.{program}", log=logs / f"{program}.log", environment=environment) as running:
        wait_until(lambda: listening(port), f"{program} listens; {running.output}")
        yield running


def test_points_sent_to_carbon_are_returned_by_the_render_api_unchanged(local_graphite: dict[str, str]) -> None:
    """Path, timestamp and value are those that were sent."""
    newest_s = int(time.time()) // 10 * 10
    sent = {newest_s - 10 * age: 1234.5 - age for age in range(30)}
    send_to_carbon(local_graphite["CARBON_PORT"], [(POWER, point) for point in sent.items()])
    since_s = newest_s - 600
    wait_until(
        lambda: len(stored_points(local_graphite["GRAPHITE_PORT"], POWER, since_s)) == len(sent),
        "all points are stored",
    )
    assert sent == stored_points(local_graphite["GRAPHITE_PORT"], POWER, since_s)


def test_series_are_found_by_a_pattern(local_graphite: dict[str, str]) -> None:
    """The page finds gateways in the same way as Grafana finds series."""
    send_to_carbon(local_graphite["CARBON_PORT"], [(POWER, (int(time.time()), 1.0))])

    def found() -> object:
        return query_graphite(
            local_graphite["GRAPHITE_PORT"], "/metrics/find", query="enphase.*.*.power_w", format="json"
        )

    nodes = wait_until(found, "the series is found")
    assert isinstance(nodes, list)
    assert [node["path"] for node in nodes] == [POWER]


def test_a_bare_render_address_returns_the_newest_powers(local_graphite: dict[str, str]) -> None:
    """``make run`` prints this address; a person opens it, and a program adds parameters to it."""
    port, now_s = local_graphite["GRAPHITE_PORT"], int(time.time()) // 10 * 10
    send_to_carbon(local_graphite["CARBON_PORT"], [(POWER, (now_s, 1234.5)), (LIFETIME, (now_s, 1.0))])
    wait_until(lambda: stored_points(port, POWER, now_s - 60), "the point is stored")

    series = query_graphite(port, "/render")
    assert isinstance(series, list)
    assert [each["target"] for each in series] == [POWER]
    assert [1234.5, now_s] in series[0]["datapoints"]
    assert query_graphite(port, "/render", target=LIFETIME, format="json") != series


def test_each_kind_of_series_is_stored_by_its_own_rules(local_graphite: dict[str, str]) -> None:
    """Power is averaged, counters keep their last value, quarter-hours have no finer archive."""
    now_s = int(time.time())
    paths = (POWER, LIFETIME, QUARTER_HOURS)
    send_to_carbon(local_graphite["CARBON_PORT"], [(path, (now_s, 1.0)) for path in paths])
    files = {path: _whisper_file(local_graphite, path) for path in paths}
    wait_until(lambda: all(file.exists() for file in files.values()), "the files are made")
    kept = {path: whisper.info(str(file)) for path, file in files.items()}
    assert {path: (info["aggregationMethod"], info["xFilesFactor"]) for path, info in kept.items()} == {
        POWER: ("average", 0.0),
        LIFETIME: ("last", 0.0),
        QUARTER_HOURS: ("sum", 0.0),
    }
    assert [archive["secondsPerPoint"] for archive in kept[POWER]["archives"]] == [10, 60, 900]
    assert [archive["secondsPerPoint"] for archive in kept[QUARTER_HOURS]["archives"]] == [900]


def test_an_incomplete_whisper_file_is_quarantined(environment: dict[str, str], tmp_path: Path) -> None:
    """A metric whose file a killed Carbon left without a header is stored again."""
    incomplete = _whisper_file(environment, POWER)
    incomplete.parent.mkdir(parents=True)
    incomplete.write_bytes(b"")
    with serving("carbon", environment, tmp_path) as carbon:
        send_to_carbon(environment["CARBON_PORT"], [(POWER, (int(time.time()), 1.0))])
        wait_until(lambda: incomplete.exists() and incomplete.stat().st_size > 28, "a complete file")
    assert incomplete.with_suffix(".wsp.corrupt").read_bytes() == b""
    assert f"{incomplete} is corrupt" in carbon.output


@pytest.mark.cairo
def test_with_libcairo2_a_picture_is_drawn(local_graphite: dict[str, str]) -> None:
    """The render API is Graphite's own, including pictures."""
    with urllib.request.urlopen(_picture_url(local_graphite), timeout=10) as response:
        assert response.read(8) == b"\x89PNG\r\n\x1a\n"


def test_without_libcairo2_json_works_and_a_picture_is_an_error_that_names_the_package(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The page needs no system package; the response to a request for a picture names the one to install."""
    # Python imports this when it starts; the library then appears not to be installed.
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes.util\nctypes.util.find_library = lambda name: None\n"
        "import cffi\nopen_library = cffi.FFI.dlopen\n"
        "def dlopen(self, name, flags=0):\n"
        "    if name and 'cairo' in str(name): raise OSError(f'cannot load library {name}')\n"
        "    return open_library(self, name, flags)\n"
        "cffi.FFI.dlopen = dlopen\n"
    )
    hidden = environment | {"PYTHONPATH": str(tmp_path)}
    with serving("graphite", hidden, tmp_path):
        assert query_graphite(environment["GRAPHITE_PORT"], "/render", target=POWER, format="json") == []
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(_picture_url(environment), timeout=10)
        with refused.value:
            assert refused.value.code == 501
            assert re.fullmatch(r".*apt install libcairo2.*\n", refused.value.read().decode())


def test_page_and_chart_library_are_served_locally(local_graphite: dict[str, str]) -> None:
    """The page loads nothing from other hosts, and its content security policy forbids it."""
    with urllib.request.urlopen(f"http://{HOST}:{local_graphite['GRAPHITE_PORT']}/", timeout=5) as response:
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        page = response.read().decode()
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", page) == []
    for name in re.findall(r"(?:src|href)=\"(page/[^\"]+)\"", page):
        with urllib.request.urlopen(f"http://{HOST}:{local_graphite['GRAPHITE_PORT']}/{name}", timeout=5) as response:
            assert len(response.read()) > 1000


def _whisper_file(environment: dict[str, str], path: str) -> Path:
    return Path(environment["STATE_DIR"], "graphite", "whisper", *path.split(".")).with_suffix(".wsp")


def _picture_url(environment: dict[str, str]) -> str:
    return f"http://{HOST}:{environment['GRAPHITE_PORT']}/render?target={POWER}"
