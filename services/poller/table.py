"""The readings of one poll as a table: ``poller --once --pretty``."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table

from services.poller.clock import describe_offset
from shared.messages import GatewayInfo
from shared.readings import (
    Batteries,
    Battery,
    Consumption,
    Energy,
    Grid,
    Inverter,
    MeterPhase,
    MeterValues,
    Production,
    Reading,
)

UNKNOWN = "-"


def print_table(info: GatewayInfo, readings: Sequence[Reading], console: Console) -> None:
    """Print the readings of a gateway."""
    sources = ", ".join(source.replace("=", " by the ") for source in info.sources)
    console.print(f"Gateway {info.serial}, firmware {info.firmware}; {sources}", style="bold")
    if info.clock_offset_s is not None:
        console.print(f"Its clock is {describe_offset(info.clock_offset_s)}.", style="yellow")
    for table in (_house(readings), _meters(readings), _inverters(readings)):
        if table.row_count:
            console.print(table)


def _house(readings: Sequence[Reading]) -> Table:
    moments = [reading.timestamp for reading in readings if not isinstance(reading, Inverter)]
    title = f"House at {local_time(max(moments))}" if moments else "House"
    table = Table("", "now", "lifetime or day", "", title=title, title_justify="left")
    for column in table.columns[1:3]:
        column.justify = "right"
    for reading in readings:
        for row in _rows(reading):
            table.add_row(*row)
    return table


def _rows(reading: Reading) -> list[tuple[str, ...]]:
    match reading:
        case Production():
            lifetime = watt_hours(reading.energy_lifetime_wh)
            return [("production", watts(reading.power_w), lifetime, f"by the {reading.source}")]
        case Consumption():
            return [("consumption", watts(reading.power_w), watt_hours(reading.energy_lifetime_wh))]
        case Grid():
            return [
                ("import", watts(reading.import_power_w), watt_hours(reading.import_lifetime_wh)),
                ("export", watts(reading.export_power_w), watt_hours(reading.export_lifetime_wh)),
            ]
        case Batteries() | Battery():
            name = f"  {reading.serial}" if isinstance(reading, Battery) else "batteries"
            stored = (
                f"{percent(reading.charge_percent)} of {watt_hours(reading.capacity_wh)}{direction(reading.power_w)}"
            )
            return [(name, watts(None if reading.power_w is None else abs(reading.power_w)), "", stored)]
        case Energy():
            days = {"produced today": reading.production_today_wh, "consumed today": reading.consumption_today_wh}
            return [(name, "", watt_hours(today_wh)) for name, today_wh in days.items() if today_wh is not None]
    return []


def _meters(readings: Sequence[Reading]) -> Table:
    table = Table("meter", "power", "voltage", "current", "factor", "frequency", title="Meters", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for reading in readings:
        if isinstance(reading, MeterValues):
            name = reading.kind.removeprefix("meter/")
            table.add_row(
                f"  phase {reading.phase}" if isinstance(reading, MeterPhase) else name,
                watts(reading.active_power_w),
                number(reading.voltage_v, "V"),
                number(reading.current_a, "A"),
                number(reading.power_factor, "", 2),
                number(reading.frequency_hz, "Hz", 2),
            )
    return table


def _inverters(readings: Sequence[Reading]) -> Table:
    inverters = sorted((each for each in readings if isinstance(each, Inverter)), key=lambda each: each.serial)
    columns = {
        "inverter": [each.serial for each in inverters],
        "power": [watts(each.power_w) for each in inverters],
        "maximum": [watts(each.max_power_w) for each in inverters],
        "panel": [number(each.dc_voltage_v, "V") for each in inverters],
        "temperature": [number(each.temperature_c, "°C", 0) for each in inverters],
        "lifetime": [watt_hours(each.energy_lifetime_wh) for each in inverters],
        "reported": [local_time(each.timestamp) for each in inverters],
    }
    # Most firmware reports only some of these.
    shown = {name: cells for name, cells in columns.items() if set(cells) != {UNKNOWN}}
    table = Table(*shown, title="Inverters", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in zip(*shown.values(), strict=True):
        table.add_row(*row)
    return table


def local_time(timestamp: int) -> str:
    """Return a time in the local time zone."""
    return f"{datetime.fromtimestamp(timestamp).astimezone():%Y-%m-%d %H:%M}"


def direction(power_w: float | None) -> str:
    """Return whether a battery is charging or discharging."""
    return f", {'dis' if power_w > 0 else ''}charging" if power_w else ""


def watts(power_w: float | None) -> str:
    """Return a power with its unit."""
    if power_w is None:
        return UNKNOWN
    return f"{power_w / 1000:.2f} kW" if abs(power_w) >= 1000 else f"{round(power_w)} W"  # noqa: PLR2004 - a kilo


def watt_hours(energy_wh: float | None) -> str:
    """Return an energy with its unit."""
    if energy_wh is None:
        return UNKNOWN
    return f"{energy_wh / 1e6:.2f} MWh" if abs(energy_wh) >= 1e6 else f"{energy_wh / 1000:.1f} kWh"  # noqa: PLR2004


def percent(share: float | None) -> str:
    """Return a percentage."""
    return UNKNOWN if share is None else f"{share:.0f} %"


def number(value: float | None, unit: str, decimals: int = 1) -> str:
    """Return a number with its unit."""
    return UNKNOWN if value is None else f"{value:.{decimals}f} {unit}".rstrip()
