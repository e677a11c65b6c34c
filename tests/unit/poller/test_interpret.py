"""What each interpreter makes of a poll."""

from typing import Any

import pytest

from services.poller import models
from services.poller.endpoints import (
    BATTERIES,
    BATTERY_POWER,
    BATTERY_TOTALS,
    DEVICE_DATA,
    GATEWAY_PRODUCTION,
    INVERTERS,
    METER_READINGS,
    PDM_ENERGY,
    PRODUCTION_JSON,
)
from services.poller.endpoints import Endpoint as AnyEndpoint
from services.poller.identity import Identity
from services.poller.interpret.battery import interpret_batteries
from services.poller.interpret.consumption import interpret_consumption
from services.poller.interpret.energy import interpret_energy
from services.poller.interpret.grid import interpret_grid
from services.poller.interpret.info import interpret_info
from services.poller.interpret.inverters import interpret_inverters
from services.poller.interpret.meters import interpret_meters
from services.poller.interpret.production import find_production_source, interpret_production
from services.poller.interpret.readings import interpret
from services.poller.snapshot import Site, SiteView, Snapshot, view_site
from shared.readings import Batteries, Battery, Consumption, Energy, Grid, Inverter, Meter, MeterPhase, Production

OLD = Identity("122012345678", "800-00555-r03", "7.6.175", metered_hardware=True)
NEW = Identity("122012345678", "800-00555-r03", "8.3.5169", metered_hardware=True)
COUNT = models.GatewayProduction(wattHoursToday=1, wattHoursSevenDays=2, wattHoursLifetime=3, wattsNow=4)
NO_COUNT = models.GatewayProduction(wattHoursToday=0, wattHoursSevenDays=0, wattHoursLifetime=0, wattsNow=689)

Responses = dict[AnyEndpoint[Any], Any]


def meter(eid: int, kind: str, state: str = "enabled", phases: int = 1, mode: str | None = None) -> models.MeterDetails:
    """Return an entry of /ivp/meters."""
    return models.MeterDetails(eid=eid, state=state, measurementType=kind, phaseCount=phases, phaseMode=mode)


def reading(eid: int, power_w: float, timestamp: int = 100, *channels: float, energy_wh: float = 10.0) -> Any:  # noqa: ANN401 - one of the gateway's models
    """Return an entry of /ivp/meters/readings."""
    values = tuple(
        models.MeterValues(activePower=channel, actEnergyDlvd=energy_wh, actEnergyRcvd=20.0) for channel in channels
    )
    return models.MeterReading(
        eid=eid, timestamp=timestamp, activePower=power_w, actEnergyDlvd=energy_wh, actEnergyRcvd=20.0, channels=values
    )


def eim(kind: str, power_w: float, active: int = 1, **counters: float) -> models.ProductionEntry:
    """Return a meter's entry of /production.json."""
    fields: dict[str, Any] = {"whLifetime": 7.0} | counters
    return models.ProductionEntry(
        type="eim", measurementType=kind, activeCount=active, readingTime=90, wNow=power_w, **fields
    )


def inverters_sum(lifetime_wh: float = 99, reading_time: int = 80) -> models.ProductionJson:
    """Return a production.json of inverters alone."""
    entry = models.ProductionEntry(
        type="inverters", activeCount=7, readingTime=reading_time, wNow=5, whLifetime=lifetime_wh
    )
    return models.ProductionJson(production=(entry,))


def poll(
    responses: Responses | None = None,
    *meters: models.MeterDetails,
    identity: Identity = NEW,
    received_at: int = 100,
    **site: Any,
) -> SiteView:
    """Return the view of a poll."""
    return view_site(Site(identity, meters, **site), Snapshot(responses), received_at)


def test_production_comes_from_the_source_that_is_held() -> None:
    """Meter, gateway or inverters, each with its own power and lifetime."""
    responses: Responses = {
        METER_READINGS: (reading(1, 8.0),),
        GATEWAY_PRODUCTION: COUNT,
        PRODUCTION_JSON: inverters_sum(),
    }
    meters = meter(1, "production")

    by_source = {
        source: interpret_production(poll(responses, meters, production_source=source))
        for source in ("meter", "gateway", "inverters", None)
    }

    assert by_source == {
        "meter": Production(timestamp=100, power_w=8.0, energy_lifetime_wh=10.0, source="meter"),
        "gateway": Production(timestamp=100, power_w=4.0, energy_lifetime_wh=3.0, source="gateway"),
        "inverters": Production(timestamp=80, power_w=5.0, energy_lifetime_wh=99.0, source="inverters"),
        None: None,
    }


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (poll({METER_READINGS: (reading(1, 5),)}, meter(1, "production")), "meter"),
        # Enabled, but without a reading: it does not exist (fixture 4.2.33).
        (poll({}, meter(1, "production")), None),
        (poll({PRODUCTION_JSON: models.ProductionJson(production=(eim("production", 5),))}), "meter"),
        (
            poll({GATEWAY_PRODUCTION: COUNT}, meter(1, "production", "disabled"), identity=OLD),
            "gateway",
        ),
        # Its own counter stalls on metered hardware without transformers.
        (poll({GATEWAY_PRODUCTION: COUNT, PRODUCTION_JSON: inverters_sum()}), "inverters"),
        # Its own counters are all zero where meters were disabled.
        (poll({GATEWAY_PRODUCTION: NO_COUNT, PRODUCTION_JSON: inverters_sum()}, identity=OLD), "inverters"),
        (poll({PRODUCTION_JSON: models.ProductionJson(production=(eim("production", 5, active=0),))}), None),
        (poll(), None),
    ],
)
def test_the_best_source_of_the_production_that_responded_is_found(view: SiteView, expected: str | None) -> None:
    """The meter, else the gateway where its counter counts, else the inverters' sum."""
    assert find_production_source(view) == expected


def test_a_lifetime_sum_of_inverters_that_may_have_wrapped_is_left_out() -> None:
    """Below firmware 8 it wraps at 2^32 J, and how often it did is unknown."""
    old = poll({PRODUCTION_JSON: inverters_sum()}, identity=OLD, production_source="inverters", received_at=500)

    assert interpret_production(old) == Production(timestamp=80, power_w=5, source="inverters")


def test_a_sum_of_inverters_without_a_time_is_of_now() -> None:
    """At night no inverter reports."""
    view = poll({PRODUCTION_JSON: inverters_sum(reading_time=0)}, production_source="inverters", received_at=500)
    production = interpret_production(view)

    assert production is not None
    assert production.timestamp == 500


def test_consumption_is_production_plus_net_of_one_response() -> None:
    """Two meters read a second apart make one sum, rounded to the gateway's three decimals."""
    responses: Responses = {METER_READINGS: (reading(1, 8.1, 100), reading(2, -5.2, 101))}

    view = poll(responses, meter(1, "production"), meter(2, "net-consumption"))

    assert interpret_consumption(view) == Consumption(timestamp=101, power_w=2.9)


@pytest.mark.parametrize(
    ("total", "net", "production", "power_w", "lifetime_wh"),
    [
        (eim("total-consumption", 9, whLifetime=50.0), eim("net-consumption", 4), eim("production", 5), 9.0, 50.0),
        # A copy of net: the total is net plus production (8.3.5433).
        (
            eim("total-consumption", 4, whLifetime=30.0),
            eim("net-consumption", 4, whLifetime=30.0),
            eim("production", 5, whLifetime=20.0),
            9.0,
            50.0,
        ),
        # Without a production it is net plus nothing.
        (eim("total-consumption", 4), eim("net-consumption", 4), None, None, None),
        (eim("total-consumption", 9, whLifetime=-1.0), None, None, 9.0, None),
        (None, eim("net-consumption", 4), eim("production", 5), None, None),
    ],
)
def test_without_meters_consumption_comes_from_production_json(
    total: models.ProductionEntry | None,
    net: models.ProductionEntry | None,
    production: models.ProductionEntry | None,
    power_w: float | None,
    lifetime_wh: float | None,
) -> None:
    """The total, unless it is a copy of net."""
    response = models.ProductionJson(
        production=(production,) if production else (), consumption=tuple(each for each in (total, net) if each)
    )

    consumption = interpret_consumption(poll({PRODUCTION_JSON: response}))

    found = (consumption.power_w, consumption.energy_lifetime_wh) if consumption else (None, None)
    assert found == (power_w, lifetime_wh)


@pytest.mark.parametrize(("power_w", "imported_w", "exported_w"), [(5.0, 5.0, 0.0), (-5.0, 0.0, 5.0), (0.0, 0.0, 0.0)])
def test_import_and_export_are_never_negative(power_w: float, imported_w: float, exported_w: float) -> None:
    """Power at the grid connection is one or the other."""
    grid = interpret_grid(poll({METER_READINGS: (reading(2, power_w),)}, meter(2, "net-consumption")))

    assert grid == Grid(
        timestamp=100,
        power_w=power_w,
        import_power_w=imported_w,
        export_power_w=exported_w,
        import_lifetime_wh=10.0,
        export_lifetime_wh=20.0,
    )


def test_a_net_consumption_that_is_computed_gives_no_grid() -> None:
    """Total-consumption minus a production that is not measured."""
    responses: Responses = {
        METER_READINGS: (reading(2, 5.0),),
        PRODUCTION_JSON: models.ProductionJson(consumption=(eim("net-consumption", 5.0),)),
    }

    assert interpret_grid(poll(responses, meter(2, "total-consumption"))) is None
    assert interpret_grid(poll(responses)) is not None


def test_the_energies_of_the_day_are_those_of_the_source_of_the_production() -> None:
    """Consumption's come from total-consumption; what is known to be wrong is left out."""
    responses: Responses = {
        GATEWAY_PRODUCTION: models.GatewayProduction(
            wattHoursToday=100, wattHoursSevenDays=900, wattHoursLifetime=9_000, wattsNow=4
        ),
        PDM_ENERGY: models.PdmEnergy(
            production=models.PdmProduction(
                pcu=models.PdmEnergyCounter(wattHoursToday=200, wattHoursSevenDays=800, wattHoursLifetime=8_000)
            )
        ),
        PRODUCTION_JSON: models.ProductionJson(
            production=(eim("production", 5, whToday=300.0, whLastSevenDays=700.0, whLifetime=7_000.0),),
            consumption=(eim("total-consumption", 5, whToday=400.0, whLastSevenDays=4.0, whLifetime=6_000.0),),
        ),
    }

    energies = [
        interpret_energy(poll(responses, production_source=source)) for source in ("gateway", "inverters", "meter")
    ]

    assert energies == [
        Energy(timestamp=90, production_today_wh=today, production_last_7_days_wh=week, consumption_today_wh=400)
        for today, week in ((100, 900), (200, 800), (300, 700))
    ]


def test_meters_are_matched_by_eid() -> None:
    """A gateway may list more readings than meters, in another order."""
    responses: Responses = {METER_READINGS: (reading(9, 0), reading(2, -5), reading(1, 8))}

    view = poll(responses, meter(1, "production"), meter(2, "net-consumption"))

    found = {each.type: each.active_power_w for each in interpret_meters(view) if isinstance(each, Meter)}
    assert found == {"production": 8, "net-consumption": -5}


def test_a_disabled_meter_gives_no_reading() -> None:
    """Without transformers it measures noise."""
    responses: Responses = {METER_READINGS: (reading(1, 8),)}

    assert interpret(poll(responses, meter(1, "production", "disabled"), meter(2, "net-consumption", "disabled"))) == []


def test_channels_beyond_the_phase_count_are_left_out() -> None:
    """On split-phase sites the third channel is another meter's."""
    responses: Responses = {METER_READINGS: (reading(2, 3, 100, 1.0, 2.0, -3545.209),)}

    phases = interpret_meters(poll(responses, meter(2, "net-consumption", phases=2)))

    assert [(each.phase, each.active_power_w) for each in phases if isinstance(each, MeterPhase)] == [
        (1, 1.0),
        (2, 2.0),
    ]


def test_a_storage_meter_without_one_of_its_phases_gives_the_other_phase_alone() -> None:
    """From 8.3.6000 on: neither the total nor the missing phase is right."""
    values = [
        models.MeterValues(activePower=power_w, actEnergyDlvd=energy_wh, actEnergyRcvd=energy_wh)
        for power_w, energy_wh in ((0.0, 0.0), (7.0, 9.0))
    ]
    storage = models.MeterReading(
        eid=3, timestamp=100, activePower=7.0, actEnergyDlvd=9.0, actEnergyRcvd=9.0, channels=tuple(values)
    )
    firmware = Identity("122012345678", None, "8.3.6000", metered_hardware=True)

    view = poll({METER_READINGS: (storage,)}, meter(3, "storage", phases=2, mode="split"), identity=firmware)

    assert [each.kind for each in interpret_meters(view)] == ["meter/storage/phase/2"]
    assert list(interpret_batteries(view)) == []


def test_an_ac_battery_is_no_inverter() -> None:
    """It reports in the same list, and would count as production."""
    reports = (
        models.InverterReport(serialNumber="1", lastReportDate=50, devType=1, lastReportWatts=9, maxReportWatts=10),
        models.InverterReport(serialNumber="2", lastReportDate=50, devType=11, lastReportWatts=9, maxReportWatts=10),
        models.InverterReport(serialNumber="3", lastReportDate=50, lastReportWatts=8),
        models.InverterReport(serialNumber="4", lastReportDate=0, lastReportWatts=0),
    )

    assert list(interpret_inverters(poll({INVERTERS: reports}))) == [
        Inverter(serial="1", timestamp=50, power_w=9, max_power_w=10),
        Inverter(serial="3", timestamp=50, power_w=8),
    ]


def test_details_of_inverters_are_converted_to_volts_amperes_and_watt_hours() -> None:
    """The gateway has thousandths, and joules."""
    channel = models.DeviceChannel(
        watts=models.ChannelWatts(now=200.0, max=300.0),
        lastReading=models.LastReading(endDate=50, acVoltageINmV=240_000.0, dcCurrentINmA=5_500.0, channelTemp=31.0),
        lifetime=models.ChannelLifetime(joulesProduced=7_200_000.0),
    )
    devices = models.DeviceData(
        deviceCount=1,
        deviceDataLimit=50,
        devices=(models.Device(devName="pcu", sn="1", active=True, channels=(channel,)),),
    )

    assert list(interpret_inverters(poll({DEVICE_DATA: devices}))) == [
        Inverter(
            serial="1",
            timestamp=50,
            power_w=200,
            max_power_w=300,
            ac_voltage_v=240,
            dc_current_a=5.5,
            temperature_c=31,
            energy_lifetime_wh=2000,
        )
    ]


BATTERY = models.BatteryDetails(serial_num="7", percentFull=10, temperature=20, encharge_capacity=3500)
AC_BATTERIES = models.ProductionEntry(
    type="acb", activeCount=2, readingTime=90, wNow=100, whNow=1000, percentFull=40, state="charging"
)


def test_a_batterys_charge_comes_from_the_newer_response() -> None:
    """The inventory's is older (8.2.4382_ACB); without power it is the only one."""
    power = models.EnsemblePower.model_validate(
        {"devices:": [{"serial_num": "7", "real_power_mw": 1500.0, "soc": 54.0}]}
    )

    both = list(interpret_batteries(poll({BATTERIES: (BATTERY,), BATTERY_POWER: power}, has_batteries=True)))
    alone = list(interpret_batteries(poll({BATTERIES: (BATTERY,)}, has_batteries=True)))

    assert both[1] == Battery(
        serial="7", timestamp=100, power_w=1.5, charge_percent=54, temperature_c=20, capacity_wh=3500
    )
    assert alone[1] == Battery(serial="7", timestamp=100, charge_percent=10, temperature_c=20, capacity_wh=3500)
    assert [each.power_w for each in (both[0], alone[0])] == [1.5, None]


def test_ac_batteries_are_part_of_the_total() -> None:
    """Their power is negative while they charge; an old one does not count."""
    power = models.EnsemblePower.model_validate({"devices:": [{"serial_num": "7", "real_power_mw": 1500.0}]})
    totals = models.BatteryTotals(
        agg_soc=45, Max_energy=6000, ENC_agg_avail_energy=1900, ACB_agg_energy=1000, ENC_agg_soc=54
    )
    old = AC_BATTERIES.model_copy(update={"readingTime": 1})

    def together(entry: models.ProductionEntry) -> Any:  # noqa: ANN401 - the first reading
        response = models.ProductionJson(storage=(entry,))
        responses: Responses = {
            BATTERIES: (BATTERY,),
            BATTERY_POWER: power,
            BATTERY_TOTALS: totals,
            PRODUCTION_JSON: response,
        }
        return next(
            iter(interpret_batteries(poll(responses, has_batteries=True, production_json=response, received_at=10_000)))
        )

    now = AC_BATTERIES.model_copy(update={"readingTime": 9_990})
    assert together(now) == Batteries(
        timestamp=10_000, power_w=-98.5, charge_percent=45, available_energy_wh=2900, capacity_wh=6000
    )
    assert together(old).power_w == 1.5


def test_without_the_ac_batteries_response_there_is_no_total() -> None:
    """The totals of the IQ Batteries alone would pass for those of all."""
    known = models.ProductionJson(storage=(AC_BATTERIES,))

    view = poll({BATTERIES: (BATTERY,)}, has_batteries=True, production_json=known)

    assert list(interpret_batteries(view)) == []


def test_between_two_sweeps_a_storage_meter_gives_no_battery_reading() -> None:
    """Its charge would be missing; where no batteries respond at all, the meter is everything there is."""
    responses: Responses = {METER_READINGS: (reading(3, 7.0),)}

    assert list(interpret_batteries(poll(responses, meter(3, "storage"), has_batteries=True))) == []
    assert list(interpret_batteries(poll(responses, meter(3, "storage")))) == [
        Batteries(timestamp=100, power_w=7, charge_lifetime_wh=20, discharge_lifetime_wh=10)
    ]


def test_info_names_what_is_metered_and_the_sources_of_the_numbers() -> None:
    """It explains why there is no consumption."""
    meters = (meter(1, "production", phases=3), meter(2, "net-consumption", "disabled", phases=3))

    info = interpret_info(Site(NEW, meters, production_source="meter"), clock_offset_s=7200)

    assert (info.metered, info.phases, info.sources, info.clock_offset_s) == (True, 3, ("production=meter",), 7200)


def test_all_readings_of_a_poll_have_one_time() -> None:
    """The newest of its meters' times."""
    responses: Responses = {METER_READINGS: (reading(1, 8.1, 100), reading(2, -5.2, 101))}
    view = poll(
        responses, meter(1, "production"), meter(2, "net-consumption"), production_source="meter", received_at=500
    )

    readings = interpret(view)

    assert {each.timestamp for each in readings} == {101}
    assert {each.kind for each in readings} == {
        "production",
        "consumption",
        "grid",
        "meter/production",
        "meter/net-consumption",
    }
