"""Draw every panel's targets with Graphite's own renderer: ``python -m tests.docker.draw FOLDER``.

Grafana draws them otherwise: these pictures show what the targets return, for a person to look at.
"""

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.grafana.dashboard import BATTERY, BATTERY_POWER, CONSUMPTION, EXPORT, IMPORT, PRODUCTION
from tests.docker.dashboards import QUERIES, Graphite, running
from tests.docker.simulated_days import TROUBLED, WHOLE

COLOURS = {
    PRODUCTION: "E0B400",
    CONSUMPTION: "5794F2",
    IMPORT: "B877D9",
    EXPORT: "56A64B",
    BATTERY: "8AB8FF",
    BATTERY_POWER: "1F60C4",
    "red": "F2495C",
}
SOME = ("E0B400", "5794F2", "56A64B", "B877D9", "FF9830", "F2495C", "8AB8FF", "705DA0")
LOOK = {
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
    """Return targets and parameters that draw a panel much like Grafana does."""
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
            every = "7d" if "year" in panel["title"] else "1d"
            target = f"summarize({target}, '{every}', 'sum', true)"  # noqa: PLW2901 - dressed step by step
        if properties.get("custom.transform") == "negative-Y":
            target = f"scale({target}, -1)"  # noqa: PLW2901
        if properties.get("custom.axisPlacement") == "right":
            target = f"secondYAxis({target})"  # noqa: PLW2901
        if name:
            target = f"alias({target}, '{name}')"  # noqa: PLW2901
            colours.append(COLOURS[properties["color"]["fixedColor"]] if "color" in properties else SOME[len(colours)])
        names.append(name)
        targets.append(target)
    units = dict.fromkeys(
        UNITS.get(overrides.get(name, {}).get("unit", panel["fieldConfig"]["defaults"]["unit"]), "") for name in names
    )
    title = f"{panel['title']} [{', '.join(units)}]" if any(units) else panel["title"]
    return targets, {**LOOK, **_style(panel), "title": title, "colorList": ",".join(colours or SOME)}


def _style(panel: Mapping[str, Any]) -> Mapping[str, str]:
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    if panel["type"] == "barchart":
        return FIRST_FILLED
    if "stacking" in custom:
        return STACKED
    return BARS if custom.get("drawStyle") == "bars" else {"lineMode": "connected"}


def picture_name(dashboard: str, title: str) -> str:
    """Return the name of a panel's picture."""
    return f"{dashboard}-{'-'.join(re.findall(r'[a-z0-9]+', title.lower()))}.png"


def draw(graphite: Graphite, folder: Path) -> None:
    """Write a picture of each panel."""
    drawn = {(query.dashboard["uid"], query.panel["title"]): query for query in QUERIES}
    for (dashboard, title), query in drawn.items():
        targets, look = drawing(query.panel)
        serial = TROUBLED if dashboard == "pipeline" else WHOLE
        picture = graphite.render(query, serial, targets, **look)
        file = folder / picture_name(dashboard, title)
        file.write_bytes(picture.content)
        print(f"{file}: {title}")  # noqa: T201


def main() -> None:
    """Draw into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as state, running(Path(state), timezone=None) as graphite:
        draw(graphite, folder)


if __name__ == "__main__":
    main()
