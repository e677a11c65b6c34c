"""The readings of the batteries: IQ Batteries one by one, and all of a site with its AC Batteries together."""

from collections.abc import Iterator

from services.poller import quirks
from services.poller.answers import Answers, BatteryTotals, Counted, MeterReading
from shared.readings import Batteries, Battery

MILLIWATTS = 3


def battery_readings(answers: Answers, storage: MeterReading | None, moment: int) -> Iterator[Battery | Batteries]:
    """Yield the reading of all batteries and each one's, where the poll asked for them.

    Args:
        answers: what the gateway answered.
        storage: what the storage meter measures, where there is one and it is whole.
        moment: of the poll.
    """
    power = {each.serial_num: each for each in answers.battery_power.devices} if answers.battery_power else {}
    details = {each.serial_num: each for each in answers.batteries}
    acb = _ac_batteries(answers)
    asked = bool(power or details or acb)
    if asked or (storage is not None and not answers.batteries_answer):
        yield _together(answers, storage, acb, moment)
    for serial in details | power:
        own_power, own = power.get(serial), details.get(serial)
        charge_percent = own_power.soc if own_power else None
        if charge_percent is None and own:
            # The inventory's is older: 10 % where the power's and the totals' are 54 % (fixture 8.2.4382_ACB).
            charge_percent = own.percentFull
        yield Battery(
            serial=serial,
            timestamp=moment,
            power_w=own_power.real_power_mw / 1000 if own_power else None,
            charge_percent=charge_percent,
            temperature_c=own.temperature if own else None,
            capacity_wh=own.encharge_capacity if own else None,
        )


def _ac_batteries(answers: Answers) -> Counted | None:
    """Return what AC Batteries tell; without ``percentFull`` they are not configured (pyenphase, updaters)."""
    stored = answers.production_json.storage if answers.production_json else ()
    acb = (count for count in stored if count.type == "acb" and count.activeCount > 0)
    return next((count for count in acb if count.percentFull is not None), None)


def _together(answers: Answers, storage: MeterReading | None, acb: Counted | None, moment: int) -> Batteries:
    totals = answers.battery_totals or BatteryTotals()
    charge_percent, capacity_wh = totals.ENC_agg_soc, totals.Enc_max_available_capacity
    available_wh = totals.ENC_agg_avail_energy
    if acb is not None:
        charge_percent, capacity_wh = totals.agg_soc, totals.Max_energy
        if available_wh is not None and totals.ACB_agg_energy is not None:
            available_wh += totals.ACB_agg_energy
        if answers.battery_totals is None and not answers.batteries:
            charge_percent, available_wh = acb.percentFull, acb.whNow
    if not capacity_wh:
        # A capacity of nothing, of which nothing is charged, is what a gateway tells that does not know.
        charge_percent, available_wh, capacity_wh = (charge_percent or None), (available_wh or None), None
    return Batteries(
        timestamp=moment,
        power_w=_power_w(answers, storage, acb, moment),
        charge_percent=charge_percent,
        available_energy_wh=available_wh,
        capacity_wh=capacity_wh,
        charge_lifetime_wh=storage.actEnergyRcvd if storage else None,
        discharge_lifetime_wh=storage.actEnergyDlvd if storage else None,
    )


def _power_w(answers: Answers, storage: MeterReading | None, acb: Counted | None, moment: int) -> float | None:
    """Return the power of all batteries: as metered, or their sum.

    An AC Battery whose word is old stands still; it reports while it works.
    """
    if storage is not None:
        return storage.activePower
    powers = answers.battery_power.devices if answers.battery_power else ()
    if {each.serial_num for each in answers.batteries} - {each.serial_num for each in powers}:
        return None  # the sum of some would pass for the sum of all
    powers_w = [each.real_power_mw / 1000 for each in powers]
    if acb is not None and acb.wNow is not None and not quirks.is_stale(acb.readingTime, moment):
        sign = {"charging": -1, "discharging": 1}.get(acb.state or "")
        powers_w.append(sign * abs(acb.wNow) if sign else acb.wNow)
    return round(sum(powers_w), MILLIWATTS) if powers_w else None
