import pytest

from services.poller import answers as shapes
from services.poller.answers import Answers
from services.poller.envoy import BadResponse, Identity, read_identity
from services.poller.schedule import seconds_to_slot
from services.poller.sources import info_of, production_source, readings_of
from shared.readings import Consumption, Grid, Inverter, Meter, MeterPhase, Production, Reading

OLD = Identity("122012345678", "800-00555-r03", "7.6.175", metered_hardware=True)
NEW = Identity("122012345678", "800-00555-r03", "8.3.5169", metered_hardware=True)
COUNT = shapes.GatewayProduction(wattHoursToday=1, wattHoursSevenDays=2, wattHoursLifetime=3, wattsNow=4)
NO_COUNT = shapes.GatewayProduction(wattHoursToday=0, wattHoursSevenDays=0, wattHoursLifetime=0, wattsNow=689)


def meter(eid: int, kind: str, state: str = "enabled", phases: int = 1) -> shapes.MeterDetails:
    """Return what a gateway says a meter is."""
    return shapes.MeterDetails(eid=eid, state=state, measurementType=kind, phaseCount=phases)


def reading(eid: int, power_w: float, timestamp: int = 100, *channels: float) -> shapes.MeterReading:
    """Return what a gateway says a meter measures."""
    values = tuple(shapes.MeterValues(activePower=channel) for channel in channels)
    return shapes.MeterReading(
        eid=eid, timestamp=timestamp, activePower=power_w, actEnergyDlvd=10.0, actEnergyRcvd=20.0, channels=values
    )


def eim(kind: str, power_w: float, active: int = 1) -> shapes.Counted:
    """Return what production.json says a meter counts."""
    return shapes.Counted(
        type="eim", measurementType=kind, activeCount=active, readingTime=90, wNow=power_w, whLifetime=7
    )


def inverters_sum(lifetime_wh: float = 99) -> shapes.ProductionJson:
    """Return a production.json of inverters alone."""
    return shapes.ProductionJson(
        production=(shapes.Counted(type="inverters", activeCount=7, readingTime=80, wNow=5, whLifetime=lifetime_wh),)
    )


def of_class(readings: list[Reading], wanted: type[Reading]) -> list[Reading]:
    """Return the readings of a class."""
    return [reading for reading in readings if isinstance(reading, wanted)]


def test_meters_are_matched_by_eid_and_not_by_their_place() -> None:
    """A gateway may list more readings than meters, in another order."""
    meters = (meter(1, "production"), meter(2, "net-consumption"))
    answers = Answers(meters, (reading(9, 0), reading(2, -5), reading(1, 8)))

    readings = readings_of(NEW, answers, "meter", 100)

    assert [r.power_w for r in of_class(readings, Production) if isinstance(r, Production)] == [8]
    assert [r.power_w for r in of_class(readings, Grid) if isinstance(r, Grid)] == [-5]
    assert len(of_class(readings, Meter)) == 2


def test_a_disabled_meter_gives_no_reading_although_it_answers() -> None:
    """Without transformers it measures noise."""
    answers = Answers((meter(1, "production", "disabled"), meter(2, "net-consumption", "disabled")), (reading(1, 8),))

    assert readings_of(NEW, answers, None, 100) == []


def test_channels_beyond_the_phase_count_are_left_out() -> None:
    """On split-phase sites the third channel repeats another meter's."""
    answers = Answers((meter(2, "net-consumption", phases=2),), (reading(2, 3, 100, 1.0, 2.0, -3545.209),))

    phases = of_class(readings_of(NEW, answers, None, 100), MeterPhase)

    assert [(r.phase, r.active_power_w) for r in phases if isinstance(r, MeterPhase)] == [(1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("told", ["0", "null", "4", '"2"', "true"])
def test_a_meter_without_a_phase_count_is_one_with_a_phase(told: str) -> None:
    """What it measures in all is right however many phases it has."""
    body = f'[{{"eid": 1, "state": "enabled", "measurementType": "production", "phaseCount": {told}}}]'

    (details,), _ = shapes.read_answer(shapes.METER_DETAILS, body.encode())

    assert details.phaseCount == 1


def test_everything_of_one_poll_carries_one_moment() -> None:
    """Two meters read a second apart make readings of one time, which add up."""
    answers = Answers(
        (meter(1, "production"), meter(2, "net-consumption")), (reading(1, 8.1, 100), reading(2, -5.2, 101))
    )

    readings = readings_of(NEW, answers, "meter", 500)

    assert {reading.timestamp for reading in readings} == {101}
    assert [r.power_w for r in of_class(readings, Consumption) if isinstance(r, Consumption)] == [2.9]


def test_import_and_export_are_never_negative() -> None:
    """Power over the grid connection is one or the other."""
    for power_w, imported_w, exported_w in [(5.0, 5.0, 0.0), (-5.0, 0.0, 5.0), (0.0, 0.0, 0.0)]:
        (grid,) = of_class(
            readings_of(NEW, Answers((meter(2, "net-consumption"),), (reading(2, power_w),)), None, 1), Grid
        )
        assert isinstance(grid, Grid)
        assert (grid.import_power_w, grid.export_power_w) == (imported_w, exported_w)


@pytest.mark.parametrize(
    ("identity", "answers", "expected"),
    [
        (NEW, Answers((meter(1, "production"),), (reading(1, 5),)), "meter"),
        # Enabled, but without a reading: it is not there (fixture 4.2.33).
        (NEW, Answers((meter(1, "production"),)), None),
        (NEW, Answers(production_json=shapes.ProductionJson(production=(eim("production", 5),))), "meter"),
        (OLD, Answers((meter(1, "production", "disabled"),), gateway_production=COUNT), "gateway"),
        # Its own count stands still where metered hardware has no transformers.
        (NEW, Answers(gateway_production=COUNT, production_json=inverters_sum()), "inverters"),
        # Its own count is all zero where meters were disabled.
        (OLD, Answers(gateway_production=NO_COUNT, production_json=inverters_sum()), "inverters"),
        (NEW, Answers(production_json=shapes.ProductionJson(production=(eim("production", 5, active=0),))), None),
        (NEW, Answers(), None),
    ],
)
def test_the_production_is_taken_from_who_counts_it_best(
    identity: Identity, answers: Answers, expected: str | None
) -> None:
    """The meter, else the gateway where its count is alive, else the inverters' sum."""
    assert production_source(identity, answers) == expected


def test_the_inverters_lifetime_sum_is_left_out_where_it_may_have_wrapped() -> None:
    """Below firmware 8 it begins again at 2^32 J, and nobody can tell how often it did."""
    answers = Answers(production_json=inverters_sum())

    (old,), (new,) = (readings_of(identity, answers, "inverters", 500) for identity in (OLD, NEW))

    assert old == Production(timestamp=80, power_w=5, source="inverters")
    assert new == Production(timestamp=80, power_w=5, energy_lifetime_wh=99, source="inverters")


def test_an_ac_battery_is_no_inverter() -> None:
    """It reports among them, and would count as sun."""
    reports = (
        shapes.InverterReport(serialNumber="1", lastReportDate=50, devType=1, lastReportWatts=9, maxReportWatts=10),
        shapes.InverterReport(serialNumber="2", lastReportDate=50, devType=11, lastReportWatts=9, maxReportWatts=10),
        shapes.InverterReport(serialNumber="3", lastReportDate=50, lastReportWatts=8),
    )

    assert readings_of(NEW, Answers(inverters=reports), None, 500) == [
        Inverter(serial="1", timestamp=50, power_w=9, max_power_w=10),
        Inverter(serial="3", timestamp=50, power_w=8),
    ]


def test_info_tells_what_is_metered_and_where_the_numbers_come_from() -> None:
    """A person sees in the topic why there is no consumption."""
    answers = Answers((meter(1, "production", phases=3), meter(2, "net-consumption", "disabled", phases=3)))

    info = info_of(NEW, answers, "meter")

    assert (info.metered, info.phases, info.sources) == (True, 3, ("production=meter",))


ENTITIES = '<!DOCTYPE x [<!ENTITY a "1">]><envoy_info><device><sn>&a;</sn><software>D8</software></device></envoy_info>'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>login</html>",
        b"{}",
        b"<envoy_info><device><sn>12 34</sn><software>D8</software></device></envoy_info>",
        b"<envoy_info><device><sn>122012345678</sn></device></envoy_info>",
        ENTITIES.encode(),
        ENTITIES.encode("utf-16"),
        f'<?xml version="1.0" encoding="cp037"?>{ENTITIES}'.encode("cp037"),
    ],
)
def test_an_info_that_is_not_an_envoys_is_refused(body: bytes) -> None:
    """Whoever answers there, it is not taken for a gateway."""
    with pytest.raises(BadResponse):
        read_identity(body)


@pytest.mark.parametrize(
    ("software", "firmware", "needs_token"),
    [
        ("R3.9.36", "3.9.36", False),
        ("D5.0.62", "5.0.62", False),
        ("D7.0.88", "7.0.88", True),
        ("D8.3.5169", "8.3.5169", True),
    ],
)
def test_firmware_tells_what_the_gateway_wants_to_see(software: str, firmware: str, needs_token: bool) -> None:  # noqa: FBT001 - a table
    """A token from 7 on, a password before."""
    body = f"<envoy_info><device><sn>122012345678</sn><software>{software}</software></device></envoy_info>"

    identity = read_identity(body.encode())

    assert (identity.firmware, identity.needs_token) == (firmware, needs_token)


def test_an_odd_info_is_read_as_far_as_it_goes() -> None:
    """An encoding nobody knows, spaces, no part number, and a firmware longer than any number may be."""
    software = f"D7.{'9' * 6000}"
    body = f"""<?xml version="1.0" encoding="odd-8"?>
        <envoy_info><device><sn> 122012345678 </sn><pn/><software> {software} </software></device></envoy_info>"""

    identity = read_identity(body.encode())

    assert (identity.serial, identity.part_number, identity.version[0]) == ("122012345678", None, 7)
    assert not identity.metered_hardware


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", '"12"', "true", "null", "1e300", "[1]", "{}"])
def test_a_field_that_is_no_number_is_dropped_and_what_is_for_it_skipped(number: str) -> None:
    """Text, truth and infinity are no power: without one an entry is skipped; without another field it is kept."""
    entry = '{{"eid": {eid}, "timestamp": 2, "activePower": {power}, "voltage": {voltage}}}'
    body = f"[{entry.format(eid=1, power=number, voltage=240)}, {entry.format(eid=2, power=5, voltage=number)}]"

    readings, dropped = shapes.read_answer(shapes.METER_READINGS, body.encode())

    assert [(reading.eid, reading.activePower, reading.voltage) for reading in readings] == [(2, 5.0, None)]
    assert len(dropped) == (1 if number == "null" else 2)


@pytest.mark.parametrize(("now", "wait_s"), [(0.0, 5.0), (4.9, 0.1), (5.0, 10.0), (9.0, 6.0), (1_800_000_003.5, 1.5)])
def test_the_next_poll_is_in_the_middle_of_a_slot(now: float, wait_s: float) -> None:
    """With an interval of ten seconds at five past each: late or early by a little, it stays in its slot."""
    assert seconds_to_slot(now, 10.0) == pytest.approx(wait_s, abs=1e-6)
