import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.programs import Program, wait_until

Supervise = Callable[[str], Program]
CHILD = "print('child', os.getpid(), flush=True)\n"


@pytest.fixture
def supervise(tmp_path: Path) -> Supervise:
    """Return a function that makes the supervisor of a program from its Python source."""

    def supervisor(source: str) -> Program:
        program = tmp_path / "program.py"
        program.write_text(f"import os, signal, sys, time\n{source}")
        return Program.python(
            "deploy.local.supervisor",
            log=tmp_path / "log",
            environment={"SUPERVISED_COMMAND": f"'{sys.executable}' '{program}'"},
        )

    return supervisor


def test_a_killed_child_is_restarted(supervise: Supervise) -> None:
    """It is restarted after a short delay, and one line reports why."""
    with supervise(f"{CHILD}time.sleep(60)") as supervised:
        wait_until(lambda: supervised.output.count("child") == 1, "the program runs")
        os.kill(_child(supervised), signal.SIGKILL)
        wait_until(lambda: supervised.output.count("child") == 2, "the program runs again")
    assert "killed by SIGKILL; restarting in 0." in supervised.output


def test_a_child_that_keeps_failing_is_restarted_with_a_back_off(supervise: Supervise) -> None:
    """Each delay is about twice the one before, so that there is no busy loop."""
    with supervise("sys.exit(1)") as supervised:
        delays = r"exited with code 1; restarting in (\S+) s"
        wait_until(lambda: len(re.findall(delays, supervised.output)) > 2, "three restarts")
    first, _second, third, *_ = map(float, re.findall(delays, supervised.output))
    assert first <= 0.5
    assert 1 <= third <= 2


def test_a_child_that_another_program_stopped_is_restarted(supervise: Supervise) -> None:
    """It exits without an error, but the pipeline needs it."""
    with supervise(f"{CHILD}signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\ntime.sleep(60)") as supervised:
        wait_until(lambda: supervised.output.count("child") == 1, "the program runs")
        os.kill(_child(supervised), signal.SIGTERM)
        wait_until(lambda: supervised.output.count("child") == 2, "the program runs again")


def test_a_child_with_bad_settings_is_not_restarted(supervise: Supervise) -> None:
    """The user must correct them first; the supervisor exits with the same code."""
    with supervise("sys.exit(2)") as supervised:
        assert supervised.process.wait(10) == 2
    assert supervised.output == ""


def test_a_child_whose_client_id_was_taken_over_is_not_restarted(supervise: Supervise) -> None:
    """Two programs with the same client id would disconnect each other forever; the supervisor waits to be stopped."""
    with supervise(f"{CHILD}sys.exit(3)") as supervised:
        wait_until(lambda: "not restarting: another program" in supervised.output, "the supervisor waits")
        assert supervised.process.poll() is None
        supervised.process.terminate()
        assert supervised.process.wait(10) == 0
    assert supervised.output.count("child") == 1


def test_a_stopped_supervisor_waits_for_its_child(supervise: Supervise) -> None:
    """The child receives the signal, and exits before the supervisor."""
    end = "signal.signal(signal.SIGTERM, lambda *_: (print('stopped', flush=True), sys.exit(0)))"
    with supervise(f"{end}\n{CHILD}time.sleep(60)") as supervised:
        wait_until(lambda: "child" in supervised.output, "the program runs")
        supervised.process.terminate()
        assert supervised.process.wait(10) == 0
    assert supervised.output.split("\n")[1:] == ["stopped", ""]


def test_a_killed_supervisor_leaves_no_child(supervise: Supervise) -> None:
    """Its child is terminated, and does not occupy its port."""
    with supervise(f"{CHILD}time.sleep(60)") as supervised:
        wait_until(lambda: "child" in supervised.output, "the program runs")
        child = _child(supervised)
        supervised.process.kill()
        wait_until(lambda: _is_gone(child), "the child exits too")


def test_a_command_that_does_not_exist_is_reported_and_not_restarted(tmp_path: Path) -> None:
    """A wrong line of the Procfile is an error with the command's name."""
    command = {"SUPERVISED_COMMAND": "no-such-program --option"}
    with Program.python("deploy.local.supervisor", log=tmp_path / "log", environment=command) as supervised:
        assert supervised.process.wait(10) == 2
    assert supervised.output.endswith("cannot start 'no-such-program': No such file or directory\n")


def _child(supervised: Program) -> int:
    return int(supervised.output.split()[1])


def _is_gone(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"
