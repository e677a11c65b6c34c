"""What some tests need beyond Python and its packages; each need is a pytest marker of the same name.

`make test` runs what this machine can run. A test whose need is missing is deselected, counted, and listed at the end
with what provides it; it is never skipped. With `CI` set (`make test-all` and the other `test-` targets) nothing is
deselected for a missing need, and the test fails instead.
"""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from ctypes.util import find_library
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import pytest

from deploy.local.broker import find_mosquitto
from tests.recordings import RECORDINGS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Need(NamedTuple):
    """Something that a machine has or lacks."""

    name: str
    is_met: Callable[[], bool]
    remedy: str


def _docker_runs() -> bool:
    version = ["docker", "version"]
    return bool(shutil.which("docker")) and subprocess.run(version, check=False, capture_output=True).returncode == 0


def _may_mount_and_filter() -> bool:
    return os.geteuid() == 0 and all(map(find_program, ("mount", "iptables")))


def find_program(name: str) -> str | None:
    """Return the path of a program that may be in a folder for root's programs."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


NEEDS = (
    Need("docker", _docker_runs, "make test-docker, with a running Docker engine"),
    Need("npm", lambda: all(map(shutil.which, ("node", "npm"))), "make test-npm, with Node.js and npm"),
    Need("root", _may_mount_and_filter, "make test-root, as root on Linux with iptables"),
    Need("recordings", RECORDINGS.is_dir, "ENVOY_RECORDINGS=<folder>, such as tests/fixtures of pyenphase/pyenphase"),
    Need("iotcore", lambda: find_spec("iotcore") is not None, "make test, where PyPI has a wheel of it"),
    Need("mosquitto", lambda: find_mosquitto() is not None, "apt install mosquitto"),
    Need("curl", lambda: shutil.which("curl") is not None, "apt install curl"),
    Need("chromium", lambda: CHROMIUM is not None, "apt install chromium"),
    Need("cairo", lambda: find_library("cairo") is not None, "apt install libcairo2"),
)


@cache
def is_met(need: Need) -> bool:
    """Return whether this machine has it."""
    return need.is_met()


def unmet_needs(item: pytest.Item) -> list[Need]:
    """Return what a test needs and this machine lacks."""
    return [need for need in NEEDS if item.get_closest_marker(need.name) and not is_met(need)]


class NeedsPlugin:
    """Selects the tests that this machine can run, and reports those that it did not run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._not_run: Counter[str] = Counter()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Deselect the tests whose needs are not met, unless CI requires all."""
        if os.environ.get("CI"):
            return
        impossible = [item for item in items if unmet_needs(item)]
        if impossible:
            items[:] = [item for item in items if item not in impossible]
            self._config.hook.pytest_deselected(items=impossible)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Count the tests that are not run, by the first of their needs; what -k leaves out is left out on purpose."""
        for item in [] if self._config.option.keyword else items:
            needs = [need.name for need in NEEDS if item.get_closest_marker(need.name)]
            self._not_run.update(needs[:1])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Fail a test that CI requires and this machine cannot run."""
        for need in unmet_needs(item):
            pytest.fail(f"this test needs {need.name}: {need.remedy}", pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn a skip into a failure: a test that proves nothing is not green."""
        report = yield
        if report.skipped and not hasattr(report, "wasxfail"):
            report.outcome = "failed"
            report.longrepr = (
                f"{item.nodeid} was skipped; mark what it needs instead (tests/needs.py): {report.longrepr}"
            )
        return report

    def pytest_sessionfinish(self) -> None:
        """Hand the counts of an xdist worker to the process that prints the summary."""
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["not_run"] = dict(self._not_run)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Take the counts of an xdist worker; each worker has collected all tests."""
        self._not_run |= Counter(getattr(node, "workeroutput", {}).get("not_run", {}))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List what was not run and what would run it."""
        for need in NEEDS:
            if count := self._not_run[need.name]:
                terminalreporter.write_line(f"not run: {count} tests that need {need.name} ({need.remedy})")
