"""What is established of a site, and how a poll is viewed with it."""

import pytest

from services.poller import models
from services.poller.endpoints import BATTERIES, METER_READINGS, METERS, PRODUCTION, PRODUCTION_JSON
from services.poller.identity import Identity
from services.poller.snapshot import Site, Snapshot, counters_of, view_site

IDENTITY = Identity("122012345678", None, "8.3.5169", metered_hardware=True)


def meter(eid: int, kind: str = "production", state: str = "enabled") -> models.MeterDetails:
    """Return an entry of /ivp/meters."""
    return models.MeterDetails(eid=eid, state=state, measurementType=kind)


def reading(eid: int, timestamp: int | None = 100) -> models.MeterReading:
    """Return an entry of /ivp/meters/readings."""
    return models.MeterReading(eid=eid, timestamp=timestamp, activePower=float(eid))


def eim(kind: str | None, active: int = 1, reading_time: int = 90) -> models.ProductionEntry:
    """Return a meter's entry of /production.json."""
    return models.ProductionEntry(
        type="eim", measurementType=kind, activeCount=active, readingTime=reading_time, wNow=1.0
    )


def test_a_response_is_found_under_its_endpoint_alone() -> None:
    """Each with its own type; that of a fallback under the endpoint that it replaces."""
    response = models.ProductionJson()

    snapshot = Snapshot().with_response(METERS, (meter(1),)).with_response(PRODUCTION, response)

    assert snapshot.get(METERS) == (meter(1),)
    assert snapshot.get(PRODUCTION_JSON) is response
    assert snapshot.get(PRODUCTION) is None
    assert snapshot.get(BATTERIES) is None


def test_a_snapshot_with_one_response_more_is_another_one() -> None:
    """The one before does not change."""
    empty = Snapshot()

    empty.with_response(METERS, ())

    assert empty.get(METERS) is None


def test_more_meters_are_established_at_once_and_fewer_when_confirmed() -> None:
    """One list that lacks a meter may be an error of the gateway."""
    both, one = (meter(1), meter(2)), (meter(1), meter(2, state="disabled"))
    site = Site(IDENTITY)

    def after(site: Site, meters: tuple[models.MeterDetails, ...]) -> Site:
        return site.after(METERS, Snapshot({METERS: meters}))

    site = after(site, both)
    assert len(site.enabled_meters) == 2
    site = after(site, one)
    assert len(site.enabled_meters) == 2
    site = after(site, both)
    site = after(site, one)
    assert len(site.enabled_meters) == 2
    site = after(site, one)
    assert [each.eid for each in site.enabled_meters] == [1]


def test_a_disabled_meter_is_not_measured() -> None:
    """Although it has a reading."""
    site = Site(IDENTITY, (meter(1, state="disabled"), meter(2, "net-consumption", state="not-metering")))

    view = view_site(site, Snapshot({METER_READINGS: (reading(1), reading(2))}), 100)

    assert (view.meter("production"), view.meter("net-consumption"), dict(view.meters)) == (None, None, {})


def test_the_first_of_two_meters_of_a_type_counts() -> None:
    """And the first of two readings of a meter."""
    site = Site(IDENTITY, (meter(1), meter(2)))
    readings = (reading(2), reading(1, 100), reading(1, 101))

    view = view_site(site, Snapshot({METER_READINGS: readings}), 200)

    measured = view.meter("production")
    assert measured is not None
    assert (measured.eid, measured.timestamp) == (1, 100)


@pytest.mark.parametrize(
    ("times", "received_at", "moment"),
    [
        ([100, 130, 110], 140, 130),
        ([100, None, 0], 140, 100),
        ([None, None, None], 140, 140),
        # Further ahead of the gateway's own clock than it can be.
        ([100, 500, 110], 140, 110),
    ],
)
def test_the_moment_of_a_poll_is_the_newest_time_of_its_meters(
    times: list[int | None], received_at: int, moment: int
) -> None:
    """Or that of its receipt."""
    site = Site(IDENTITY, tuple(meter(number, f"kind-{number}") for number in range(3)))
    readings = tuple(reading(number, timestamp) for number, timestamp in enumerate(times))

    assert view_site(site, Snapshot({METER_READINGS: readings}), received_at).moment == moment


def test_without_meters_the_moment_is_that_of_production_json() -> None:
    """Of its active meters."""
    response = models.ProductionJson(
        production=(eim("production", reading_time=90),), consumption=(eim("net-consumption", 0, 99), eim(None, 1, 95))
    )

    assert view_site(Site(IDENTITY), Snapshot({PRODUCTION_JSON: response}), 100).moment == 95


def test_only_active_meters_count_in_production_json() -> None:
    """An inactive one repeats old values."""
    response = models.ProductionJson(
        production=(eim("production", 0),), consumption=(eim("total-consumption"), eim("net-consumption"))
    )

    assert counters_of(response).keys() == {"total-consumption", "net-consumption"}
    assert counters_of(None) == {}


def test_batteries_of_either_kind_are_batteries() -> None:
    """IQ Batteries are in the inventory, AC Batteries in production.json."""
    storage = models.ProductionEntry(type="acb", activeCount=1)
    iq = Site(IDENTITY).after(BATTERIES, Snapshot({BATTERIES: (models.BatteryDetails(serial_num="1"),)}))
    response = models.ProductionJson(storage=(storage,))
    ac = Site(IDENTITY).after(PRODUCTION_JSON, Snapshot({PRODUCTION_JSON: response}))

    assert (iq.has_any_batteries, iq.has_ac_batteries) == (True, False)
    assert (ac.has_any_batteries, ac.has_ac_batteries) == (True, True)
    assert not Site(IDENTITY).has_any_batteries
