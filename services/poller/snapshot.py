"""What is known of a gateway: the responses of one poll, what earlier responses established, and both as one view.

::

    Snapshot   the responses of one poll, by endpoint
    Site       what is established so far: identity, enabled meters, batteries, the source of the production
    SiteView   a snapshot read with that knowledge, built once for each poll: what the interpreters are given

All three are immutable. Which meters exist and are measured is decided here and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self, TypeVar

from services.poller.endpoints import BATTERIES, METER_READINGS, METERS, PRODUCTION_JSON, Endpoint
from services.poller.identity import Identity
from services.poller.models import MeterDetails, MeterReading, ProductionEntry, ProductionJson

T = TypeVar("T")

PRODUCTION, NET_CONSUMPTION, TOTAL_CONSUMPTION, STORAGE = (
    "production",
    "net-consumption",
    "total-consumption",
    "storage",
)
"""The measurement types that are interpreted; a gateway may have others."""

MAX_AHEAD_S = 60
"""A meter's time that is further ahead of the gateway's own clock is wrong."""

ProductionSource = Literal["meter", "gateway", "inverters"]


class Snapshot:
    """Responses by the endpoint that supplied them."""

    __slots__ = ("_responses",)

    def __init__(self, responses: Mapping[Endpoint[Any], Any] | None = None) -> None:
        self._responses: dict[Endpoint[Any], Any] = dict(responses or {})

    def get(self, endpoint: Endpoint[T]) -> T | None:
        """Return the response of an endpoint; None if there is none."""
        response: T | None = self._responses.get(endpoint)
        return response

    def with_response(self, endpoint: Endpoint[T], response: T) -> Self:
        """Return a snapshot that holds one response more."""
        return type(self)(self._responses | {endpoint.supplies: response})


@dataclass(frozen=True)
class Site:
    """What is established of a gateway and of what it measures."""

    identity: Identity
    meters: tuple[MeterDetails, ...] = ()
    fewer_meters_reported: bool = False
    """Whether the newest list of meters lacked one that was enabled; it takes effect when it is confirmed."""
    has_batteries: bool = False
    production_json: ProductionJson | None = None
    """The newest response."""
    production_source: ProductionSource | None = None
    """Which of the counters of production is used; it is held, because the others count differently."""
    source_is_certain: bool = False
    """Whether it was chosen when nothing was missing that could have given a better one."""

    @cached_property
    def enabled_meters(self) -> tuple[MeterDetails, ...]:
        """The meters that are measured: whose transformers are fitted.

        A disabled meter has readings too: they are noise (fixture 8.3.1598_collar, evse).
        """
        return tuple(details for details in self.meters if details.state == "enabled")

    @property
    def enabled_types(self) -> frozenset[str]:
        """Their measurement types."""
        return frozenset(details.measurementType for details in self.enabled_meters)

    @property
    def has_ac_batteries(self) -> bool:
        """Whether there are AC Batteries, which only ``/production.json`` lists."""
        return self.production_json is not None and ac_batteries_of(self.production_json) is not None

    @property
    def has_any_batteries(self) -> bool:
        """Whether there are batteries of either kind."""
        return self.has_batteries or self.has_ac_batteries

    def after(self, endpoint: Endpoint[Any], responses: Snapshot) -> "Site":
        """Return what is established after the response of an endpoint, which the snapshot holds."""
        if endpoint is METERS:
            return self._with_meters(responses.get(METERS) or ())
        if endpoint is BATTERIES:
            batteries = responses.get(BATTERIES)
            return replace(self, has_batteries=bool(batteries))
        if endpoint.supplies is PRODUCTION_JSON:
            return replace(self, production_json=responses.get(PRODUCTION_JSON))
        return self

    def _with_meters(self, meters: tuple[MeterDetails, ...]) -> "Site":
        reported = {details.eid for details in meters if details.state == "enabled"}
        lacks_any = any(details.eid not in reported for details in self.enabled_meters)
        if lacks_any and not self.fewer_meters_reported:
            return replace(self, fewer_meters_reported=True)
        return replace(self, meters=meters, fewer_meters_reported=False)


@dataclass(frozen=True, slots=True)
class MeasuredMeter:
    """An enabled meter with its reading."""

    details: MeterDetails
    reading: MeterReading


@dataclass(frozen=True, slots=True)
class SiteView:
    """One poll's responses, with what is established of the site."""

    site: Site
    snapshot: Snapshot
    meters: Mapping[str, MeasuredMeter]
    """The meters that are measured and were read in this poll, by measurement type."""
    counters: Mapping[str, ProductionEntry]
    """What ``/production.json`` counts for the meters that are measured, by measurement type."""
    moment: int
    """The one time of the poll's readings, by the gateway's clock."""

    def meter(self, measurement_type: str) -> MeterReading | None:
        """Return the reading of a meter, if it is measured."""
        meter = self.meters.get(measurement_type)
        return meter.reading if meter is not None else None

    def counter(self, measurement_type: str) -> ProductionEntry | None:
        """Return what ``/production.json`` counts for a meter, if it is measured."""
        return self.counters.get(measurement_type)

    @property
    def inverters_sum(self) -> ProductionEntry | None:
        """The sum of the inverters in ``/production.json``, if there are any."""
        response = self.snapshot.get(PRODUCTION_JSON)
        entries = response.production if response is not None else ()
        return next((entry for entry in entries if entry.type == "inverters" and entry.activeCount > 0), None)


def view_site(site: Site, snapshot: Snapshot, received_at: int) -> SiteView:
    """Return a poll's view.

    Args:
        site: what is established.
        snapshot: the poll's responses.
        received_at: the time of the poll by the gateway's clock, used where no response has a time of its own.
    """
    meters = _measured_meters(site, snapshot.get(METER_READINGS) or ())
    counters = counters_of(snapshot.get(PRODUCTION_JSON))
    times = [meter.reading.timestamp for meter in meters.values()] or _times_of(snapshot.get(PRODUCTION_JSON))
    # The newest of the meters' times, which are up to 30 s apart.
    moment = max((time for time in times if time and time <= received_at + MAX_AHEAD_S), default=received_at)
    return SiteView(site, snapshot, meters, counters, moment)


def counters_of(response: ProductionJson | None) -> dict[str, ProductionEntry]:
    """Return what ``/production.json`` counts for the meters that it reports as active, by measurement type."""
    counters: dict[str, ProductionEntry] = {}
    if response is not None:
        for entry in (*response.production, *response.consumption):
            if entry.type == "eim" and entry.measurementType and entry.activeCount > 0:
                counters.setdefault(entry.measurementType, entry)
    return counters


def _times_of(response: ProductionJson | None) -> list[int | None]:
    entries = (*response.production, *response.consumption) if response is not None else ()
    return [entry.readingTime for entry in entries if entry.type == "eim" and entry.activeCount > 0]


def ac_batteries_of(response: ProductionJson) -> ProductionEntry | None:
    """Return the entry of the AC Batteries, if there are any."""
    return next((entry for entry in response.storage if entry.type == "acb" and entry.activeCount > 0), None)


def _measured_meters(site: Site, readings: tuple[MeterReading, ...]) -> dict[str, MeasuredMeter]:
    """Return the enabled meters that have a reading, by type; the first of two with the same type.

    They are matched by eid, because there may be more readings than meters or fewer, in another order
    (home-assistant#147463, fixture 4.2.33).
    """
    by_eid = {reading.eid: reading for reading in reversed(readings)}
    meters: dict[str, MeasuredMeter] = {}
    for details in site.enabled_meters:
        if (reading := by_eid.get(details.eid)) is not None:
            meters.setdefault(details.measurementType, MeasuredMeter(details, reading))
    return meters
