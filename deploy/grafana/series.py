"""What the dashboards ask Graphite for.

The names of functions are Graphite's own; ``$prefix`` and ``$serial`` are variables of every dashboard.
"""

QUARTER_HOUR, HOUR, DAY = "15min", "1h", "1d"

A_MINUTE = 6
"""In slots of ten seconds."""


def of_the_gateway(field: str) -> str:
    """Return the path of a field of the chosen gateway, such as ``production.power_w``."""
    return f"$prefix.$serial.{field}"


def of_the_services(metric: str, client_id: str = "*") -> str:
    """Return the path of a metric of whichever service publishes it, or of those of a client id."""
    return f"$prefix.services.{client_id}.metrics.{metric}"


def named(name: str, series: str) -> str:
    """Name a series for its legend."""
    return f"alias({series}, '{name}')"


def counted(counter: str, max_gap: int | None = None) -> str:
    """Return what a counter gained in each slot.

    What it gained while nothing was read is spread evenly over that gap. Where it begins again at less, nothing is
    known of what it gained in that slot, and nothing is what it adds.

    Args:
        counter: the series of a counter.
        max_gap: how many slots without a value are bridged; any number if None.
    """
    limit = "" if max_gap is None else f", {max_gap}"
    return f"nonNegativeDerivative(interpolate({counter}{limit}))"


def energy_wh(counter: str, every: str) -> str:
    """Return the energy in each quarter-hour, hour or day, out of a lifetime counter of the chosen gateway."""
    return f"summarize({counted(of_the_gateway(counter))}, '{every}', 'sum')"


def produced_wh(every: str) -> str:
    """Return what the roof made."""
    return energy_wh("production.energy_lifetime_wh", every)


def imported_wh(every: str) -> str:
    """Return what came from the grid."""
    return energy_wh("grid.import_lifetime_wh", every)


def exported_wh(every: str) -> str:
    """Return what went to the grid."""
    return energy_wh("grid.export_lifetime_wh", every)


def consumed_wh(every: str) -> str:
    """Return what the house used.

    The gateway counts production plus net consumption: without what a battery gives, and with what it takes.
    """
    counts_by_gateway = energy_wh("consumption.energy_lifetime_wh", every)
    discharged, charged = (energy_wh(f"battery.{way}_lifetime_wh", every) for way in ("discharge", "charge"))
    return f"diffSeries(sumSeries({counts_by_gateway}, {discharged}), {charged})"


def consumption_w() -> str:
    """Return what the house draws: as the gateway tells it, and what the battery gives or, negative, takes."""
    battery_w = f"keepLastValue({of_the_gateway('battery.power_w')}, {A_MINUTE})"
    # With 1 there is no sum where one of them is missing; a house without a battery has only one.
    return f"aggregate(group({of_the_gateway('consumption.power_w')}, {battery_w}), 'sum', 1)"


def until(series: str, ago: str) -> str:
    """Return a series without its newest slots, which are not over yet."""
    return f"timeSlice({series}, '00:00_20000101', '-{ago}')"


def so_far(series: str) -> str:
    """Return the sum from the beginning of the time shown."""
    return f"integral({series})"


def percent(part: str, whole: str) -> str:
    """Return one series as a percentage of another; nothing where the other is zero or missing."""
    return f"scale(divideSeries({part}, {whole}), 100)"


def of_the_median(series: str, at_least: float = 0) -> str:
    """Return each series as a percentage of the median of all, where that is not less than given."""
    median = f"aggregate({series}, 'median')"
    return f"asPercent({series}, {f'removeBelowValue({median}, {at_least:g})' if at_least else median})"
