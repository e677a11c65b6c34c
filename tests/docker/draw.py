"""Render every panel's targets with Graphite: ``python -m tests.docker.draw FOLDER``.

The pictures show what the targets return; Grafana draws them differently.
"""

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.grafana.dashboard import BATTERY, BATTERY_POWER, CONSUMPTION, EXPORT, IMPORT, PRODUCTION
from tests.docker.dashboards import QUERIES, Graphite, running
from tests.docker.simulated_days import INTERRUPTED, UNINTERRUPTED

COLOURS = {
    PRODUCTION: "E0B400",
    CONSUMPTION: "5794F2",
    IMPORT: "B877D9",
    EXPORT: "56A64B",
    BATTERY: "8AB8FF",
    BATTERY_POWER: "1F60C4",
    "red": "F2495C",
}
OTHER_COLOURS = ("E0B400", "5794F2", "56A64B", "B877D9", "FF9830", "F2495C", "8AB8FF", "705DA0")
STYLE = {
    "format": "png",
    "width": "640",
    "height": "260",
    "bgcolor": "white",
    "fgcolor": "black",
    "majorGridLineColor": "DDDDDD",
    "minorGridLineColor": "F2F2F2",
    "fontName": "DejaVu Sans",
    "fontSize": "9",
    "margin": "12",
}
UNITS = {"watth": "Wh", "watt": "W", "percent": "%", "s": "s", "m": "min"}
BARS = {"lineMode": "staircase", "areaMode": "all", "areaAlpha": "0.7"}
FIRST_FILLED = {**BARS, "areaMode": "first", "yMin": "0"}
STACKED = {**BARS, "areaMode": "stacked"}


def drawing(panel: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Return targets and parameters for a picture similar to Grafana's."""
    overrides = {
        each["matcher"]["options"]: {prop["id"]: prop["value"] for prop in each["properties"]}
        for each in panel["fieldConfig"]["overrides"]
    }
    targets: list[str] = []
    names: list[str] = []
    colours: list[str] = []
    for target in (each["target"] for each in panel["targets"]):
        name = target.rsplit("'", 2)[-2] if target.startswith("alias(") else ""
        properties = overrides.get(name, {})
        if panel["type"] == "barchart":
            interval = "7d" if "months" in panel["title"] else "1d"
            target = f"summarize({target}, '{interval}', 'sum', true)"  # noqa: PLW2901 - wrapped step by step
        if properties.get("custom.transform") == "negative-Y":
            target = f"scale({target}, -1)"  # noqa: PLW2901
        if properties.get("custom.axisPlacement") == "right":
            target = f"secondYAxis({target})"  # noqa: PLW2901
        if name:
            target = f"alias({target}, '{name}')"  # noqa: PLW2901
            colours.append(
                COLOURS[properties["color"]["fixedColor"]] if "color" in properties else OTHER_COLOURS[len(colours)]
            )
        names.append(name)
        targets.append(target)
    units = dict.fromkeys(
        UNITS.get(overrides.get(name, {}).get("unit", panel["fieldConfig"]["defaults"]["unit"]), "") for name in names
    )
    title = f"{panel['title']} [{', '.join(units)}]" if any(units) else panel["title"]
    return targets, {**STYLE, **_style(panel), "title": title, "colorList": ",".join(colours or OTHER_COLOURS)}


def _style(panel: Mapping[str, Any]) -> Mapping[str, str]:
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    if panel["type"] == "barchart":
        return FIRST_FILLED
    if "stacking" in custom:
        return STACKED
    return BARS if custom.get("drawStyle") == "bars" else {"lineMode": "connected"}


def picture_name(dashboard: str, title: str) -> str:
    """Return the file name of a panel's picture."""
    return f"{dashboard}-{'-'.join(re.findall(r'[a-z0-9]+', title.lower()))}.png"


def draw(graphite: Graphite, folder: Path) -> None:
    """Write a picture of each panel."""
    panels = {(query.dashboard["uid"], query.panel["title"]): query for query in QUERIES}
    for (dashboard, title), query in panels.items():
        targets, style = drawing(query.panel)
        serial = INTERRUPTED if dashboard == "pipeline" else UNINTERRUPTED
        picture = graphite.render(query, serial, targets, **style)
        file = folder / picture_name(dashboard, title)
        file.write_bytes(picture.content)
        print(f"{file}: {title}")  # noqa: T201


def main() -> None:
    """Write the pictures to the folder of the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as state, running(Path(state), timezone=None) as graphite:
        draw(graphite, folder)


if __name__ == "__main__":
    main()
