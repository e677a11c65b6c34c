"""How long to wait before a retry."""

import random

MAX_DOUBLINGS = 30


def backoff_s(failures: int, *, first_s: float, max_s: float) -> float:
    """Return the seconds to wait after so many failures in a row: doubled each time, with jitter.

    The delay is random between half of ``min(max_s, first_s * 2 ** (failures - 1))`` and all of it, so that many
    clients of one server do not return in step.

    Args:
        failures: how many in a row, 1 for the first.
        first_s: the maximum delay after the first failure.
        max_s: the maximum delay after any.
    """
    delay_s = min(max_s, first_s * 2.0 ** min(max(failures, 1) - 1, MAX_DOUBLINGS))
    return random.uniform(delay_s / 2, delay_s)  # noqa: S311 - jitter, no secret
