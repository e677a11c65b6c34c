"""*Panels*: every inverter against its neighbours."""

from deploy.grafana.dashboard import BAD, GOOD, NOTICE, PRODUCTION, Dashboard, fixed, history, ranking, thresholds
from deploy.grafana.series import DAY, HOUR, QUARTER_HOUR, counted, of_the_gateway, of_the_median, so_far

SERIAL_NUMBER = -2
"""Counted from the end of the path: ``….inverter.<serial>.power_w``."""

POWER_W = of_the_gateway("inverter.*.power_w")
COUNTER_WH = of_the_gateway("inverter.*.energy_lifetime_wh")

WORTH_COMPARING_W = 20
"""With less light than this makes of a panel, inverters start and stop at different moments."""

AGAINST_THE_MEDIAN = thresholds(BAD, (60, NOTICE), (85, GOOD))


def _by_serial_number(series: str) -> str:
    return f"aliasByNode({series}, {SERIAL_NUMBER})"


MEAN_W = f"summarize({POWER_W}, '{QUARTER_HOUR}', 'avg')"
TODAY_WH = f"scale(transformNull({MEAN_W}, 0), 0.25)"
DAY_W = f"summarize(transformNull({POWER_W}, 0), '{DAY}', 'avg', true)"

PANELS = Dashboard(
    uid="panels",
    title="Panels",
    description="Every inverter against its neighbours: one that fails or is shaded stands out.",
    panels=[
        ranking(
            "Now",
            "The newest power of each inverter, at most twenty minutes old: they report every five minutes, and not "
            "at night.",
            _by_serial_number(f"sortBy({POWER_W}, 'last', true)"),
            "lastNotNull",
            width=12,
            height=10,
            time_from="20m",
            unit="watt",
            no_value="nothing is reported at night",
            defaults={"color": fixed(PRODUCTION)},
        ),
        ranking(
            "Today against the median",
            "What each inverter has made today, as a percentage of the one in the middle: 60 to 85 is orange, below is "
            "red. From the powers reported, as not every firmware tells energies. One that reported nothing shows 0.",
            _by_serial_number(f"sortBy({of_the_median(so_far(TODAY_WH))}, 'last', true)"),
            "lastNotNull",
            width=12,
            height=10,
            time_from="now/d",
            unit="percent",
            no_value="nothing was reported yet today",
            defaults={"decimals": 0, **AGAINST_THE_MEDIAN},
        ),
        history(
            "Today by quarter-hour, against the median",
            "Each inverter's mean power as a percentage of the one in the middle. A shadow comes back at its hour, a "
            "fault stays. Empty: it reported nothing, or the one in the middle made less than "
            f"{WORTH_COMPARING_W} W.",
            _by_serial_number(of_the_median(MEAN_W, WORTH_COMPARING_W)),
            width=24,
            height=10,
            time_from="now/d",
            unit="percent",
            defaults={"decimals": 0, **AGAINST_THE_MEDIAN},
            custom={"fillOpacity": 80, "lineWidth": 0},
        ),
        ranking(
            "Today's energy, from reported power",
            "The mean power of each quarter-hour times its length, added up: close, but no count. Every firmware tells "
            "it.",
            _by_serial_number(f"sortBy({TODAY_WH}, 'sum', true)"),
            "sum",
            width=12,
            height=10,
            time_from="now/d",
            unit="watth",
            defaults={"decimals": 0, "color": fixed(PRODUCTION)},
        ),
        ranking(
            "Today's energy, by the inverters' own counters",
            "What each inverter's lifetime counter gained. Only some firmware tells these counters.",
            _by_serial_number(f"sortBy(summarize({counted(COUNTER_WH)}, '{HOUR}', 'sum'), 'sum', true)"),
            "sum",
            width=12,
            height=10,
            time_from="now/d",
            unit="watth",
            no_value="this gateway's firmware does not tell",
            defaults={"decimals": 0, "color": fixed(PRODUCTION)},
        ),
        history(
            "The last 90 days by day, against the median",
            "Each inverter's mean power of the day as a percentage of the one in the middle: a slow decline, dirt, a "
            "tree that grows. An inverter that was taken down stays until its folder is removed from Graphite's files.",
            _by_serial_number(of_the_median(DAY_W)),
            width=24,
            height=10,
            # From before the last 90 days Graphite reads its quarter-hours, which are fewer than the minutes.
            time_from="90d/d",
            unit="percent",
            defaults={"decimals": 0, **AGAINST_THE_MEDIAN},
            custom={"fillOpacity": 80, "lineWidth": 0},
        ),
    ],
)
