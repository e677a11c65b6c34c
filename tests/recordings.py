"""The recordings of real gateways, which are not part of this project: an extra where they are at hand.

They are those of pyenphase/pyenphase (`tests/fixtures`); what every machine tests is `tests/gateways`.
"""

import os
from pathlib import Path

RECORDINGS = Path(os.environ.get("ENVOY_RECORDINGS") or Path(__file__).parents[2] / "shared" / "envoy-recordings")

NAMES = (
    "3.9.36",
    "4.10.35",
    "5.0.62",
    "7.3.130_no_consumption",
    "7.3.466_metered_disabled_cts",
    "7.3.466_with_cts_3phase",
    "7.6.175_standard",
    "7.6.175_with_cts",
    "7.6.175_with_cts_3phase",
    "7.6.185_with_cts_and_battery_3t",
    "8.2.4286_with_3cts_and_battery_split",
    "8.2.4382_ACB",
    "8.3.5169_with_generator",
)
