"""The metrics of all gateways together, and what the service keeps out of its memory."""

import subprocess
import sys

import pytest

from services.poller.service import merge_stats
from tests.programs import ROOT, clean_environment

MODULES = "{'cryptography', 'jwt', 'paho', 'requests', 'rich', 'sqlite3'} & {name.partition('.')[0] for name in loaded}"


def loaded_by(code: str, *arguments: str) -> set[str]:
    """Return which of the large libraries are loaded after some code has run."""
    end = f"loaded = set(sys.modules); print(*{MODULES}, sep=',')"
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{end}", *arguments],
        env=clean_environment("COVERAGE_"),  # which loads sqlite3 itself
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return set(ended.stdout.splitlines()[-1].split(",")) - {""}


def test_metrics_of_several_gateways_are_sums_and_maxima() -> None:
    """The slowest poll and the worst clock are the ones to know."""
    first = {"gateways": 1, "polls": 3, "poll_duration_s": 0.5, "clock_offset_s": 0}
    second = {"gateways": 1, "polls": 4, "poll_duration_s": 0.1, "clock_offset_s": 7200}

    assert merge_stats([first, second]) == {
        "gateways": 2,
        "polls": 7,
        "poll_duration_s": 0.5,
        "clock_offset_s": 7200,
    }
    assert merge_stats([]) == {}


@pytest.mark.parametrize("option", ["--help", "--health"])
def test_help_and_health_load_no_large_library(option: str) -> None:
    """Docker runs the health check every few seconds."""
    run = "import runpy\ntry: runpy.run_module('services.poller', run_name='__main__')\nexcept SystemExit: pass"

    assert loaded_by(run, option) == set()


def test_the_running_service_does_without_cryptography_and_rich() -> None:
    """They would be a third of its memory."""
    modules = "services.poller.polling, services.poller.service, services.poller.session, shared.outbox, shared.journal"

    assert loaded_by(f"import {modules}") == {"paho", "requests", "sqlite3"}
