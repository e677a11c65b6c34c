"""What a gateway's answers mean: which of its counts to believe, and the readings they make.

A gateway counts the same energy in several places, of which some are wrong on some firmware. Each rule here is a small
function that names where it was seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from services.poller.answers import (
    Counted,
    GatewayProduction,
    InverterReport,
    MeterDetails,
    MeterReading,
    MeterValues,
    ProductionJson,
)
from services.poller.envoy import Identity
from shared.messages import GatewayInfo
from shared.readings import Consumption, Grid, Inverter, Meter, MeterPhase, Production, Reading

AC_BATTERY = 11
"""The ``devType`` of batteries among the inverters (pyenphase/pyenphase, fixture 8.2.4382_ACB); an inverter's is 1."""

MILLIWATTS = 3
"""The decimals that a gateway gives; a sum of floats would show more."""

ProductionSource = Literal["meter", "gateway", "inverters"]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a gateway answered in one poll; None or empty where it was not asked or had nothing to say."""

    meter_details: tuple[MeterDetails, ...] = ()
    meter_readings: tuple[MeterReading, ...] = ()
    production_json: ProductionJson | None = None
    gateway_production: GatewayProduction | None = None
    inverters: tuple[InverterReport, ...] = ()


def readings_of(
    identity: Identity, answers: Answers, source: ProductionSource | None, received_at: int
) -> list[Reading]:
    """Return the readings that a poll's answers make, all at one moment but for the inverters'.

    Args:
        identity: whose answers.
        answers: what the gateway answered.
        source: whose count of the production to believe.
        received_at: epoch seconds, the moment of what the gateway gives no time for.
    """
    metered = list(_enabled(answers))
    moment = max((reading.timestamp for _, reading in metered), default=received_at)
    totals = {details.measurementType: reading for details, reading in reversed(metered)}
    readings: list[Reading | None] = [
        _production(identity, answers, source, totals.get("production"), moment),
        _consumption(answers, totals.get("production"), totals.get("net-consumption"), moment),
        _grid(totals.get("net-consumption"), moment),
        *(meter for details, reading in metered for meter in _meters(details, reading, moment)),
        *(_inverter(report) for report in answers.inverters if is_inverter(report)),
    ]
    return [reading for reading in readings if reading is not None]


def production_source(identity: Identity, answers: Answers) -> ProductionSource | None:
    """Return whose count of the production to believe: the meter's, else the gateway's, else the inverters' sum.

    The order is pyenphase's (pyenphase/pyenphase, src/pyenphase/updaters).
    """
    if any(details.measurementType == "production" and is_enabled(details) for details in answers.meter_details):
        return "meter"
    if answers.production_json is not None and _eim(answers.production_json.production, "production") is not None:
        return "meter"
    count = answers.gateway_production
    if count is not None and not is_all_zero(count) and not gateway_count_stalls(identity):
        return "gateway"
    if answers.production_json is not None and _inverters(answers.production_json) is not None:
        return "inverters"
    return None


def info_of(identity: Identity, answers: Answers, source: ProductionSource | None) -> GatewayInfo:
    """Return what is published of a gateway: what it is, how many phases it meters, where the numbers come from."""
    enabled = {details.measurementType: details for details in answers.meter_details if is_enabled(details)}
    sources = [f"production={source}"] if source else []
    if _total_consumption(answers) is not None or {"production", "net-consumption"} <= enabled.keys():
        sources.append("consumption=meter")
    if "net-consumption" in enabled:
        sources.append("grid=meter")
    return GatewayInfo(
        serial=identity.serial,
        part_number=identity.part_number,
        firmware=identity.firmware,
        metered=bool(enabled),
        phases=max((details.phaseCount for details in enabled.values()), default=None),
        sources=tuple(sources),
    )


def is_enabled(details: MeterDetails) -> bool:
    """Return whether a meter's transformers are fitted: a disabled one answers too (fixture 8.3.1598, evse)."""
    return details.state == "enabled"


def is_inverter(report: InverterReport) -> bool:
    """Return whether a report is an inverter's and not an AC Battery's."""
    return report.devType != AC_BATTERY


def is_all_zero(count: GatewayProduction) -> bool:
    """Return whether the gateway's own count counts nothing, as with disabled meters (fixture 7.3.466_disabled)."""
    return count.wattHoursToday == count.wattHoursSevenDays == count.wattHoursLifetime == 0


def gateway_count_stalls(identity: Identity) -> bool:
    """Return whether the gateway's own count stands still: metered hardware without transformers (pyenphase#275)."""
    return identity.metered_hardware and identity.version >= (8, 2, 4264)


def inverter_sum_wraps(identity: Identity) -> bool:
    """Return whether the inverters' lifetime sum begins again at 2^32 J, 1.19 MWh (fixture 7.6.175_standard)."""
    return identity.version < (8,)


def _enabled(answers: Answers) -> Iterator[tuple[MeterDetails, MeterReading]]:
    """Yield each enabled meter with its reading; entries are matched by eid, as there may be more than meters."""
    by_eid = {reading.eid: reading for reading in answers.meter_readings}
    for details in answers.meter_details:
        if is_enabled(details) and details.eid in by_eid:
            yield details, by_eid[details.eid]


def _eim(counts: tuple[Counted, ...], measurement_type: str) -> Counted | None:
    """Return what a meter counted, if its transformers are fitted."""
    for count in counts:
        if count.type == "eim" and count.measurementType == measurement_type and count.activeCount > 0:
            return count
    return None


def _inverters(answer: ProductionJson) -> Counted | None:
    return next((count for count in answer.production if count.type == "inverters"), None)


def _total_consumption(answers: Answers) -> Counted | None:
    return _eim(answers.production_json.consumption, "total-consumption") if answers.production_json else None


def _production(
    identity: Identity, answers: Answers, source: ProductionSource | None, meter: MeterReading | None, moment: int
) -> Production | None:
    if source == "meter" and meter is not None:
        return Production(
            timestamp=moment, power_w=meter.activePower, energy_lifetime_wh=meter.actEnergyDlvd, source=source
        )
    if source == "gateway" and (own := answers.gateway_production) is not None:
        return Production(
            timestamp=moment, power_w=own.wattsNow, energy_lifetime_wh=own.wattHoursLifetime, source=source
        )
    if source is None or source == "gateway" or answers.production_json is None:
        return None
    count = _eim(answers.production_json.production, "production")
    lifetime_wh = count.whLifetime if count else None
    if source == "inverters":
        count = _inverters(answers.production_json)
        lifetime_wh = count.whLifetime if count and not inverter_sum_wraps(identity) else None
    if count is None:
        return None
    return Production(
        timestamp=count.readingTime or moment, power_w=count.wNow, energy_lifetime_wh=lifetime_wh, source=source
    )


def _consumption(
    answers: Answers, production: MeterReading | None, net: MeterReading | None, moment: int
) -> Consumption | None:
    """Return production plus net-consumption, which is how the gateway comes by its total-consumption."""
    total = _total_consumption(answers)
    lifetime_wh = total.whLifetime if total else None
    if production is not None and net is not None:
        power_w = round(production.activePower + net.activePower, MILLIWATTS)
        return Consumption(timestamp=moment, power_w=power_w, energy_lifetime_wh=lifetime_wh)
    if total is not None:
        return Consumption(
            timestamp=total.readingTime or moment, power_w=total.wNow, energy_lifetime_wh=total.whLifetime
        )
    return None


def _grid(net: MeterReading | None, moment: int) -> Grid | None:
    if net is None:
        return None
    return Grid(
        timestamp=moment,
        power_w=net.activePower,
        import_power_w=max(net.activePower, 0.0),
        export_power_w=max(-net.activePower, 0.0),
        import_lifetime_wh=net.actEnergyDlvd,
        export_lifetime_wh=net.actEnergyRcvd,
    )


def _meters(details: MeterDetails, reading: MeterReading, moment: int) -> Iterator[Reading]:
    """Yield a meter's reading and, where there are several, its phases'.

    Channels beyond ``phaseCount`` are not the meter's: they are zero or repeat another's (fixture 8.2.4286).
    """
    name = details.measurementType
    yield Meter(type=name, timestamp=moment, **_values(reading))
    if details.phaseCount > 1:
        for phase, channel in enumerate(reading.channels[: details.phaseCount], start=1):
            yield MeterPhase(type=name, phase=phase, timestamp=moment, **_values(channel))


def _values(values: MeterValues) -> dict[str, float | None]:
    return {
        "active_power_w": values.activePower,
        "apparent_power_va": values.apparentPower,
        "reactive_power_var": values.reactivePower,
        "power_factor": values.pwrFactor,
        "voltage_v": values.voltage,
        "current_a": values.current,
        "frequency_hz": values.freq,
        "energy_delivered_wh": values.actEnergyDlvd,
        "energy_received_wh": values.actEnergyRcvd,
    }


def _inverter(report: InverterReport) -> Inverter:
    return Inverter(
        serial=report.serialNumber,
        timestamp=report.lastReportDate,
        power_w=report.lastReportWatts,
        max_power_w=report.maxReportWatts,
    )
