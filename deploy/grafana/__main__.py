"""Generates the dashboards' files: ``python -m deploy.grafana``."""

from pathlib import Path

from deploy.grafana.panels import PANELS
from deploy.grafana.pipeline import PIPELINE
from deploy.grafana.solar_energy import SOLAR_ENERGY

FILES = Path(__file__).parent / "dashboards"


def texts() -> dict[Path, str]:
    """Return the content of each file."""
    return {FILES / f"{dashboard.uid}.json": dashboard.text() for dashboard in (SOLAR_ENERGY, PANELS, PIPELINE)}


def main() -> None:
    """Write the files."""
    for file, text in texts().items():
        file.write_text(text)


if __name__ == "__main__":
    main()
