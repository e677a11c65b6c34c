"""What gateways report wrongly: one rule for each function, with where it was seen.

The fixtures named here are recordings of real gateways in pyenphase/pyenphase (tests/fixtures); numbers such as
pyenphase#275 are that project's issues and pull requests, home-assistant#140602 those of home-assistant/core.
"""

WRAP_WH = 2**32 / 3600
"""A 32-bit counter of joules wraps to 0 at 1,193,046 Wh."""

AC_BATTERY = 11
"""The ``devType`` of AC Batteries among the inverters; an inverter's is 1, or missing on firmware 3 and 4."""

MIN_FALL_WH = 100.0
"""A counter that does not advance may fall by less through rounding."""

STALE_AFTER_S = 3600


def signed_power(power: object) -> object:
    """Return a power with its sign.

    Negative watts are sent unsigned, -4 W as 4294967292: ``/ivp/pdm/energy`` in fixture 8.3.5169_ACB_inventory.
    """
    if isinstance(power, int | float) and not isinstance(power, bool) and 2**31 <= power < 2**32:
        return power - 2**32
    return power


def is_all_zero(today_wh: float | None, last_7_days_wh: float | None, lifetime_wh: float | None) -> bool:
    """Return whether the gateway's own counters do not count.

    Seen with disabled meters (fixture 7.3.466_metered_disabled_cts), without meters on 8.3.5422 (pyenphase#482), and
    for minutes after the start of firmware 3.
    """
    return not (today_wh or last_7_days_wh or lifetime_wh)


def counter_stalls_without_meters(version: tuple[int, ...], *, metered_hardware: bool, meters_enabled: bool) -> bool:
    """Return whether the gateway's own counter stalls: metered hardware without transformers (pyenphase#275)."""
    return metered_hardware and not meters_enabled and version >= (8, 2, 4264)


def is_below_inverters_sum(lifetime_wh: float | None, inverters_lifetime_wh: float | None) -> bool:
    """Return whether a production counter is far below the sum of the inverters, which itself can only be too low.

    The stalled counter of fixture 8.2.4264_metered_noct is 1,583 Wh where the inverters produced 32,465,106 Wh.
    """
    return lifetime_wh is not None and inverters_lifetime_wh is not None and lifetime_wh < 0.5 * inverters_lifetime_wh


def matches_meter(lifetime_wh: float | None, metered_wh: float | None) -> bool:
    """Return whether the gateway's own counter is a copy of the meter's.

    It is, some minutes late, in all fixtures with a production meter but 8.3.5433: 9,573,830 Wh for 14,405,465.
    """
    return lifetime_wh is not None and metered_wh is not None and abs(lifetime_wh - metered_wh) < 0.01 * metered_wh


def inverters_sum_wraps(version: tuple[int, ...]) -> bool:
    """Return whether the lifetime sum of the inverters wraps at 2^32 J.

    In fixtures 7.6.114_without_cts, 7.6.175 and 7.6.175_standard it is exactly 1, 7 and 5 wraps too low.
    """
    return version < (8,)


def is_wrap(fall_wh: float) -> bool:
    """Return whether a counter fell because one inverter's joules, or several inverters', wrapped.

    Source: home-assistant#140602.
    """
    wraps = round(fall_wh / WRAP_WH)
    return wraps >= 1 and abs(fall_wh - wraps * WRAP_WH) < 0.02 * WRAP_WH


def total_equals_net(total: float | None, net: float | None) -> bool:
    """Return whether total-consumption is a copy of net-consumption (8.3.5433, pyenphase#467).

    The true total is then net plus production. Where nothing was counted yet both are rightly zero.
    """
    return total is not None and total == net and total != 0


def equals_lifetime(energy_wh: float, lifetime_wh: float | None) -> bool:
    """Return whether a day's or week's counter is a copy of the lifetime (7.3.130_no_consumption, 8.3.5289)."""
    return lifetime_wh is not None and energy_wh > 0 and abs(energy_wh - lifetime_wh) < 1


def does_not_count(today_wh: float | None, last_7_days_wh: float | None, lifetime_wh: float | None) -> bool:
    """Return whether the counters of day and week stay at zero while the lifetime grows (8.1.41; 8.2.4286, total)."""
    return not today_wh and not last_7_days_wh and bool(lifetime_wh)


def last_7_days_are_wrong(last_7_days_wh: float, today_wh: float | None, lifetime_wh: float | None) -> bool:
    """Return whether the counter of seven days holds something else.

    It is the lifetime before today in fixtures 7.3.517_system_2, 8.1.41 and 8.2.4286, and a few Wh, less than those of
    today, in 7.3.466, 7.6.185 and 8.2.4382 (consumption).
    """
    today_wh = today_wh or 0.0
    # The day's value that was subtracted is a few minutes old.
    before_today = lifetime_wh is not None and lifetime_wh - last_7_days_wh <= 1.1 * today_wh + 1
    return before_today or last_7_days_wh < today_wh


def is_ac_battery(dev_type: int | None) -> bool:
    """Return whether an entry in the list of inverters is an AC Battery (fixture 8.2.4382_ACB)."""
    return dev_type == AC_BATTERY


def is_stale(reading_time: int | None, moment: int) -> bool:
    """Return whether a value is too old: AC Batteries' power is 41 hours old in fixture 8.2.4382_ACB."""
    return not reading_time or moment - reading_time > STALE_AFTER_S


def missing_storage_phase(version: tuple[int, ...], energies_wh: list[tuple[float | None, float | None]]) -> int | None:
    """Return which of two phases of the storage meter is all zero and missing in its total, counted from 0.

    Seen now and then on split phase from 8.3.6000 on (pyenphase, src/pyenphase/updaters/meters.py).

    Args:
        version: the firmware.
        energies_wh: delivered and received of the whole meter, then of each phase.
    """
    if version < (8, 3, 6000) or len(energies_wh) != 3:  # noqa: PLR2004 - the total and two phases
        return None
    total, *phases = energies_wh
    for missing, other in ((0, 1), (1, 0)):
        if phases[missing] == (0.0, 0.0) and phases[other] == total and all(total):
            return missing
    return None


def frequency_is_missing(frequency_hz: float | None) -> bool:
    """Return whether a frequency was not measured: 0.0 for the backfeed meter of fixture 8.3.1598_collar."""
    return frequency_hz == 0
