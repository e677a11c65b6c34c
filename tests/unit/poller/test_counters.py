from services.poller.counters import BELIEVED_AFTER_S, Counters
from services.poller.quirks import WRAP_WH
from shared.readings import Production


class Seconds:
    """A monotonic clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def lifetime(counters: Counters, energy_wh: float) -> float | None:
    """Return what is left of a lifetime energy."""
    reading = Production(timestamp=1, power_w=5, energy_lifetime_wh=energy_wh, source="inverters")
    checked = counters.checked(reading)
    assert checked.power_w == 5
    return checked.energy_lifetime_wh


def test_a_count_that_wraps_is_left_out_for_good() -> None:
    """One inverter's 2^32 J are gone; the power is kept."""
    seconds = Seconds()
    counters = Counters(seconds)

    assert lifetime(counters, 5_000_000) == 5_000_000
    assert lifetime(counters, 5_000_100 - WRAP_WH) is None
    seconds.now = 10 * BELIEVED_AFTER_S
    assert lifetime(counters, 5_000_300 - WRAP_WH) is None
    assert counters.left_out == 2


def test_a_count_that_begins_again_is_believed_after_a_while() -> None:
    """A restart tells zeros for minutes, a replaced gateway for ever."""
    seconds = Seconds()
    counters = Counters(seconds)

    assert lifetime(counters, 5_000_000) == 5_000_000
    assert lifetime(counters, 0) is None
    seconds.now = BELIEVED_AFTER_S
    assert lifetime(counters, 10) == 10
    assert lifetime(counters, 12) == 12


def test_a_count_that_comes_back_was_never_gone() -> None:
    """Zeros for a minute leave no trace; a step back by rounding is none."""
    counters = Counters(Seconds())

    told = [lifetime(counters, energy_wh) for energy_wh in (5_000_000, 0, 5_000_001, 5_000_000.5)]

    assert told == [5_000_000, None, 5_000_001, 5_000_000.5]
