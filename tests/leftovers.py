"""The promise that a run of the tests leaves nothing behind: no temporary files, no state, nothing in Docker."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.programs import ROOT

IMAGE = "enphase-pipeline:latest"
"""The image of a stack that may be running here; the tests build one of another name."""

DOCKER_LISTS = {
    "container": "docker ps --all --quiet --no-trunc",
    "dangling image": "docker images --filter dangling=true --quiet --no-trunc",
    "volume": "docker volume ls --quiet",
    "network": "docker network ls --quiet --no-trunc",
    "tag": f"docker images {IMAGE} --quiet --no-trunc",
}


class LeftoversPlugin:
    """Gives the run a temporary folder of its own, and fails it in CI if anything is left elsewhere.

    Outside CI other programs may be the ones that leave something, so there nothing is compared.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="enphase-tests-"))
        # Programs and xdist's workers inherit it.
        os.environ["TMPDIR"] = str(self._folder)
        tempfile.tempdir = None
        self._before = found()
        self._leftovers: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Compare with the start, and remove the temporary folder of a run without failures."""
        if os.environ.get("CI"):
            temporary = {f"file {path}" for path in self._folder.iterdir() if not path.name.startswith("pytest-of-")}
            self._leftovers = temporary | (found() - self._before)
            if self._leftovers and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if session.exitstatus != pytest.ExitCode.TESTS_FAILED:
            shutil.rmtree(self._folder)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List what is left, and where the files of a run with failures are."""
        if self._folder.exists():
            terminalreporter.write_line(f"the tests' temporary files are kept in {self._folder}")
        for leftover in sorted(self._leftovers):
            terminalreporter.write_line(f"left behind by the tests: {leftover}", red=True)
        if os.environ.get("CI") and not self._leftovers:
            terminalreporter.write_line("left behind by the tests: nothing in state/, temporary folders and Docker")


def found() -> set[str]:
    """Return what there is in the places that tests must leave alone."""
    files = {f"file {path.relative_to(ROOT)}" for path in (ROOT / "state").rglob("*")}
    return files | {f"{kind} {line}" for kind, command in DOCKER_LISTS.items() for line in lines_of(command)}


def lines_of(command: str) -> list[str]:
    """Return the lines that a command of Docker's prints, none where there is no Docker."""
    if not os.environ.get("CI") or not shutil.which("docker"):
        return []
    return subprocess.run(command.split(), check=False, capture_output=True, text=True).stdout.splitlines()
