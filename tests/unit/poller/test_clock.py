"""How wrong a gateway's clock is, and whether it is corrected."""

import pytest

from services.poller.clock import GatewayClock, describe_offset

NOW = 1_800_000_000
BUILT = NOW - 400 * 86_400


@pytest.mark.parametrize(
    ("offset_s", "reported_s", "correction_s"),
    [
        (0, None, 0),
        (-40, None, 0),
        (3600, 3600, -3600),
        (-86_400, -86_400, 86_400),
        (-100 * 86_400, -100 * 86_400, 0),  # a recording, or our clock is wrong
        (200 * 86_400, 200 * 86_400, 0),
        (100 - NOW, 100 - NOW, NOW - 100),  # before its own firmware was built: the clock was reset
    ],
)
def test_a_wrong_clock_is_reported_and_corrected_where_it_is_certainly_the_wrong_one(
    offset_s: int, reported_s: int | None, correction_s: int
) -> None:
    """A minute is none, hours are corrected, years are not, unless the clock is behind the build of the firmware."""
    clock = GatewayClock(lambda: NOW)

    clock.observe(NOW + offset_s, NOW, BUILT)

    assert (clock.offset_s, clock.correction_s) == (reported_s, correction_s)


@pytest.mark.parametrize(
    ("offset_s", "text"),
    [(-7000, "7000 s behind ours"), (90_000, "25.0 h ahead of ours"), (-101_813_433, "1178 days behind ours")],
)
def test_an_offset_is_described_in_seconds_hours_or_days(offset_s: int, text: str) -> None:
    """Ahead or behind."""
    assert describe_offset(offset_s) == text


def test_the_correction_is_steady_while_the_observations_jitter() -> None:
    """A second more or less each time would move readings against each other."""
    clock = GatewayClock(lambda: NOW)

    corrections = []
    for shown in (3600, 3602, 3598, 3601, 3610):
        clock.observe(NOW + shown, NOW, BUILT)
        corrections.append(clock.correction_s)

    assert corrections == [-3600, -3600, -3600, -3600, -3610]


def test_what_has_no_time_is_stamped_so_that_the_correction_makes_it_ours() -> None:
    """And a measurement of now is recognized by the observed offset."""
    clock = GatewayClock(lambda: NOW)
    clock.observe(NOW + 3600, NOW, BUILT)

    assert clock.now() + clock.correction_s == NOW
    assert clock.agrees(NOW + 3590)
    assert not clock.agrees(NOW)
