import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.health import HEALTHY, STALE_AFTER_S, Health, check_health
from tests.programs import ROOT

NOW = 1_800_000_000.0

LARGE_LIBRARIES = {"cryptography", "jwt", "paho", "requests", "urllib3"}


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the health is written."""
    return tmp_path / "poller" / "health"


def heartbeat(path: Path, text: str, at: float) -> None:
    """Write a health file as of a time."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, (at, at))


def test_a_service_that_reports_no_fault_is_healthy(path: Path) -> None:
    """Its heartbeat is there and has no fault."""
    Health(path).report(None)

    assert check_health(path, path.stat().st_mtime).ok


def test_the_fault_that_a_service_reports_is_the_result(path: Path) -> None:
    """The text is the service's own."""
    Health(path).report("not connected to the MQTT broker")

    assert check_health(path, path.stat().st_mtime) == (False, "health", "not connected to the MQTT broker")


def test_a_heartbeat_is_written_when_it_is_due_or_the_fault_changes(path: Path) -> None:
    """A report in between costs no write."""
    clock = Clock()
    health = Health(path, clock)

    def is_written(fault: str | None, after_s: float) -> bool:
        path.unlink(missing_ok=True)
        clock.now += after_s
        health.report(fault)
        return path.exists()

    assert is_written(None, 0)
    assert not is_written(None, 4.9)
    assert is_written(None, 0.2)
    assert is_written("no gateway responds", 0.1)
    assert not is_written("no gateway responds", 1)
    assert is_written(None, 0.1)
    assert is_written(None, -3600), "the clock was set back"


@pytest.mark.parametrize("age_s", [STALE_AFTER_S + 1, -STALE_AFTER_S - 1], ids=["old", "in the future"])
@pytest.mark.parametrize("text", [HEALTHY, "no gateway responds"])
def test_a_stale_heartbeat_is_a_fault(path: Path, age_s: float, text: str) -> None:
    """A service that hangs writes none; one in the future is from before the clock was set back."""
    heartbeat(path, text, NOW - age_s)

    result = check_health(path, NOW)

    assert not result.ok
    assert "no heartbeat for 61 s" in result.text
    assert ("no gateway responds" in result.text) == (text != HEALTHY)


def test_an_empty_file_is_no_heartbeat(path: Path) -> None:
    """A power cut may leave one, because health is not written to disk durably."""
    heartbeat(path, "", NOW)

    assert not check_health(path, NOW).ok


def test_a_missing_heartbeat_is_a_fault_with_the_next_step(path: Path) -> None:
    """The service was never started, or writes elsewhere."""
    result = check_health(path, NOW)

    assert not result.ok
    assert str(path) in result.text
    assert "STATE_DIR" in result.text


def test_a_file_that_cannot_be_read_is_a_fault(path: Path) -> None:
    """Whatever is at the path, the result is a line."""
    path.mkdir(parents=True)

    result = check_health(path, NOW)

    assert not result.ok
    assert "cannot read" in result.text


def test_a_disk_that_cannot_be_written_is_logged_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And again after it has recovered and failed once more."""
    clock = Clock()
    health = Health(path, clock)

    def report() -> None:
        clock.now += 10
        health.report(None)

    path.parent.touch()
    report()
    report()
    assert len(caplog.messages) == 1
    path.parent.unlink()
    report()
    path.unlink()
    path.parent.rmdir()
    path.parent.touch()
    report()
    assert len(caplog.messages) == 2


def test_the_modules_of_health_import_no_large_library() -> None:
    """--health runs every few seconds in a container, and needs neither MQTT nor HTTP nor cryptography."""
    program = (
        "import sys, shared.health, shared.checks, shared.settings, shared.logs, shared.lifecycle\n"
        f"print(*{LARGE_LIBRARIES!r} & sys.modules.keys())"
    )

    imported = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert imported.stdout.split() == []
