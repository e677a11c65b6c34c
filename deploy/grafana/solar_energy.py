"""*Solar Energy*: what the owner of a house wants to know."""

from deploy.grafana.dashboard import (
    BATTERY,
    BATTERY_POWER,
    CONSUMPTION,
    EXPORT,
    IMPORT,
    PRODUCTION,
    Dashboard,
    bars,
    by_calendar,
    coloured,
    gauge,
    lines,
    stat,
)
from deploy.grafana.series import (
    HOUR,
    QUARTER_HOUR,
    consumed_wh,
    consumption_w,
    exported_wh,
    imported_wh,
    named,
    of_the_gateway,
    percent,
    produced_wh,
    so_far,
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
NO_BATTERY = "no battery is measured"
DOWNWARD = {"custom__transform": "negative-Y"}


def _coloured(*names: str) -> list[dict[str, object]]:
    return [coloured(name, COLOURS[name]) for name in names]


def _today(name: str) -> str:
    energy = {"Production": produced_wh, "Consumption": consumed_wh, "Import": imported_wh, "Export": exported_wh}
    return named(name, energy[name](QUARTER_HOUR))


PRODUCED, CONSUMED, IMPORTED, EXPORTED = (
    so_far(energy(QUARTER_HOUR)) for energy in (produced_wh, consumed_wh, imported_wh, exported_wh)
)

BY_HOUR = {"Production": produced_wh(HOUR), "Consumption": consumed_wh(HOUR)}
WITH_THE_GRID = {**BY_HOUR, "Import": imported_wh(HOUR), "Export": exported_wh(HOUR)}

SOLAR_ENERGY = Dashboard(
    uid="solar-energy",
    title="Solar Energy",
    description="What the roof makes, what the house uses, and what goes over the grid.",
    panels=[
        stat(
            "Power now",
            "The newest values, at most a quarter of an hour old. Grid: positive is import, negative export. "
            "Battery: positive is discharge, negative charge.",
            [
                named("Production", of_the_gateway("production.power_w")),
                named("Consumption", consumption_w()),
                named("Grid", of_the_gateway("grid.power_w")),
                named("Battery", of_the_gateway("battery.power_w")),
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
            [_today(name) for name in ("Production", "Consumption", "Import", "Export")],
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
            "What was counted while nothing was read is spread evenly over that time.",
            [_today("Production"), _today("Consumption")],
            width=16,
            time_from="now/d",
            unit="watth",
            overrides=[coloured("Production", PRODUCTION), coloured("Consumption", CONSUMPTION, **DOWNWARD)],
        ),
        gauge(
            "Own use today",
            "Self-consumption: how much of the production was used in the house (production less export). "
            "Self-sufficiency: how much of the consumption did not come from the grid (consumption less import).",
            [
                named("Self-consumption", percent(f"diffSeries({PRODUCED}, {EXPORTED})", PRODUCED)),
                named("Self-sufficiency", percent(f"diffSeries({CONSUMED}, {IMPORTED})", CONSUMED)),
            ],
            "lastNotNull",
            width=8,
            time_from="now/d",
            no_value="no value",
            overrides=[coloured("Self-consumption", PRODUCTION), coloured("Self-sufficiency", CONSUMPTION)],
        ),
        bars(
            "Grid today, by quarter-hour",
            "Energy in each quarter-hour: import upward, export downward.",
            [_today("Import"), _today("Export")],
            width=12,
            time_from="now/d",
            unit="watth",
            overrides=[coloured("Import", IMPORT), coloured("Export", EXPORT, **DOWNWARD)],
        ),
        lines(
            "Power",
            "As the gateway measures it. Grid: above zero is import, below export.",
            [
                named("Production", of_the_gateway("production.power_w")),
                named("Consumption", consumption_w()),
                named("Grid", of_the_gateway("grid.power_w")),
            ],
            width=12,
            unit="watt",
            overrides=_coloured("Production", "Consumption", "Grid"),
        ),
        lines(
            "Battery",
            "How full it is, and its power: above zero it discharges, below it charges.",
            [
                named("Charge", of_the_gateway("battery.charge_percent")),
                named("Power", of_the_gateway("battery.power_w")),
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
                named("Charge", of_the_gateway("battery.charge_percent")),
                named("Energy left", of_the_gateway("battery.available_energy_wh")),
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
        by_calendar(
            "This week, day by day",
            "Today and the six days before: what the roof made against what the house used.",
            BY_HOUR,
            COLOURS,
            label="ddd D",
            width=12,
            time_from="6d/d",
        ),
        by_calendar(
            "The last 30 days",
            "Today and the 29 days before: what the roof made against what the house used.",
            BY_HOUR,
            COLOURS,
            label="D MMM",
            width=12,
            time_from="29d/d",
        ),
        by_calendar(
            "The year, month by month",
            "This month and the eleven before. The first of a new installation begins with its first reading.",
            WITH_THE_GRID,
            COLOURS,
            label="MMM YYYY",
            width=24,
            time_from="11M/M",
        ),
    ],
)
