"""What gateways tell wrongly, rule by rule: each function names one thing and where it was seen.

The fixtures named here are recordings of real gateways in pyenphase/pyenphase (tests/fixtures); numbers such as
pyenphase#275 are that project's issues and pull requests, home-assistant#140602 those of home-assistant/core.
"""

WRAP_WH = 2**32 / 3600
"""A count of joules in 32 bits begins again at 1,193,046 Wh."""

AC_BATTERY = 11
"""The ``devType`` of AC Batteries among the inverters; an inverter's is 1, or none on firmware 3 and 4."""

MIN_FALL_WH = 100.0
"""Less than this is the rounding of a count that stands still, not a fall."""

STALE_AFTER_S = 3600


def signed_power(power: object) -> object:
    """Return a power as the signed number that it is.

    Negative watts come unsigned, -4 W as 4294967292: ``/ivp/pdm/energy`` in fixture 8.3.5169_ACB_inventory.
    """
    if isinstance(power, int | float) and not isinstance(power, bool) and 2**31 <= power < 2**32:
        return power - 2**32
    return power


def is_all_zero(today_wh: float | None, last_7_days_wh: float | None, lifetime_wh: float | None) -> bool:
    """Return whether a gateway's own count counts nothing.

    Seen with disabled meters (fixture 7.3.466_metered_disabled_cts), without meters on 8.3.5422 (pyenphase#482), and
    for minutes after the start of firmware 3.
    """
    return not (today_wh or last_7_days_wh or lifetime_wh)


def count_without_meters_stalls(version: tuple[int, ...], *, metered_hardware: bool, meters_enabled: bool) -> bool:
    """Return whether the gateway's own count stands still: metered hardware without transformers (pyenphase#275)."""
    return metered_hardware and not meters_enabled and version >= (8, 2, 4264)


def is_below_the_inverters_sum(lifetime_wh: float | None, inverters_lifetime_wh: float | None) -> bool:
    """Return whether a count of the roof is far below the sum of its inverters, which can only be too low itself.

    The stalled count of fixture 8.2.4264_metered_noct is 1,583 Wh where the inverters have made 32,465,106 Wh.
    """
    return lifetime_wh is not None and inverters_lifetime_wh is not None and lifetime_wh < 0.5 * inverters_lifetime_wh


def mirrors_the_meter(lifetime_wh: float | None, metered_wh: float | None) -> bool:
    """Return whether the gateway's own count is the meter's.

    It is, some minutes late, in all fixtures with a production meter but 8.3.5433: 9,573,830 Wh for 14,405,465.
    """
    return lifetime_wh is not None and metered_wh is not None and abs(lifetime_wh - metered_wh) < 0.01 * metered_wh


def inverters_sum_wraps(version: tuple[int, ...]) -> bool:
    """Return whether the inverters' lifetime sum begins again at 2^32 J.

    In fixtures 7.6.114_without_cts, 7.6.175 and 7.6.175_standard it is exactly 1, 7 and 5 wraps below the truth.
    """
    return version < (8,)


def is_wrap(fall_wh: float) -> bool:
    """Return whether a count fell because one inverter's joules, or more, began again (home-assistant#140602)."""
    wraps = round(fall_wh / WRAP_WH)
    return wraps >= 1 and abs(fall_wh - wraps * WRAP_WH) < 0.02 * WRAP_WH


def total_is_net(total: float | None, net: float | None) -> bool:
    """Return whether net-consumption stands in the place of total-consumption (8.3.5433, pyenphase#467).

    The total is then net plus production. Both are zero, and equal rightly, where nothing was counted yet.
    """
    return total is not None and total == net and total != 0


def counts_the_lifetime(energy_wh: float, lifetime_wh: float | None) -> bool:
    """Return whether a count of the day or week is the lifetime's (fixtures 7.3.130_no_consumption, 8.3.5289)."""
    return lifetime_wh is not None and energy_wh > 0 and abs(energy_wh - lifetime_wh) < 1


def counts_nothing(today_wh: float | None, last_7_days_wh: float | None, lifetime_wh: float | None) -> bool:
    """Return whether the counts of day and week stand at zero beside a lifetime (8.1.41; 8.2.4286, total)."""
    return not today_wh and not last_7_days_wh and bool(lifetime_wh)


def last_7_days_are_wrong(last_7_days_wh: float, today_wh: float | None, lifetime_wh: float | None) -> bool:
    """Return whether the count of seven days is known to be none.

    It is the lifetime before today in fixtures 7.3.517_system_2, 8.1.41 and 8.2.4286, and a few Wh, less than those of
    today, in 7.3.466, 7.6.185 and 8.2.4382 (consumption).
    """
    today_wh = today_wh or 0.0
    # The day's count that was taken off is a few minutes old.
    before_today = lifetime_wh is not None and lifetime_wh - last_7_days_wh <= 1.1 * today_wh + 1
    return before_today or last_7_days_wh < today_wh


def is_ac_battery(dev_type: int | None) -> bool:
    """Return whether an entry among the inverters is an AC Battery, which would count as sun (fixture 8.2.4382_ACB)."""
    return dev_type == AC_BATTERY


def is_stale(reading_time: int | None, moment: int) -> bool:
    """Return whether a count is from long before: AC Batteries' power is 41 hours old in fixture 8.2.4382_ACB."""
    return not reading_time or moment - reading_time > STALE_AFTER_S


def storage_lost_a_phase(version: tuple[int, ...], energies_wh: list[tuple[float | None, float | None]]) -> int | None:
    """Return which of two phases of the storage meter is all zero and missing in its total, counted from 0.

    Seen now and then on split phase from 8.3.6000 on (pyenphase, src/pyenphase/updaters/meters.py).

    Args:
        version: the firmware.
        energies_wh: delivered and received of the whole meter, then of each phase.
    """
    if version < (8, 3, 6000) or len(energies_wh) != 3:  # noqa: PLR2004 - the whole and two phases
        return None
    whole, *phases = energies_wh
    for lost, other in ((0, 1), (1, 0)):
        if phases[lost] == (0.0, 0.0) and phases[other] == whole and all(whole):
            return lost
    return None


def frequency_is_missing(frequency_hz: float | None) -> bool:
    """Return whether a frequency was not measured: 0.0 for the backfeed meter of fixture 8.3.1598_collar."""
    return frequency_hz == 0
