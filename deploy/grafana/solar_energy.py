"""*Solar Energy*: production, consumption, grid and battery of a house."""

from deploy.grafana.dashboard import (
    BATTERY,
    BATTERY_POWER,
    CONSUMPTION,
    EXPORT,
    IMPORT,
    PRODUCTION,
    Dashboard,
    bars,
    bars_by_calendar,
    coloured,
    gauge,
    lines,
    stat,
)
from deploy.grafana.series import (
    HOUR,
    QUARTER_HOUR,
    alias,
    consumption_w,
    consumption_wh,
    cumulative,
    export_wh,
    gateway_metric,
    import_wh,
    percent,
    production_wh,
)

COLOURS = {
    "Production": PRODUCTION,
    "Consumption": CONSUMPTION,
    "Import": IMPORT,
    "Export": EXPORT,
    "Grid": IMPORT,
    "Battery": BATTERY,
    "Charge": BATTERY,
}
NO_BATTERY = "no battery"
DOWNWARD = {"custom__transform": "negative-Y"}


def _coloured(*names: str) -> list[dict[str, object]]:
    return [coloured(name, COLOURS[name]) for name in names]


def _by_quarter_hour(name: str) -> str:
    energy = {"Production": production_wh, "Consumption": consumption_wh, "Import": import_wh, "Export": export_wh}
    return alias(name, energy[name](QUARTER_HOUR))


PRODUCED, CONSUMED, IMPORTED, EXPORTED = (
    cumulative(energy(QUARTER_HOUR)) for energy in (production_wh, consumption_wh, import_wh, export_wh)
)

BY_HOUR = {"Production": production_wh(HOUR), "Consumption": consumption_wh(HOUR)}
GRID_BY_HOUR = {"Import": import_wh(HOUR), "Export": export_wh(HOUR)}

SOLAR_ENERGY = Dashboard(
    uid="solar-energy",
    title="Solar Energy",
    description="What the solar panels produce, what the house uses, and what it imports and exports.",
    panels=[
        stat(
            "Power now",
            "The newest values, at most a quarter of an hour old. Grid: import is positive, export negative. "
            "Battery: discharge is positive, charge negative.",
            [
                alias("Production", gateway_metric("production.power_w")),
                alias("Consumption", consumption_w()),
                alias("Grid", gateway_metric("grid.power_w")),
                alias("Battery", gateway_metric("battery.power_w")),
            ],
            "lastNotNull",
            width=12,
            height=5,
            time_from="15m",
            unit="watt",
            no_value="no value",
            overrides=_coloured("Production", "Consumption", "Grid", "Battery"),
        ),
        stat(
            "Energy today",
            "Since midnight, from the gateway's lifetime counters.",
            [_by_quarter_hour(name) for name in ("Production", "Consumption", "Import", "Export")],
            "sum",
            width=12,
            height=5,
            time_from="now/d",
            unit="watth",
            no_value="no value",
            overrides=_coloured("Production", "Consumption", "Import", "Export"),
        ),
        bars(
            "Production and consumption today, by quarter-hour",
            "Energy in each quarter-hour: production upward, consumption downward. "
            "Energy of a gap without readings is spread evenly over it.",
            [_by_quarter_hour("Production"), _by_quarter_hour("Consumption")],
            width=16,
            time_from="now/d",
            unit="watth",
            overrides=[coloured("Production", PRODUCTION), coloured("Consumption", CONSUMPTION, **DOWNWARD)],
        ),
        gauge(
            "Self-consumption and self-sufficiency today",
            "Self-consumption: the part of the production that the house used (production minus export). "
            "Self-sufficiency: the part of the consumption that was not imported (consumption minus import).",
            [
                alias("Self-consumption", percent(f"diffSeries({PRODUCED}, {EXPORTED})", PRODUCED)),
                alias("Self-sufficiency", percent(f"diffSeries({CONSUMED}, {IMPORTED})", CONSUMED)),
            ],
            "lastNotNull",
            width=8,
            time_from="now/d",
            no_value="no value",
            overrides=[coloured("Self-consumption", PRODUCTION), coloured("Self-sufficiency", CONSUMPTION)],
        ),
        bars(
            "Import and export today, by quarter-hour",
            "Energy in each quarter-hour: import upward, export downward.",
            [_by_quarter_hour("Import"), _by_quarter_hour("Export")],
            width=12,
            time_from="now/d",
            unit="watth",
            overrides=[coloured("Import", IMPORT), coloured("Export", EXPORT, **DOWNWARD)],
        ),
        lines(
            "Power",
            "Power as measured by the gateway. Grid: import is positive, export negative.",
            [
                alias("Production", gateway_metric("production.power_w")),
                alias("Consumption", consumption_w()),
                alias("Grid", gateway_metric("grid.power_w")),
            ],
            width=12,
            unit="watt",
            overrides=_coloured("Production", "Consumption", "Grid"),
        ),
        lines(
            "Battery",
            "State of charge, and power: discharge is positive, charge negative.",
            [
                alias("Charge", gateway_metric("battery.charge_percent")),
                alias("Power", gateway_metric("battery.power_w")),
            ],
            width=16,
            no_value=NO_BATTERY,
            overrides=[
                coloured("Charge", BATTERY, unit="percent", min=0, max=100),
                coloured("Power", BATTERY_POWER, unit="watt", custom__axisPlacement="right", custom__fillOpacity=0),
            ],
        ),
        stat(
            "Battery now",
            "The newest values, at most a quarter of an hour old.",
            [
                alias("Charge", gateway_metric("battery.charge_percent")),
                alias("Energy left", gateway_metric("battery.available_energy_wh")),
            ],
            "lastNotNull",
            width=8,
            time_from="15m",
            no_value=NO_BATTERY,
            overrides=[
                coloured("Charge", BATTERY, unit="percent", decimals=0),
                coloured("Energy left", BATTERY, unit="watth", decimals=1),
            ],
        ),
        bars_by_calendar(
            "The last 7 days",
            "Production and consumption of today and the six days before.",
            BY_HOUR,
            COLOURS,
            label="ddd D",
            width=12,
            time_from="6d/d",
        ),
        bars_by_calendar(
            "The last 30 days",
            "Production and consumption of today and the 29 days before.",
            BY_HOUR,
            COLOURS,
            label="D MMM",
            width=12,
            time_from="29d/d",
        ),
        bars_by_calendar(
            "The last 12 months",
            "Energies of this month and the eleven before. The first month of a new installation begins with its first "
            "reading.",
            BY_HOUR | GRID_BY_HOUR,
            COLOURS,
            label="MMM YYYY",
            width=24,
            time_from="11M/M",
        ),
    ],
)
