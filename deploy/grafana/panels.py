"""*Panels*: every inverter compared with the others."""

from deploy.grafana.dashboard import (
    BAD,
    GOOD,
    PRODUCTION,
    WARNING,
    Dashboard,
    bar_gauge,
    fixed_colour,
    status_history,
    thresholds,
)
from deploy.grafana.series import DAY, HOUR, QUARTER_HOUR, cumulative, gateway_metric, increase, percent_of_median

SERIAL_NODE = -2
"""Position in a path from its end: ``….inverter.<serial>.power_w``."""

POWER_W = gateway_metric("inverter.*.power_w")
COUNTER_WH = gateway_metric("inverter.*.energy_lifetime_wh")

MIN_MEDIAN_W = 20
"""In less light, inverters start and stop at different times, and a comparison means nothing."""

BY_PERCENT_OF_MEDIAN = thresholds(BAD, (60, WARNING), (85, GOOD))


def _by_serial(series: str) -> str:
    return f"aliasByNode({series}, {SERIAL_NODE})"


MEAN_W = f"summarize({POWER_W}, '{QUARTER_HOUR}', 'avg')"
TODAY_WH = f"scale(transformNull({MEAN_W}, 0), 0.25)"
DAILY_MEAN_W = f"summarize(transformNull({POWER_W}, 0), '{DAY}', 'avg', true)"

PANELS = Dashboard(
    uid="panels",
    title="Panels",
    description="Every inverter compared with the others: one that fails or is shaded has the lowest values.",
    panels=[
        bar_gauge(
            "Power now, by inverter",
            "The newest power of each inverter, at most twenty minutes old. Inverters report every five minutes, and "
            "not at night.",
            _by_serial(f"sortBy({POWER_W}, 'last', true)"),
            "lastNotNull",
            width=12,
            height=10,
            time_from="20m",
            unit="watt",
            no_value="no inverter reports at night",
            defaults={"color": fixed_colour(PRODUCTION)},
        ),
        bar_gauge(
            "Today, compared with the median",
            "What each inverter has produced today, as a percentage of the median. From 60 to 85 is orange, below 60 "
            "red. Computed from powers, because not every firmware reports energies. 0: no report today.",
            _by_serial(f"sortBy({percent_of_median(cumulative(TODAY_WH))}, 'last', true)"),
            "lastNotNull",
            width=12,
            height=10,
            time_from="now/d",
            unit="percent",
            no_value="no reports today yet",
            defaults={"decimals": 0, **BY_PERCENT_OF_MEDIAN},
        ),
        status_history(
            "Today by quarter-hour, compared with the median",
            "Mean power of each inverter as a percentage of the median. A shadow recurs at the same time of day, a "
            f"fault persists. Empty: no report, or a median below {MIN_MEDIAN_W} W.",
            _by_serial(percent_of_median(MEAN_W, MIN_MEDIAN_W)),
            width=24,
            height=10,
            time_from="now/d",
            unit="percent",
            defaults={"decimals": 0, **BY_PERCENT_OF_MEDIAN},
        ),
        bar_gauge(
            "Energy today, from reported power",
            "Mean power of each quarter-hour times its length, summed. An estimate, but available with every firmware.",
            _by_serial(f"sortBy({TODAY_WH}, 'sum', true)"),
            "sum",
            width=12,
            height=10,
            time_from="now/d",
            unit="watth",
            defaults={"decimals": 0, "color": fixed_colour(PRODUCTION)},
        ),
        bar_gauge(
            "Energy today, from the inverters' counters",
            "The increase of each inverter's lifetime counter. Only some firmware versions report these counters.",
            _by_serial(f"sortBy(summarize({increase(COUNTER_WH)}, '{HOUR}', 'sum'), 'sum', true)"),
            "sum",
            width=12,
            height=10,
            time_from="now/d",
            unit="watth",
            no_value="not reported by this gateway's firmware",
            defaults={"decimals": 0, "color": fixed_colour(PRODUCTION)},
        ),
        status_history(
            "The last 90 days, compared with the median",
            "Mean power of each inverter and day as a percentage of the median: it shows dirt, ageing, a growing tree. "
            "An inverter that was removed stays until its folder is deleted from Graphite's files.",
            _by_serial(percent_of_median(DAILY_MEAN_W)),
            width=24,
            height=10,
            # For a time range that begins earlier, Graphite reads the fewer points of the quarter-hours' archive.
            time_from="90d/d",
            unit="percent",
            defaults={"decimals": 0, **BY_PERCENT_OF_MEDIAN},
        ),
    ],
)
