"""The layout of the project: which way imports point, and that every service runs by itself and is documented."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from services.carbon_sink.settings import CarbonSinkSettings
from services.poller.settings import PollerSettings
from services.token_broker.settings import TokenBrokerSettings
from tests.programs import ROOT, clean_environment

SERVICES = sorted(file.parent.name for file in (ROOT / "services").glob("*/__main__.py"))


def imports(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each module that the files below a folder import, with the file."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield path, node.module or "."


def run(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python without settings of ours and return what it printed."""
    return subprocess.run(
        [sys.executable, *arguments],
        # What runs from a copy would be counted as files of its own.
        env=clean_environment(*([] if folder == ROOT else ["COVERAGE_"])) | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_shared_imports_no_service() -> None:
    """Imports point one way."""
    assert [found for found in imports(ROOT / "shared") if found[1].startswith(("services", "deploy", "tests"))] == []


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_no_other(service: str) -> None:
    """Services share nothing but MQTT."""
    others = tuple(f"services.{other}" for other in SERVICES if other != service)

    assert [found for found in imports(ROOT / "services" / service) if found[1].startswith((*others, "deploy"))] == []


def test_pickle_is_written_to_carbon_and_read_nowhere() -> None:
    """Nothing that comes from a network is ever unpickled."""
    everything = (found for folder in ("services", "shared", "deploy") for found in imports(ROOT / folder))
    found = {path.relative_to(ROOT) for path, module in everything if module == "pickle"}

    assert found == {Path("services/carbon_sink/carbon.py")}
    assert "loads" not in (ROOT / "services/carbon_sink/carbon.py").read_text()


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_prints_its_help(service: str) -> None:
    """--help names the command and exits with 0, with no broker and no settings."""
    ended = run("-m", f"services.{service}", "--help")

    assert ended.returncode == 0, ended.stderr
    assert f"python -m services.{service}" in ended.stdout


def test_an_installed_package_holds_every_service(tmp_path: Path) -> None:
    """Installed and started far from the checkout, each service prints its help."""
    source, installed = tmp_path / "source", tmp_path / "installed"
    for part in ("services", "shared"):
        shutil.copytree(ROOT / part, source / part)
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, source)
    pip = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    ended = run("-m", *pip, "--target", str(installed), str(source))
    assert ended.returncode == 0, ended.stderr

    for service in SERVICES:
        show_origin = "import runpy, services, shared; print(services.__file__, shared.__file__)"
        start = f"{show_origin}; runpy.run_module('services.{service}', run_name='__main__', alter_sys=True)"
        ended = run("-c", start, "--help", folder=tmp_path, PYTHONPATH=str(installed))
        assert ended.returncode == 0, ended.stderr
        origin, *usage = ended.stdout.splitlines()
        assert all(Path(file).is_relative_to(installed) for file in origin.split())
        assert f"python -m services.{service}" in "\n".join(usage)


def test_the_simulator_without_its_extra_names_the_package_to_install() -> None:
    """With the services alone installed the simulator prints one line and no traceback."""
    start = (
        "import runpy, sys; sys.modules['astral'] = None; runpy.run_module('services.simulator', run_name='__main__')"
    )
    ended = run("-c", start)

    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.endswith("pip install 'enphase-pipeline[simulator]'")


@pytest.mark.parametrize("settings_class", [PollerSettings, TokenBrokerSettings, CarbonSinkSettings])
def test_the_readme_names_every_setting(settings_class: type[BaseModel]) -> None:
    """The README's table is complete."""
    readme = (ROOT / "README.md").read_text()
    names = {
        f"{section}_{name}".upper() if fields else section.upper()
        for section, field in settings_class.model_fields.items()
        for fields in [getattr(field.annotation, "model_fields", {})]
        for name in fields or [""]
    }

    assert {name for name in names if name not in readme} == set()
