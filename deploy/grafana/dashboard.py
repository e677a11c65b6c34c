"""Grafana's dashboard JSON, as far as these dashboards need it; ``@grafana/schema`` 12 has all of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

DATA_SOURCE = {"type": "graphite", "uid": "graphite"}
SCHEMA_VERSION = 42
"""Grafana 12's, where it was frozen."""

PRODUCTION, CONSUMPTION, IMPORT, EXPORT = "dark-yellow", "blue", "purple", "green"
BATTERY, BATTERY_POWER = "light-blue", "dark-blue"
GOOD, NOTICE, BAD = "green", "orange", "red"


@dataclass
class Panel:
    """A panel, from left to right and from top to bottom on a grid 24 wide."""

    kind: str
    title: str
    description: str
    targets: Sequence[str]
    width: int
    height: int = 8
    time_from: str | None = None
    """What it shows instead of the dashboard's time, up to now."""
    max_points: int | None = None
    unit: str = "short"
    no_value: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    custom: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    transformations: Sequence[Json] = ()

    def json(self, number: int, x: int, y: int) -> Json:
        """Return it as Grafana reads it."""
        defaults: Json = {"unit": self.unit, **self.defaults}
        if self.no_value:
            defaults["noValue"] = self.no_value
        if self.custom:
            defaults["custom"] = dict(self.custom)
        panel: Json = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "datasource": DATA_SOURCE,
            "targets": [{"refId": chr(ord("A") + i), "target": target} for i, target in enumerate(self.targets)],
        }
        if self.time_from:
            panel |= {"timeFrom": self.time_from, "hideTimeOverride": True}
        if self.max_points:
            panel["maxDataPoints"] = self.max_points
        if self.transformations:
            panel["transformations"] = list(self.transformations)
        panel["fieldConfig"] = {"defaults": defaults, "overrides": list(self.overrides)}
        panel["options"] = dict(self.options)
        return panel


@dataclass
class Dashboard:
    """A dashboard and how it is called in an address."""

    uid: str
    title: str
    description: str
    panels: Sequence[Panel]
    time_from: str = "now/d"
    refresh: str = "1m"

    def text(self) -> str:
        """Return the file that Grafana is given."""
        return json.dumps(self._json(), indent=2, ensure_ascii=False) + "\n"

    def _json(self) -> Json:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["enphase"],
            "schemaVersion": SCHEMA_VERSION,
            "timezone": "browser",
            "time": {"from": self.time_from, "to": "now"},
            "refresh": self.refresh,
            "graphTooltip": 1,
            "links": [
                {
                    "type": "dashboards",
                    "title": "Enphase",
                    "tags": ["enphase"],
                    "icon": "external link",
                    "tooltip": "",
                    "asDropdown": False,
                    "includeVars": True,
                    "keepTime": False,
                    "targetBlank": False,
                }
            ],
            "templating": {"list": [_PREFIX, _SERIAL]},
            "panels": _placed(self.panels),
        }


_PREFIX = {
    "name": "prefix",
    "label": "CARBON_PREFIX",
    "type": "textbox",
    "hide": 2,
    "query": "enphase",
    "current": {"text": "enphase", "value": "enphase"},
}
_SERIAL = {
    "name": "serial",
    "label": "Gateway",
    "type": "query",
    "datasource": DATA_SOURCE,
    "query": "$prefix.*",
    "regex": "/^(?!services$).*$/",
    "refresh": 2,
    "sort": 1,
    "includeAll": False,
    "multi": False,
}


def _placed(panels: Sequence[Panel]) -> list[Json]:
    """Place panels in lines: those of one line are equally high and 24 wide together."""
    placed = []
    x = y = 0
    for number, panel in enumerate(panels, 1):
        placed.append(panel.json(number, x, y))
        x += panel.width
        if x == 24:  # noqa: PLR2004 - the width of Grafana's grid
            x, y = 0, y + panel.height
    return placed


def override(name: str, **properties: Any) -> Json:
    """Return what is different for the series of a name; in a property's name ``__`` stands for a dot."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": each.replace("__", "."), "value": value} for each, value in properties.items()],
    }


def coloured(name: str, colour: str, **properties: Any) -> Json:
    """Return the colour of the series of a name, and whatever else is different for it."""
    return override(name, color=fixed(colour), **properties)


def fixed(colour: str) -> Json:
    """Return one colour for everything."""
    return {"mode": "fixed", "fixedColor": colour}


def thresholds(lowest: str, *steps: tuple[float, str]) -> Json:
    """Return colours by value: the lowest, and from each step on another."""
    colours = [{"value": None, "color": lowest}, *({"value": value, "color": colour} for value, colour in steps)]
    return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": colours}}


LEGEND_BELOW = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}}
NO_LEGEND = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []}}
TOOLTIP_OF_ALL = {"tooltip": {"mode": "multi", "sort": "none"}}

LINES = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": 600_000}
"""Lines that bridge up to ten minutes without a value."""
BARS = {"drawStyle": "bars", "fillOpacity": 80, "lineWidth": 0, "barAlignment": 1, "axisCenteredZero": False}
"""A bar from its time on."""


def lines(title: str, description: str, targets: Sequence[str], **more: Any) -> Panel:
    """Return a panel of lines over time."""
    custom = {**LINES, **more.pop("custom", {})}
    options = {**LEGEND_BELOW, **TOOLTIP_OF_ALL}
    return Panel("timeseries", title, description, targets, custom=custom, options=options, **more)


def bars(title: str, description: str, targets: Sequence[str], **more: Any) -> Panel:
    """Return a panel of bars over time."""
    custom = {**BARS, **more.pop("custom", {})}
    options = {**LEGEND_BELOW, **TOOLTIP_OF_ALL}
    return Panel("timeseries", title, description, targets, custom=custom, options=options, **more)


def stat(title: str, description: str, targets: Sequence[str], calculation: str, **more: Any) -> Panel:
    """Return a panel of numbers: each series' last value, or its sum."""
    options = {
        "reduceOptions": {"calcs": [calculation], "values": False, "fields": ""},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "value_and_name" if len(targets) > 1 else "value",
        "justifyMode": "auto",
    }
    return Panel("stat", title, description, targets, options=options, **more)


def gauge(title: str, description: str, targets: Sequence[str], calculation: str, **more: Any) -> Panel:
    """Return a panel of dials from 0 to 100 percent."""
    options = {"reduceOptions": {"calcs": [calculation], "values": False, "fields": ""}, "showThresholdMarkers": False}
    defaults = {"min": 0, "max": 100, "decimals": 0, **more.pop("defaults", {})}
    return Panel("gauge", title, description, targets, unit="percent", defaults=defaults, options=options, **more)


def ranking(title: str, description: str, target: str, calculation: str, **more: Any) -> Panel:
    """Return a panel with a bar for each of many series, in the order in which they come."""
    options = {
        "reduceOptions": {"calcs": [calculation], "values": False, "fields": ""},
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "showUnfilled": True,
        "minVizHeight": 12,
        "sizing": "auto",
    }
    defaults = {"min": 0, **more.pop("defaults", {})}
    return Panel("bargauge", title, description, [target], defaults=defaults, options=options, **more)


def history(title: str, description: str, target: str, **more: Any) -> Panel:
    """Return a panel with a line of coloured cells for each of many series."""
    options = {"showValue": "never", "rowHeight": 0.9, **NO_LEGEND, "tooltip": {"mode": "single", "sort": "none"}}
    return Panel("status-history", title, description, [target], options=options, **more)


def by_calendar(
    title: str,
    description: str,
    series: Mapping[str, str],
    colours: Mapping[str, str],
    *,
    label: str,
    **more: Any,
) -> Panel:
    """Return a panel of bars, one group for each day or month as the browser's time zone has them.

    Args:
        title: of the panel.
        description: of the panel.
        series: hourly energies by name, summed by Grafana: Graphite knows neither months nor days of 23 hours.
        colours: of the series by name.
        label: how times are written under the groups (moment.js); hours with the same label are summed.
        more: fields of the panel.
    """
    summed = {name: {"operation": "aggregate", "aggregations": ["sum"]} for name in series}
    return Panel(
        "barchart",
        title,
        description,
        [f"alias({target}, '{name}')" for name, target in series.items()],
        unit="watth",
        max_points=10_000,  # every hour of a year
        defaults={"decimals": 1},
        custom={"fillOpacity": 80, "lineWidth": 0},
        overrides=[coloured(name, colours[name]) for name in series],
        options={
            "xField": "Time",
            "orientation": "auto",
            "stacking": "none",
            "showValue": "never",
            "groupWidth": 0.8,
            "barWidth": 0.95,
            **LEGEND_BELOW,
            **TOOLTIP_OF_ALL,
        },
        transformations=[
            {"id": "joinByField", "options": {"byField": "Time", "mode": "outer"}},
            {"id": "formatTime", "options": {"timeField": "Time", "outputFormat": label, "useTimezone": True}},
            {
                "id": "groupBy",
                "options": {"fields": {"Time": {"operation": "groupby", "aggregations": []}, **summed}},
            },
            {"id": "renameByRegex", "options": {"regex": "(.*) \\(sum\\)", "renamePattern": "$1"}},
        ],
        **more,
    )
