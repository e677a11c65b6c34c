import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.backoff import backoff_s

MANY = 200


@given(
    failures=st.integers(1, 10_000),
    first_s=st.floats(0.1, 60),
    max_s=st.floats(0.1, 86_400),
)
def test_a_delay_is_between_half_and_all_of_the_doubled_one(failures: int, first_s: float, max_s: float) -> None:
    """It doubles with each failure up to the maximum, and no number of failures is too large."""
    doubled_s = min(max_s, first_s * 2.0 ** min(failures - 1, 100))

    assert doubled_s / 2 <= backoff_s(failures, first_s=first_s, max_s=max_s) <= doubled_s


@pytest.mark.parametrize("failures", [1, 5, 50])
def test_delays_are_spread_over_their_whole_range(failures: int) -> None:
    """Clients of one server that fail together do not retry together."""
    delays_s = [backoff_s(failures, first_s=8, max_s=64) for _client in range(MANY)]

    limit_s = min(64, 8 * 2 ** (failures - 1))
    assert min(delays_s) < limit_s * 0.6
    assert max(delays_s) > limit_s * 0.9


@pytest.mark.parametrize("failures", [0, -1])
def test_without_a_failure_the_delay_is_that_of_the_first(failures: int) -> None:
    """A caller that counts from zero does not retry at once."""
    assert 2 <= backoff_s(failures, first_s=4, max_s=64) <= 4
