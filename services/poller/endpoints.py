"""The endpoints of a gateway: where each is, what its response looks like, when it is worth fetching.

A new endpoint is one entry here, one model in ``models.py`` and one interpreter in ``interpret/``.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import TypeAdapter

from services.poller import models

if TYPE_CHECKING:
    from services.poller.snapshot import Site, Snapshot

T = TypeVar("T")

TIMEOUT_S = 10.0
SLOW_TIMEOUT_S = 45.0
"""pyenphase's timeout; ``/production.json`` has been seen to take that long (home-assistant/core#125418)."""

BATTERY_FIRMWARE = (5,)
"""The first firmware with IQ Batteries (pyenphase/pyenphase, src/pyenphase/const.py)."""

MAX_BYTES = 131_072
"""Most responses have less than 10 kB. In Python an object of two bytes takes fifty times as much memory."""

MAX_LIST_BYTES = 524_288
"""For the lists of inverters and batteries: 2,000 entries of 250 bytes."""


class Cadence(enum.Enum):
    """How often an endpoint is fetched; the settings give the intervals."""

    METERS = enum.auto()
    INVERTERS = enum.auto()
    SLOW = enum.auto()


def _always(_site: "Site", _sweep: "Snapshot") -> bool:
    return True


def _complete(_response: object) -> bool:
    return True


@dataclass(frozen=True, eq=False, slots=True)
class Endpoint(Generic[T]):
    """A path whose response is a ``T``. Each is equal to itself only, and is the key of its response in a snapshot."""

    path: str
    model: TypeAdapter[T]
    cadence: Cadence
    timeout_s: float = TIMEOUT_S
    max_bytes: int = MAX_BYTES
    """A larger response is rejected."""
    is_wanted: Callable[["Site", "Snapshot"], bool] = _always
    """Whether it is worth fetching, after what is known of the site and was fetched in this sweep."""
    is_complete: Callable[[T], bool] = _complete
    """Whether a response serves its purpose; otherwise it is fetched less often."""
    fallback_for: "Endpoint[T] | None" = None
    """The endpoint that this one replaces where the gateway rejects or lacks it: its response counts as that one's."""

    @property
    def supplies(self) -> "Endpoint[T]":
        """The endpoint under which a snapshot holds the response."""
        return self.fallback_for or self


def _has_enabled_meters(site: "Site", _sweep: "Snapshot") -> bool:
    return bool(site.enabled_meters)


def _may_have_batteries(site: "Site", _sweep: "Snapshot") -> bool:
    return site.identity.version >= BATTERY_FIRMWARE


def _has_batteries(site: "Site", _sweep: "Snapshot") -> bool:
    return site.has_any_batteries


def _uses_inverters_sum(site: "Site", _sweep: "Snapshot") -> bool:
    return site.production_source == "inverters"


def _needs_token(site: "Site", _sweep: "Snapshot") -> bool:
    return site.identity.needs_token


def _lacks_device_data(_site: "Site", sweep: "Snapshot") -> bool:
    devices = sweep.get(DEVICE_DATA)
    return devices is None or not devices.lists_all_inverters


METER_READINGS = Endpoint("/ivp/meters/readings", models.METER_READINGS, Cadence.METERS, is_wanted=_has_enabled_meters)
GATEWAY_PRODUCTION = Endpoint("/api/v1/production", models.GATEWAY_PRODUCTION, Cadence.SLOW)
METERS = Endpoint("/ivp/meters", models.METER_DETAILS, Cadence.SLOW)
BATTERIES = Endpoint(
    "/ivp/ensemble/inventory",
    models.BATTERIES,
    Cadence.SLOW,
    max_bytes=MAX_LIST_BYTES,
    is_wanted=_may_have_batteries,
)
BATTERY_POWER = Endpoint("/ivp/ensemble/power", models.BATTERY_POWER, Cadence.SLOW, is_wanted=_has_batteries)
BATTERY_TOTALS = Endpoint("/ivp/ensemble/secctrl", models.BATTERY_TOTALS, Cadence.SLOW, is_wanted=_has_batteries)
PDM_ENERGY = Endpoint("/ivp/pdm/energy", models.PDM_ENERGY, Cadence.SLOW, is_wanted=_uses_inverters_sum)
DEVICE_DATA = Endpoint(
    "/ivp/pdm/device_data",
    models.DEVICE_DATA,
    Cadence.INVERTERS,
    max_bytes=MAX_LIST_BYTES,
    is_wanted=_needs_token,
    is_complete=lambda devices: devices.lists_all_inverters,
)
INVERTERS = Endpoint(
    "/api/v1/production/inverters",
    models.INVERTER_REPORTS,
    Cadence.INVERTERS,
    max_bytes=MAX_LIST_BYTES,
    is_wanted=_lacks_device_data,
)
PRODUCTION_JSON = Endpoint("/production.json", models.PRODUCTION_JSON, Cadence.SLOW, SLOW_TIMEOUT_S)
PRODUCTION_JSON_DETAILS = Endpoint(
    "/production.json?details=1", models.PRODUCTION_JSON, Cadence.SLOW, SLOW_TIMEOUT_S, fallback_for=PRODUCTION_JSON
)
PRODUCTION = Endpoint("/production", models.PRODUCTION_JSON, Cadence.SLOW, SLOW_TIMEOUT_S, fallback_for=PRODUCTION_JSON)
"""Some early firmware 7 rejects ``/production.json`` (pyenphase/pyenphase, src/pyenphase/updaters)."""

SWEEP: tuple[Endpoint[Any], ...] = (
    GATEWAY_PRODUCTION,
    METERS,
    BATTERIES,
    BATTERY_POWER,
    BATTERY_TOTALS,
    PDM_ENERGY,
    DEVICE_DATA,
    INVERTERS,
    PRODUCTION_JSON,
    PRODUCTION_JSON_DETAILS,
    PRODUCTION,
)
"""What is fetched between polls, in this order: the slowest last, so that its response is the freshest in the poll."""
