"""Each rule by itself, with the numbers of the gateway on which it was seen."""

import pytest

from services.poller.interpret import quirks


@pytest.mark.parametrize(
    ("reported", "meant"),
    [(4294967292, -4), (4294967292.0, -4.0), (7131.017, 7131.017), (-4, -4), (True, True), ("4", "4")],
)
def test_negative_watts_that_come_unsigned_are_negative(reported: object, meant: object) -> None:
    """-4 W is reported as 4294967292; what is no number is left to the validation."""
    assert quirks.signed_power(reported) == meant


def test_counters_that_are_all_zero_do_not_count() -> None:
    """Any energy makes them counters."""
    assert quirks.is_all_zero(0, 0, 0)
    assert quirks.is_all_zero(None, None, None)
    assert not quirks.is_all_zero(0, 0, 5)


@pytest.mark.parametrize(
    ("version", "metered_hardware", "meters_enabled", "stalls"),
    [
        ((8, 2, 4264), True, False, True),
        ((8, 2, 4264), True, True, False),
        ((8, 2, 4264), False, False, False),
        ((8, 2, 4263), True, False, False),
    ],
)
def test_the_gateways_counter_stalls_on_metered_hardware_without_transformers(
    version: tuple[int, ...],
    metered_hardware: bool,  # noqa: FBT001 - a table
    meters_enabled: bool,  # noqa: FBT001 - a table
    stalls: bool,  # noqa: FBT001 - a table
) -> None:
    """From 8.2.4264 on."""
    assert (
        quirks.counter_stalls_without_meters(version, metered_hardware=metered_hardware, meters_enabled=meters_enabled)
        == stalls
    )


def test_a_counter_far_below_the_inverters_sum_is_wrong() -> None:
    """1,583 Wh for 32 MWh; one that is a little off, or above a sum that has wrapped, is right."""
    assert quirks.is_below_inverters_sum(1583, 32_465_106)
    assert not quirks.is_below_inverters_sum(6_139_406, 174_174)
    assert not quirks.is_below_inverters_sum(133_798_553, 133_798_554)
    assert not quirks.is_below_inverters_sum(5, None)


def test_the_inverters_sum_wraps_below_firmware_8() -> None:
    """By exact multiples of 2^32 J."""
    assert quirks.inverters_sum_wraps((7, 6, 175))
    assert not quirks.inverters_sum_wraps((8, 2, 4264))


@pytest.mark.parametrize(
    ("fall_wh", "wrapped"),
    [(1_193_046, True), (5 * 1_193_046.5, True), (1_190_000, True), (50, False), (900_000, False)],
)
def test_a_fall_by_multiples_of_a_wrap_is_a_wrap(fall_wh: float, wrapped: bool) -> None:  # noqa: FBT001 - a table
    """Other falls are a counter that was reset."""
    assert quirks.is_wrap(fall_wh) == wrapped


def test_a_total_that_is_a_copy_of_net_is_recognized() -> None:
    """Only where something was counted: two zeros are rightly equal."""
    assert quirks.total_equals_net(14_405_465.0, 14_405_465.0)
    assert not quirks.total_equals_net(0.0, 0.0)
    assert not quirks.total_equals_net(None, None)
    assert not quirks.total_equals_net(26335790.411, 16908208.46)


def test_a_day_that_is_a_copy_of_the_lifetime_is_recognized() -> None:
    """As with disabled meters on 7.3.130."""
    assert quirks.equals_lifetime(4545909.217, 4545909.217)
    assert not quirks.equals_lifetime(7412.411, 26335790.411)
    assert not quirks.equals_lifetime(0, 0)


def test_a_day_and_a_week_of_zero_do_not_count_where_there_is_a_lifetime() -> None:
    """The consumption of 8.2.4286."""
    assert quirks.does_not_count(0.0, 0.0, 15113474.057)
    assert not quirks.does_not_count(0.0, 73002.0, 2432969.0)


@pytest.mark.parametrize(
    ("week_wh", "today_wh", "lifetime_wh", "wrong"),
    [
        (13418964.665, 12569.665, 13431328.665, True),  # 8.2.4286: the lifetime before today
        (18_431_000, 11_149, 18_442_149, True),
        (4.621, 19903.621, 5145153.621, True),  # 7.6.175_with_cts: less than today
        (163075.411, 7412.411, 26335790.411, False),
        (73002.956, None, 2432969.956, False),
    ],
)
def test_a_week_that_is_known_to_be_wrong_is_recognized(
    week_wh: float,
    today_wh: float | None,
    lifetime_wh: float,
    wrong: bool,  # noqa: FBT001 - a table
) -> None:
    """Others are used."""
    assert quirks.last_7_days_are_wrong(week_wh, today_wh, lifetime_wh) == wrong


def test_only_device_type_11_is_an_ac_battery() -> None:
    """Old firmware gives inverters no type."""
    assert [quirks.is_ac_battery(kind) for kind in (11, 1, None)] == [True, False, False]


def test_a_value_of_hours_ago_or_without_a_time_is_stale() -> None:
    """The AC Batteries of 8.2.4382 reported their power 41 hours ago."""
    assert quirks.is_stale(1731943992, 1732092958)
    assert quirks.is_stale(0, 1732092958)
    assert not quirks.is_stale(1732092900, 1732092958)


@pytest.mark.parametrize(
    ("version", "energies_wh", "lost"),
    [
        ((8, 3, 6000), [(9.0, 8.0), (0.0, 0.0), (9.0, 8.0)], 0),
        ((8, 3, 6000), [(9.0, 8.0), (9.0, 8.0), (0.0, 0.0)], 1),
        ((8, 3, 6000), [(18.0, 16.0), (9.0, 8.0), (9.0, 8.0)], None),
        ((8, 3, 6000), [(0.0, 0.0), (0.0, 0.0), (0.0, 0.0)], None),
        ((8, 3, 5433), [(9.0, 8.0), (0.0, 0.0), (9.0, 8.0)], None),
        ((8, 3, 6000), [(9.0, 8.0)], None),
    ],
)
def test_a_storage_phase_that_is_missing_in_the_total_is_found(
    version: tuple[int, ...], energies_wh: list[tuple[float | None, float | None]], lost: int | None
) -> None:
    """One phase all zero, the total equal to the other."""
    assert quirks.missing_storage_phase(version, energies_wh) == lost


def test_a_frequency_of_zero_was_not_measured() -> None:
    """The backfeed meter of 8.3.1598 reports 0.0 Hz."""
    assert [quirks.frequency_is_missing(reported) for reported in (0.0, 60.0, None)] == [True, False, False]
