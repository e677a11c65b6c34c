import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.programs import Program, wait_until

Keep = Callable[[str], Program]
UP = "print('up', os.getpid(), flush=True)\n"


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """Make the keeper of a program that is given as Python source."""

    def keeper(source: str) -> Program:
        program = tmp_path / "program.py"
        program.write_text(f"import os, signal, sys, time\n{source}")
        return Program.python(
            "deploy.local.keep",
            log=tmp_path / "log",
            environment={"KEEP_COMMAND": f"'{sys.executable}' '{program}'"},
        )

    return keeper


def test_killed_child_is_started_again(keep: Keep) -> None:
    """A program that somebody killed comes back, and one line says so."""
    with keep(f"{UP}time.sleep(60)") as kept:
        wait_until(lambda: kept.output.count("up") == 1, "the program runs")
        _kill_child(kept)
        wait_until(lambda: kept.output.count("up") == 2, "the program runs again")
    assert "killed by SIGKILL, starts again in 0.5 s" in kept.output


def test_child_that_keeps_failing_is_started_after_growing_delays(keep: Keep) -> None:
    """A program that fails again and again is not started in a busy loop."""
    with keep("sys.exit(1)") as kept:
        wait_until(lambda: "exit 1, starts again in 1 s" in kept.output, "the second restart")
    assert "exit 1, starts again in 0.5 s" in kept.output


def test_child_that_somebody_stopped_is_started_again(keep: Keep) -> None:
    """A service that ends cleanly without our having asked was stopped by somebody, and the pipeline wants it."""
    with keep(f"{UP}signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\ntime.sleep(60)") as kept:
        wait_until(lambda: kept.output.count("up") == 1, "the program runs")
        os.kill(int(kept.output.split()[1]), signal.SIGTERM)
        wait_until(lambda: kept.output.count("up") == 2, "the program runs again")


def test_child_with_bad_settings_ends_the_keeper(keep: Keep) -> None:
    """What only a person can mend is not tried again."""
    with keep("sys.exit(2)") as kept:
        assert kept.process.wait(10) == 2
    assert kept.output == ""


def test_child_whose_client_id_was_taken_over_stays_away_until_stopped(keep: Keep) -> None:
    """Two programs with one client id would throw each other out for ever."""
    with keep(f"{UP}sys.exit(3)") as kept:
        wait_until(lambda: "stays idle" in kept.output, "the keeper says that it waits")
        assert kept.process.poll() is None
        kept.process.terminate()
        assert kept.process.wait(10) == 0
    assert kept.output.count("up") == 1


def test_sigterm_is_passed_on_and_waited_for(keep: Keep) -> None:
    """The child ends in its own way before the keeper does."""
    end = "signal.signal(signal.SIGTERM, lambda *_: (print('ended well', flush=True), sys.exit(0)))"
    with keep(f"{end}\n{UP}time.sleep(60)") as kept:
        wait_until(lambda: "up" in kept.output, "the program runs")
        kept.process.terminate()
        assert kept.process.wait(10) == 0
    assert kept.output.split("\n")[1:] == ["ended well", ""]


def test_killed_keeper_leaves_no_child(keep: Keep) -> None:
    """A child whose keeper was killed does not hold its port for ever."""
    with keep(f"{UP}time.sleep(60)") as kept:
        wait_until(lambda: "up" in kept.output, "the program runs")
        child = int(kept.output.split()[1])
        kept.process.kill()
        wait_until(lambda: _is_gone(child), "the child ends too")


def test_command_that_does_not_exist_ends_the_keeper(tmp_path: Path) -> None:
    """A misspelt line of the Procfile is told at once."""
    command = {"KEEP_COMMAND": "no-such-program --option"}
    with Program.python("deploy.local.keep", log=tmp_path / "log", environment=command) as kept:
        assert kept.process.wait(10) == 2
    assert kept.output == "can't start 'no-such-program': No such file or directory\n"


def _kill_child(kept: Program) -> None:
    child = int(kept.output.split()[1])
    os.kill(child, signal.SIGKILL)


def _is_gone(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"
