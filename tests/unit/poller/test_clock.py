import pytest

from services.poller.clock import GatewayClock, told

NOW = 1_800_000_000
BUILT = NOW - 400 * 86_400


@pytest.mark.parametrize(
    ("offset_s", "told_s", "correction_s"),
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
def test_a_wrong_clock_is_told_and_corrected_where_it_is_known_to_be_the_wrong_one(
    offset_s: int, told_s: int | None, correction_s: int
) -> None:
    """A minute is nothing, hours are corrected, years are not, unless the gateway lives before its own birth."""
    clock = GatewayClock(lambda: NOW)

    clock.shows(NOW + offset_s, NOW, BUILT)

    assert (clock.offset_s, clock.correction_s) == (told_s, correction_s)


@pytest.mark.parametrize(
    ("offset_s", "words"),
    [(-7000, "7000 s behind ours"), (90_000, "25.0 h ahead of ours"), (-101_813_433, "1178 days behind ours")],
)
def test_how_wrong_a_clock_is_is_told_as_a_person_says_it(offset_s: int, words: str) -> None:
    """Seconds, hours or days, and which way."""
    assert told(offset_s) == words


def test_the_correction_is_steady_while_the_looks_at_the_clock_jitter() -> None:
    """A second more or less at each look would move readings against each other."""
    clock = GatewayClock(lambda: NOW)

    corrections = []
    for shown in (3600, 3602, 3598, 3601, 3610):
        clock.shows(NOW + shown, NOW, BUILT)
        corrections.append(clock.correction_s)

    assert corrections == [-3600, -3600, -3600, -3600, -3610]


def test_the_gateways_now_is_ours_by_its_clock() -> None:
    """What it gives no time for is stamped so that the correction makes it ours again."""
    clock = GatewayClock(lambda: NOW)
    clock.shows(NOW + 3600, NOW, BUILT)

    assert clock.now() + clock.correction_s == NOW
    assert clock.agrees(NOW + 3590)
    assert not clock.agrees(NOW)
