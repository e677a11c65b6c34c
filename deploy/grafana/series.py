"""Graphite's targets for the dashboards, built from its functions.

``$prefix`` and ``$serial`` are variables of every dashboard.
"""

QUARTER_HOUR, HOUR, DAY = "15min", "1h", "1d"

MINUTE_SLOTS = 6
"""Slots of ten seconds in a minute."""


def gateway_metric(field: str) -> str:
    """Return the path of a field of the selected gateway, such as ``production.power_w``."""
    return f"$prefix.$serial.{field}"


def service_metric(metric: str, client_id: str = "*") -> str:
    """Return the path of a metric of every service, or of those with this client id or pattern."""
    return f"$prefix.services.{client_id}.metrics.{metric}"


def alias(name: str, series: str) -> str:
    """Return a series with this name in its legend."""
    return f"alias({series}, '{name}')"


def increase(counter: str, max_gap_slots: int | None = None) -> str:
    """Return by how much a counter increased in each slot.

    An increase during a gap is spread evenly over its slots. The increase is unknown, and left out, in the slot where a
    counter restarts at a lower value.

    Args:
        counter: its path.
        max_gap_slots: the size of a gap that is still interpolated; any size if None.
    """
    limit = "" if max_gap_slots is None else f", {max_gap_slots}"
    return f"nonNegativeDerivative(interpolate({counter}{limit}))"


def energy_wh(counter: str, interval: str) -> str:
    """Return the energy in each interval from a lifetime counter of the selected gateway."""
    return f"summarize({increase(gateway_metric(counter))}, '{interval}', 'sum')"


def production_wh(interval: str) -> str:
    """Return the energy that the panels produced."""
    return energy_wh("production.energy_lifetime_wh", interval)


def import_wh(interval: str) -> str:
    """Return the energy from the grid."""
    return energy_wh("grid.import_lifetime_wh", interval)


def export_wh(interval: str) -> str:
    """Return the energy to the grid."""
    return energy_wh("grid.export_lifetime_wh", interval)


def consumption_wh(interval: str) -> str:
    """Return the energy that the house used.

    The gateway counts production plus net consumption, which excludes a battery's discharge and includes its charge.
    """
    counted = energy_wh("consumption.energy_lifetime_wh", interval)
    discharge, charge = (energy_wh(f"battery.{way}_lifetime_wh", interval) for way in ("discharge", "charge"))
    return f"diffSeries(sumSeries({counted}, {discharge}), {charge})"


def consumption_w() -> str:
    """Return the power that the house uses: the gateway's value plus the battery's discharge (negative for charge)."""
    battery_w = f"keepLastValue({gateway_metric('battery.power_w')}, {MINUTE_SLOTS})"
    # With 1 there is no sum in a slot where one of them is missing; without a battery there is only one.
    return f"aggregate(group({gateway_metric('consumption.power_w')}, {battery_w}), 'sum', 1)"


def without_newest(series: str, age: str) -> str:
    """Return a series without the slots of this age, which may be incomplete."""
    return f"timeSlice({series}, '00:00_20000101', '-{age}')"


def cumulative(series: str) -> str:
    """Return the sum since the beginning of the time range."""
    return f"integral({series})"


def percent(part: str, whole: str) -> str:
    """Return one series as a percentage of another; empty where the other is zero or missing."""
    return f"scale(divideSeries({part}, {whole}), 100)"


def percent_of_median(series: str, min_median: float = 0) -> str:
    """Return each series as a percentage of the median of all; empty where the median is lower than the minimum."""
    median = f"aggregate({series}, 'median')"
    return f"asPercent({series}, {f'removeBelowValue({median}, {min_median:g})' if min_median else median})"
