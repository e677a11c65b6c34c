"""Batteries: each IQ Battery, and all of a site together with its AC Batteries."""

from collections.abc import Iterator

from services.poller.endpoints import BATTERIES, BATTERY_POWER, BATTERY_TOTALS, PRODUCTION_JSON
from services.poller.interpret import quirks
from services.poller.interpret.meters import missing_storage_phase
from services.poller.models import BatteryDetails, BatteryPower, BatteryTotals, MeterReading, ProductionEntry
from services.poller.snapshot import STORAGE, SiteView, ac_batteries_of
from shared.readings import Batteries, Battery

DECIMALS = 3


def interpret_batteries(view: SiteView) -> Iterator[Batteries | Battery]:
    """Yield the reading of all batteries together, then each IQ Battery's."""
    if view.site.has_ac_batteries and view.snapshot.get(PRODUCTION_JSON) is None:
        # The totals of the IQ Batteries alone would pass for those of all.
        return
    details = {each.serial_num: each for each in view.snapshot.get(BATTERIES) or ()}
    response = view.snapshot.get(BATTERY_POWER)
    powers = {each.serial_num: each for each in response.devices} if response is not None else {}
    ac_batteries = _ac_batteries(view)
    storage = view.meter(STORAGE) if missing_storage_phase(view) is None else None
    if details or powers or ac_batteries or (storage is not None and not view.site.has_any_batteries):
        # Polls between two sweeps have no batteries' responses: a storage meter alone makes a reading only where there
        # are never any.
        power_w = _power_w(view, details, powers, storage, ac_batteries)
        yield _together(view, power_w, storage, ac_batteries)
    for serial in details | powers:
        yield _battery(serial, details.get(serial), powers.get(serial), view.moment)


def _battery(serial: str, details: BatteryDetails | None, power: BatteryPower | None, moment: int) -> Battery:
    charge_percent = power.soc if power is not None else None
    if charge_percent is None and details is not None:
        # The inventory's is older: 10 % where the power's and the totals' are 54 % (fixture 8.2.4382_ACB).
        charge_percent = details.percentFull
    return Battery(
        serial=serial,
        timestamp=moment,
        power_w=power.real_power_mw / 1000 if power is not None else None,
        charge_percent=charge_percent,
        temperature_c=details.temperature if details is not None else None,
        capacity_wh=details.encharge_capacity if details is not None else None,
    )


def _ac_batteries(view: SiteView) -> ProductionEntry | None:
    """Return the AC Batteries, if they are configured: without ``percentFull`` they are not (pyenphase, updaters)."""
    response = view.snapshot.get(PRODUCTION_JSON)
    entry = ac_batteries_of(response) if response is not None else None
    return entry if entry is not None and entry.percentFull is not None else None


def _together(
    view: SiteView, power_w: float | None, storage: MeterReading | None, ac_batteries: ProductionEntry | None
) -> Batteries:
    totals = view.snapshot.get(BATTERY_TOTALS) or BatteryTotals()
    charge_percent, capacity_wh = totals.ENC_agg_soc, totals.Enc_max_available_capacity
    available_wh = totals.ENC_agg_avail_energy
    if ac_batteries is not None:
        charge_percent, capacity_wh = totals.agg_soc, totals.Max_energy
        if available_wh is not None and totals.ACB_agg_energy is not None:
            available_wh += totals.ACB_agg_energy
        if view.snapshot.get(BATTERY_TOTALS) is None and not view.snapshot.get(BATTERIES):
            charge_percent, available_wh = ac_batteries.percentFull, ac_batteries.whNow
    if not capacity_wh:
        # A gateway that does not know the capacity reports zeros.
        charge_percent, available_wh, capacity_wh = (charge_percent or None), (available_wh or None), None
    return Batteries(
        timestamp=view.moment,
        power_w=power_w,
        charge_percent=charge_percent,
        available_energy_wh=available_wh,
        capacity_wh=capacity_wh,
        charge_lifetime_wh=storage.actEnergyRcvd if storage is not None else None,
        discharge_lifetime_wh=storage.actEnergyDlvd if storage is not None else None,
    )


def _power_w(
    view: SiteView,
    details: dict[str, BatteryDetails],
    powers: dict[str, BatteryPower],
    storage: MeterReading | None,
    ac_batteries: ProductionEntry | None,
) -> float | None:
    """Return the power of all batteries: the storage meter's, or their sum.

    An AC Battery with an old power is idle; it reports while it works.
    """
    if storage is not None:
        return storage.activePower
    if details.keys() - powers.keys():
        return None  # the sum of some would pass for the sum of all
    powers_w = [each.real_power_mw / 1000 for each in powers.values()]
    if (
        ac_batteries is not None
        and ac_batteries.wNow is not None
        and not quirks.is_stale(ac_batteries.readingTime, view.moment)
    ):
        sign = {"charging": -1, "discharging": 1}.get(ac_batteries.state or "")
        powers_w.append(sign * abs(ac_batteries.wNow) if sign else ac_batteries.wNow)
    return round(sum(powers_w), DECIMALS) if powers_w else None
