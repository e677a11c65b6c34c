"""How long to wait before a retry, with jitter, so that many clients of one server do not return in step."""

import random

MAX_DOUBLINGS = 30


def backoff_s(failures: int, *, first_s: float, max_s: float) -> float:
    """Return the seconds to wait after so many failures in a row: doubled each time, with :func:`jittered_s`.

    Args:
        failures: how many in a row, 1 for the first.
        first_s: the maximum delay after the first failure.
        max_s: the maximum delay after any.
    """
    return jittered_s(min(max_s, first_s * 2.0 ** min(max(failures, 1) - 1, MAX_DOUBLINGS)))


def jittered_s(max_s: float) -> float:
    """Return a random delay between half of the maximum and all of it."""
    return random.uniform(max_s / 2, max_s)  # noqa: S311 - not a secret
