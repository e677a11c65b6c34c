"""Random faults, each kind at any time."""

from pathlib import Path

import pytest

from tests.faults.chaos import run


@pytest.mark.parametrize("seed", [2026])
def test_a_minute_of_random_faults_loses_nothing(seed: int, tmp_path: Path) -> None:
    """Broker, Carbon, sink and poller killed, stopped and paused by a seed: every reading taken arrives unchanged."""
    outcome = run(seed, 1.0, tmp_path)

    assert outcome.readings > 30
    assert (outcome.lost, outcome.wrong) == (0, 0)
