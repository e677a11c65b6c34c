"""A benchmark whose requirements are missing prints how to install or start them."""

import subprocess
import sys
from pathlib import Path

from tests.programs import ROOT, clean_environment


def run_benchmark(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Return how a benchmark ends."""
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}"],
        env=clean_environment("COVERAGE_", "COMPOSE_") | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_pollers_benchmark_without_pyenphase_prints_what_installs_it(tmp_path: Path) -> None:
    """One line instead of a traceback where only make run has installed packages."""
    # Python imports this when it starts; the package then appears not to be installed.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pyenphase'] = None\n")
    ended = run_benchmark("poller", PYTHONPATH=str(tmp_path))

    assert ended.returncode == 1
    assert ended.stderr == "benchmarks.poller needs pyenphase; make test installs it\n"


def test_the_stacks_benchmark_without_a_stack_prints_how_to_start_it(tmp_path: Path) -> None:
    """Docker's error is followed by the command."""
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'no such service' >&2\nexit 1\n")
    docker.chmod(0o755)
    ended = run_benchmark("stack", PATH=str(tmp_path))

    assert ended.returncode == 1
    assert ended.stderr == "no such service\nstart the stack first: docker compose --profile demo up -d\n"
