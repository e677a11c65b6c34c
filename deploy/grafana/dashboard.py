"""Grafana's dashboard JSON, as far as these dashboards use it; ``@grafana/schema`` 12 defines all of it.

Grafana's own builder, grafana-foundation-sdk, was tried (version 0.0.21) and is not used. With it this module had 311
lines instead of 283: it has a method for each field, but no Graphite query and no common type of its panels. The JSON
grew from 63,885 to 69,375 bytes by 32 defaults that it writes, one of which moves the links between the dashboards into
a menu. The package takes 11 MB, its builder for this format is deprecated in favour of one for another format, and the
highest version on PyPI is that for Grafana 10.1. It would check names and types, which the tests check against
``@grafana/schema``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

DATA_SOURCE = {"type": "graphite", "uid": "graphite"}
SCHEMA_VERSION = 42
"""The last version of this format, which Grafana 12 reads."""
GRID_WIDTH = 24

PRODUCTION, CONSUMPTION, IMPORT, EXPORT = "dark-yellow", "blue", "purple", "green"
BATTERY, BATTERY_POWER = "light-blue", "dark-blue"
GOOD, WARNING, BAD = "green", "orange", "red"


@dataclass
class Panel:
    """A panel; its place follows from the panels before it."""

    kind: str
    title: str
    description: str
    targets: Sequence[str]
    width: int
    height: int = 8
    time_from: str | None = None
    """The time range up to now, if it is not the dashboard's."""
    max_points: int | None = None
    unit: str = "short"
    no_value: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    custom: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    transformations: Sequence[Json] = ()

    def to_json(self, number: int, x: int, y: int) -> Json:
        """Return Grafana's JSON of the panel at a place on the grid."""
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
    """A dashboard; its ``uid`` is part of its address."""

    uid: str
    title: str
    description: str
    panels: Sequence[Panel]
    time_from: str = "now/d"
    refresh: str = "1m"

    def text(self) -> str:
        """Return the content of the file that Grafana provisions."""
        return json.dumps(self._to_json(), indent=2, ensure_ascii=False) + "\n"

    def _to_json(self) -> Json:
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
    """Place panels in rows: those of a row have the same height and fill the grid's width."""
    placed = []
    x = y = 0
    for number, panel in enumerate(panels, 1):
        placed.append(panel.to_json(number, x, y))
        x += panel.width
        if x == GRID_WIDTH:
            x, y = 0, y + panel.height
    return placed


def override(name: str, **properties: Any) -> Json:
    """Return the properties of the series with this name; ``__`` in a property's name is a dot."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": each.replace("__", "."), "value": value} for each, value in properties.items()],
    }


def coloured(name: str, colour: str, **properties: Any) -> Json:
    """Return the colour and other properties of the series with this name."""
    return override(name, color=fixed_colour(colour), **properties)


def fixed_colour(colour: str) -> Json:
    """Return a colour that does not depend on the value."""
    return {"mode": "fixed", "fixedColor": colour}


def thresholds(lowest: str, *steps: tuple[float, str]) -> Json:
    """Return colours by value: the lowest values' colour, and each threshold with the colour from there on."""
    colours = [{"value": None, "color": lowest}, *({"value": value, "color": colour} for value, colour in steps)]
    return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": colours}}


LEGEND_BELOW = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}}
NO_LEGEND = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []}}
TOOLTIP_OF_ALL = {"tooltip": {"mode": "multi", "sort": "none"}}

LINES = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": 600_000}
"""Lines that connect values up to ten minutes apart."""
BARS = {"drawStyle": "bars", "fillOpacity": 80, "lineWidth": 0, "barAlignment": 1, "axisCenteredZero": False}
"""Bars that begin at the time of their value."""


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
    """Return a panel of one number for each series: its last value, or its sum."""
    options = {
        "reduceOptions": {"calcs": [calculation], "values": False, "fields": ""},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "value_and_name" if len(targets) > 1 else "value",
        "justifyMode": "auto",
    }
    return Panel("stat", title, description, targets, options=options, **more)


def gauge(title: str, description: str, targets: Sequence[str], calculation: str, **more: Any) -> Panel:
    """Return a panel of gauges from 0 to 100 percent."""
    options = {"reduceOptions": {"calcs": [calculation], "values": False, "fields": ""}, "showThresholdMarkers": False}
    defaults = {"min": 0, "max": 100, "decimals": 0, **more.pop("defaults", {})}
    return Panel("gauge", title, description, targets, unit="percent", defaults=defaults, options=options, **more)


def bar_gauge(title: str, description: str, target: str, calculation: str, **more: Any) -> Panel:
    """Return a panel with a horizontal bar for each series, in the order in which Graphite returns them."""
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


def status_history(title: str, description: str, target: str, **more: Any) -> Panel:
    """Return a panel with a row of coloured cells for each series."""
    options = {"showValue": "never", "rowHeight": 0.9, **NO_LEGEND, "tooltip": {"mode": "single", "sort": "none"}}
    custom = {"fillOpacity": 80, "lineWidth": 0}
    return Panel("status-history", title, description, [target], custom=custom, options=options, **more)


def bars_by_calendar(
    title: str,
    description: str,
    series: Mapping[str, str],
    colours: Mapping[str, str],
    *,
    label: str,
    **more: Any,
) -> Panel:
    """Return a panel with a group of bars for each day or month of the browser's time zone.

    Args:
        title: of the panel.
        description: of the panel.
        series: hourly energies by name. Grafana sums them, as Graphite has neither months nor days of 23 hours.
        colours: of the series, by name.
        label: the format of the groups' labels (moment.js); hours with the same label are summed.
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
