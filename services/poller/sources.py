"""What a gateway's answers mean: whose count of the same energy to believe, and the readings they make.

A gateway counts the same energy in several places, of which some are wrong on some firmware: ``quirks.py`` has the
rules. All times here are by the gateway's clock.
"""

from collections.abc import Iterator
from typing import Literal

from services.poller import quirks
from services.poller.answers import (
    Answers,
    Counted,
    GatewayProduction,
    MeterDetails,
    MeterReading,
    MeterValues,
    ProductionJson,
)
from services.poller.batteries import battery_readings
from services.poller.envoy import Identity
from services.poller.inverters import inverter_readings
from shared.messages import GatewayInfo
from shared.readings import Consumption, Energy, Grid, Meter, MeterPhase, Production, Reading

MILLIWATTS = 3
"""The decimals that a gateway gives; a sum of floats would show more."""

AHEAD_S = 60
"""A meter's time this far ahead of the gateway's own clock is none."""

ProductionSource = Literal["meter", "gateway", "inverters"]


def readings_of(
    identity: Identity, answers: Answers, source: ProductionSource | None, received_at: int
) -> list[Reading]:
    """Return the readings that a poll's answers make, all at one moment but for the inverters'.

    Args:
        identity: whose answers.
        answers: what the gateway answered.
        source: whose count of the production to believe.
        received_at: by the gateway's clock, the moment of what it gives no time for.
    """
    metered = _metered(answers)
    moment = _moment(answers, metered, received_at)
    storage = metered.get("storage")
    lost_phase = _lost_phase(identity, storage)
    whole_storage = storage[1] if storage and lost_phase is None else None
    readings: list[Reading | None] = [
        _production(identity, answers, source, metered, moment),
        _consumption(answers, metered, moment),
        _grid(answers, metered, moment),
        _energy(answers, metered, source, moment),
        *battery_readings(answers, whole_storage, moment),
        *(meter for pair in metered.values() for meter in _meters(*pair, lost_phase, moment)),
        *inverter_readings(answers.device_data, answers.inverters),
    ]
    return [reading for reading in readings if reading is not None]


def production_source(identity: Identity, answers: Answers) -> ProductionSource | None:
    """Return whose count of the production to believe: the meter's, else the gateway's, else the inverters' sum.

    The order is pyenphase's (pyenphase/pyenphase, src/pyenphase/updaters). A meter that is enabled is believed also
    while ``/production.json`` calls it inactive, as 8.3.5528 does now and then (pyenphase#480).
    """
    counted = answers.production_json
    eim = _eim(counted.production, "production") if counted is not None else None
    if eim is not None or "production" in _metered(answers):
        return "meter"
    own = answers.gateway_production
    inverters = _inverters(counted) if counted is not None else None
    if own is not None and not (
        quirks.is_all_zero(own.wattHoursToday, own.wattHoursSevenDays, own.wattHoursLifetime)
        or quirks.count_without_meters_stalls(
            identity.version,
            metered_hardware=identity.metered_hardware,
            meters_enabled=any(is_enabled(details) for details in answers.meter_details),
        )
        or quirks.is_below_the_inverters_sum(own.wattHoursLifetime, inverters.whLifetime if inverters else None)
    ):
        return "gateway"
    return "inverters" if inverters is not None else None


def info_of(
    identity: Identity, answers: Answers, source: ProductionSource | None, clock_offset_s: int | None = None
) -> GatewayInfo:
    """Return what is published of a gateway: what it is, how many phases it meters, where the numbers come from."""
    enabled = {details.measurementType: details for details in answers.meter_details if is_enabled(details)}
    sources = [f"production={source}"] if source else []
    if (
        _total_consumption(answers) is not None
        or {"production", "net-consumption"} <= enabled.keys()
        or "total-consumption" in enabled
    ):
        sources.append("consumption=meter")
    if "net-consumption" in enabled or (
        _net_consumption(answers) is not None and not _net_is_a_guess(_metered(answers))
    ):
        sources.append("grid=meter")
    if "storage" in enabled:
        sources.append("battery=meter")
    elif answers.batteries_answer:
        sources.append("battery=batteries")
    return GatewayInfo(
        serial=identity.serial,
        part_number=identity.part_number,
        firmware=identity.firmware,
        metered=bool(enabled),
        phases=max((details.phaseCount for details in enabled.values()), default=None),
        sources=tuple(sources),
        clock_offset_s=clock_offset_s,
    )


def is_enabled(details: MeterDetails) -> bool:
    """Return whether a meter's transformers are fitted: a disabled one answers too (fixture 8.3.1598_collar, evse)."""
    return details.state == "enabled"


Metered = dict[str, tuple[MeterDetails, MeterReading]]


def _metered(answers: Answers) -> Metered:
    """Return the enabled meters with their readings, by type; of two alike the first counts.

    They are matched by eid: there may be more readings than meters, or fewer (home-assistant#147463, fixture 4.2.33).
    """
    by_eid = {reading.eid: reading for reading in reversed(answers.meter_readings)}
    metered: Metered = {}
    for details in answers.meter_details:
        if is_enabled(details) and details.eid in by_eid:
            metered.setdefault(details.measurementType, (details, by_eid[details.eid]))
    return metered


def _moment(answers: Answers, metered: Metered, received_at: int) -> int:
    """Return the one moment of a poll: the newest of its meters' times, which are up to 30 s apart."""
    told = [reading.timestamp for _, reading in metered.values()]
    if not told and answers.production_json is not None:
        counted = answers.production_json
        told = [
            count.readingTime
            for count in (*counted.production, *counted.consumption)
            if count.type == "eim" and count.activeCount > 0
        ]
    return max((time for time in told if time and time <= received_at + AHEAD_S), default=received_at)


def _eim(counts: tuple[Counted, ...], measurement_type: str) -> Counted | None:
    """Return what a meter counted, if its transformers are fitted."""
    for count in counts:
        if count.type == "eim" and count.measurementType == measurement_type and count.activeCount > 0:
            return count
    return None


def _inverters(answer: ProductionJson) -> Counted | None:
    """Return the inverters' sum, if there are any."""
    counts = (count for count in answer.production if count.type == "inverters" and count.activeCount > 0)
    return next(counts, None)


def _total_consumption(answers: Answers) -> Counted | None:
    return _eim(answers.production_json.consumption, "total-consumption") if answers.production_json else None


def _net_consumption(answers: Answers) -> Counted | None:
    return _eim(answers.production_json.consumption, "net-consumption") if answers.production_json else None


def _counted_production(answers: Answers) -> Counted | None:
    return _eim(answers.production_json.production, "production") if answers.production_json else None


def _count_beside_the_meter(answers: Answers, metered: Metered) -> GatewayProduction | None:
    """Return the gateway's own count where ``/production.json`` is never answered and it counts what the meter does.

    With transformers fitted it mirrors the meter, but not on 8.3.5433, where it has two thirds of the energy.
    """
    own, meter = answers.gateway_production, metered.get("production")
    if answers.production_json_answers or own is None or meter is None:
        return None
    return own if quirks.mirrors_the_meter(own.wattHoursLifetime, meter[1].actEnergyDlvd) else None


def _production(
    identity: Identity, answers: Answers, source: ProductionSource | None, metered: Metered, moment: int
) -> Production | None:
    match source:
        case "meter" if "production" in metered:
            _, meter = metered["production"]
            return Production(
                timestamp=moment, power_w=meter.activePower, energy_lifetime_wh=meter.actEnergyDlvd, source=source
            )
        case "meter":
            count = _counted_production(answers)
            if count is not None and count.wNow is not None:
                lifetime_wh = _counter(count.whLifetime)
                return Production(timestamp=moment, power_w=count.wNow, energy_lifetime_wh=lifetime_wh, source=source)
        case "gateway":
            own = answers.gateway_production
            if own is not None and not quirks.is_all_zero(
                own.wattHoursToday, own.wattHoursSevenDays, own.wattHoursLifetime
            ):
                lifetime_wh = own.wattHoursLifetime or None
                return Production(timestamp=moment, power_w=own.wattsNow, energy_lifetime_wh=lifetime_wh, source=source)
        case "inverters":
            count = _inverters(answers.production_json) if answers.production_json else None
            if count is not None and count.wNow is not None:
                lifetime_wh = None if quirks.inverters_sum_wraps(identity.version) else _counter(count.whLifetime)
                # At night it is 0: then they report nothing, and that is now.
                reported_at = min(count.readingTime or moment, moment)
                return Production(
                    timestamp=reported_at, power_w=count.wNow, energy_lifetime_wh=lifetime_wh, source=source
                )
    return None


def _counter(energy_wh: float | None) -> float | None:
    """Return a count of energy, which is not below zero."""
    return energy_wh if energy_wh is not None and energy_wh >= 0 else None


def _consumption(answers: Answers, metered: Metered, moment: int) -> Consumption | None:
    """Return production plus net-consumption, which is how the gateway comes by its total-consumption.

    Only where a house has transformers around its own load is total-consumption measured.
    """
    power_w: float | None
    if "production" in metered and "net-consumption" in metered:
        power_w = metered["production"][1].activePower + metered["net-consumption"][1].activePower
    elif "total-consumption" in metered:
        power_w = metered["total-consumption"][1].activePower
    else:
        power_w = _counted_consumption_w(answers)
    if power_w is None:
        return None
    lifetime_wh = _consumption_lifetime_wh(answers, metered)
    return Consumption(timestamp=moment, power_w=round(power_w, MILLIWATTS), energy_lifetime_wh=lifetime_wh)


def _counted_consumption_w(answers: Answers) -> float | None:
    total, net, production = _total_consumption(answers), _net_consumption(answers), _counted_production(answers)
    if total is None or total.wNow is None:
        return None
    if net is None or total.wNow != net.wNow:
        return total.wNow
    if production is None or production.wNow is None:
        # Net plus nothing: the gateway knows of no production, and the roof may well have some.
        return None
    return net.wNow + production.wNow if quirks.total_is_net(total.whLifetime, net.whLifetime) else total.wNow


def _consumption_lifetime_wh(answers: Answers, metered: Metered) -> float | None:
    """Return the count of the consumption: total-consumption, or what it should be where net stands in its place.

    Where it has transformers of its own, it is net-consumption that is computed, and both may be equal rightly.
    """
    total, net, production = _total_consumption(answers), _net_consumption(answers), _counted_production(answers)
    own = metered.get("total-consumption")
    if total is None:
        return own[1].actEnergyDlvd if own else None
    if own is not None or net is None or not quirks.total_is_net(total.whLifetime, net.whLifetime):
        return _counter(total.whLifetime)
    produced_wh = production.whLifetime if production is not None else None
    if produced_wh is None and "production" in metered:
        produced_wh = metered["production"][1].actEnergyDlvd
    if produced_wh is None or net.whLifetime is None:
        return None
    return _counter(round(net.whLifetime + produced_wh, MILLIWATTS))


def _grid(answers: Answers, metered: Metered, moment: int) -> Grid | None:
    """Return what crosses the grid connection.

    The lifetime of net-consumption in ``/production.json`` is import less export, or import alone (fixture 4.10.35), so
    neither is taken from there.
    """
    if "net-consumption" in metered:
        _, net = metered["net-consumption"]
        power_w, imported_wh, exported_wh = net.activePower, net.actEnergyDlvd, net.actEnergyRcvd
    else:
        count = _net_consumption(answers)
        if count is None or count.wNow is None or _net_is_a_guess(metered):
            return None
        power_w, imported_wh, exported_wh = count.wNow, None, None
    return Grid(
        timestamp=moment,
        power_w=power_w,
        import_power_w=max(power_w, 0.0),
        export_power_w=max(-power_w, 0.0),
        import_lifetime_wh=imported_wh,
        export_lifetime_wh=exported_wh,
    )


def _net_is_a_guess(metered: Metered) -> bool:
    """Return whether net-consumption is total-consumption less a production that nobody meters."""
    return "total-consumption" in metered and "production" not in metered


def _energy(answers: Answers, metered: Metered, source: ProductionSource | None, moment: int) -> Energy | None:
    """Return the energies of the day and the week, as far as the source of the production counts them rightly."""
    made: tuple[float | None, float | None] = (None, None)
    count, own = _counted_production(answers), answers.gateway_production
    if source == "meter" and count is not None:
        made = _day_and_week(count.whToday, count.whLastSevenDays, count.whLifetime)
    elif source == "meter" and (mirror := _count_beside_the_meter(answers, metered)) is not None:
        made = _day_and_week(mirror.wattHoursToday, mirror.wattHoursSevenDays, mirror.wattHoursLifetime)
    elif source == "gateway" and own is not None:
        made = _day_and_week(own.wattHoursToday, own.wattHoursSevenDays, own.wattHoursLifetime)
    elif source == "inverters" and answers.pdm_energy is not None and answers.pdm_energy.production.pcu is not None:
        pcu = answers.pdm_energy.production.pcu
        made = _day_and_week(pcu.wattHoursToday, pcu.wattHoursSevenDays, pcu.wattHoursLifetime)
    used: tuple[float | None, float | None] = (None, None)
    if (total := _total_consumption(answers)) is not None:
        used = _day_and_week(total.whToday, total.whLastSevenDays, total.whLifetime)
    if not any(energy is not None for energy in (*made, *used)):
        return None
    return Energy(
        timestamp=moment,
        production_today_wh=made[0],
        production_last_7_days_wh=made[1],
        consumption_today_wh=used[0],
        consumption_last_7_days_wh=used[1],
    )


def _day_and_week(
    today_wh: float | None, last_7_days_wh: float | None, lifetime_wh: float | None
) -> tuple[float | None, float | None]:
    """Return the energies of today and of the seven days before, None for each that is known to be wrong."""
    if quirks.counts_nothing(today_wh, last_7_days_wh, lifetime_wh):
        return None, None
    if today_wh is not None and quirks.counts_the_lifetime(today_wh, lifetime_wh):
        today_wh = None
    if last_7_days_wh is not None and (
        quirks.counts_the_lifetime(last_7_days_wh, lifetime_wh)
        or quirks.last_7_days_are_wrong(last_7_days_wh, today_wh, lifetime_wh)
    ):
        last_7_days_wh = None
    return today_wh, last_7_days_wh


def _lost_phase(identity: Identity, storage: tuple[MeterDetails, MeterReading] | None) -> int | None:
    """Return which phase of the storage meter is missing in its total, counted from 0."""
    if storage is None or storage[0].phaseMode != "split":
        return None
    details, reading = storage
    channels = (reading.channels or ())[: details.phaseCount]
    energies_wh = [(each.actEnergyDlvd, each.actEnergyRcvd) for each in (reading, *channels) if each is not None]
    return quirks.storage_lost_a_phase(identity.version, energies_wh)


def _meters(details: MeterDetails, reading: MeterReading, lost_phase: int | None, moment: int) -> Iterator[Reading]:
    """Yield a meter's reading and, where there are several, its phases'.

    Channels beyond ``phaseCount`` are not the meter's: they are zero or repeat another's (fixture 8.2.4286).
    """
    name = details.measurementType
    if name != "storage":
        lost_phase = None
    if lost_phase is None:
        yield Meter(type=name, timestamp=moment, **_values(reading))
    if details.phaseCount > 1:
        for phase, channel in enumerate((reading.channels or ())[: details.phaseCount]):
            if channel is not None and phase != lost_phase:
                yield MeterPhase(type=name, phase=phase + 1, timestamp=moment, **_values(channel))


def _values(values: MeterValues) -> dict[str, float | None]:
    return {
        "active_power_w": values.activePower,
        "apparent_power_va": values.apparentPower,
        "reactive_power_var": values.reactivePower,
        "power_factor": values.pwrFactor,
        "voltage_v": values.voltage,
        "current_a": values.current,
        "frequency_hz": None if quirks.frequency_is_missing(values.freq) else values.freq,
        "energy_delivered_wh": values.actEnergyDlvd,
        "energy_received_wh": values.actEnergyRcvd,
    }
