"""Row X of the fault matrix: anything hurt at random."""

from pathlib import Path

import pytest

from tests.faults.chaos import run


@pytest.mark.parametrize("seed", [2026])
def test_x1_a_minute_of_chaos_loses_nothing(seed: int, tmp_path: Path) -> None:
    """Broker, Carbon, sink and poller killed, stopped and held by a seed: every reading taken arrives as it was."""
    outcome = run(seed, 1.0, tmp_path)

    assert outcome.readings > 30
    assert (outcome.lost, outcome.spoilt) == (0, 0)
