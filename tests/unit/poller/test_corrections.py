"""Duplicates, true times and counters that never fall."""

from services.poller.clock import GatewayClock
from services.poller.corrections import (
    MAX_AHEAD_S,
    RESET_CONFIRMED_AFTER_S,
    Corrections,
    Duplicates,
    MonotonicCounters,
    at_true_times,
)
from services.poller.interpret.quirks import WRAP_WH
from shared.readings import Grid, Inverter, Production

NOW = 1_800_000_000


class Seconds:
    """A monotonic clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def production(timestamp: int = NOW, energy_wh: float | None = None) -> Production:
    """Return a reading of the production."""
    return Production(timestamp=timestamp, power_w=5, energy_lifetime_wh=energy_wh, source="inverters")


def inverter(timestamp: int) -> Inverter:
    """Return a report of an inverter."""
    return Inverter(serial="1", timestamp=timestamp, power_w=5)


def lifetime(counters: MonotonicCounters, energy_wh: float) -> float | None:
    """Return what is left of a lifetime energy."""
    corrected = counters.without_falls(production(energy_wh=energy_wh))
    assert corrected.power_w == 5
    return corrected.energy_lifetime_wh


def test_two_readings_of_one_second_are_one() -> None:
    """Two polls may fall into the same second of the gateway."""
    duplicates = Duplicates()

    admitted = [duplicates.admit(production(timestamp)) for timestamp in (NOW, NOW, NOW + 1, NOW + 1)]

    assert admitted == [True, False, True, False]


def test_an_older_reading_is_kept_and_an_older_report_of_an_inverter_is_not() -> None:
    """A meter measured something at that time; an inverter's last report cannot become older."""
    duplicates = Duplicates()
    for reading in (production(NOW), inverter(NOW)):
        duplicates.admit(reading)

    assert duplicates.admit(production(NOW - 60))
    assert not duplicates.admit(inverter(NOW - 60))
    assert not duplicates.admit(inverter(NOW))
    assert duplicates.admit(inverter(NOW + 300))


def test_reports_continue_after_the_gateways_clock_was_set_back() -> None:
    """An hour and more is not an old report."""
    duplicates = Duplicates()
    duplicates.admit(inverter(NOW))

    admitted = [duplicates.admit(inverter(NOW - 7200 + seconds)) for seconds in (0, 0, 300)]

    assert admitted == [True, False, True]


def test_times_of_a_wrong_clock_become_ours() -> None:
    """All are moved by the same offset."""
    clock = GatewayClock(lambda: NOW)
    clock.observe(NOW - 7200, NOW)

    corrected = at_true_times([production(NOW - 7200), inverter(NOW - 7500)], clock)

    assert [reading.timestamp for reading in corrected] == [NOW, NOW - 300]


def test_readings_of_the_future_and_of_1970_are_dropped() -> None:
    """No reading was taken then."""
    clock = GatewayClock(lambda: NOW)

    assert at_true_times([production(NOW + MAX_AHEAD_S + 1), production(0)], clock) == []
    assert len(at_true_times([production(NOW + MAX_AHEAD_S)], clock)) == 1


def test_a_counter_that_wraps_is_left_out_permanently() -> None:
    """One inverter's 2^32 J are missing; the power is kept."""
    seconds = Seconds()
    counters = MonotonicCounters(seconds)

    assert lifetime(counters, 5_000_000) == 5_000_000
    assert lifetime(counters, 5_000_100 - WRAP_WH) is None
    seconds.now = 10 * RESET_CONFIRMED_AFTER_S
    assert lifetime(counters, 5_000_300 - WRAP_WH) is None
    assert counters.rejected == 2


def test_a_counter_that_was_reset_is_used_after_a_while() -> None:
    """A gateway that restarts reports zeros for minutes, one that was replaced counts from zero for ever."""
    seconds = Seconds()
    counters = MonotonicCounters(seconds)

    assert lifetime(counters, 5_000_000) == 5_000_000
    assert lifetime(counters, 0) is None
    seconds.now = RESET_CONFIRMED_AFTER_S
    assert lifetime(counters, 10) == 10
    assert lifetime(counters, 12) == 12


def test_a_counter_that_recovers_continues_as_before() -> None:
    """Zeros for a minute leave no trace; a step back by rounding is none."""
    counters = MonotonicCounters(Seconds())

    found = [lifetime(counters, energy_wh) for energy_wh in (5_000_000, 0, 5_000_001, 5_000_000.5)]

    assert found == [5_000_000, None, 5_000_001, 5_000_000.5]


def test_counters_of_two_kinds_are_independent() -> None:
    """A lower import than production is no fall."""
    counters = MonotonicCounters(Seconds())
    lifetime(counters, 5_000_000)
    grid = Grid(timestamp=NOW, power_w=1, import_power_w=1, export_power_w=0, import_lifetime_wh=7)

    assert counters.without_falls(grid) is grid


def test_a_new_correction_makes_no_duplicate_look_new() -> None:
    """Duplicates are found by the gateway's own times, before these are corrected."""
    clock = GatewayClock(lambda: NOW)
    corrections = Corrections(clock)
    assert corrections.apply([inverter(NOW - 100)]) != []

    clock.observe(NOW - 90, NOW)

    assert corrections.apply([inverter(NOW - 100)]) == []
