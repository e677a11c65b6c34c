"""Production: which of the counters of the same energy is used, and its reading."""

from services.poller.endpoints import GATEWAY_PRODUCTION
from services.poller.interpret import quirks
from services.poller.models import GatewayProduction
from services.poller.snapshot import PRODUCTION, ProductionSource, SiteView
from shared.readings import Production


def find_production_source(view: SiteView) -> ProductionSource | None:
    """Return the best source that responded: the meter, else the gateway's own counter, else the inverters' sum.

    The order is pyenphase's (pyenphase/pyenphase, src/pyenphase/updaters). A meter that is enabled is used also while
    ``/production.json`` reports it as inactive, as 8.3.5528 does now and then (pyenphase#480).
    """
    if view.meter(PRODUCTION) is not None or view.counter(PRODUCTION) is not None:
        return "meter"
    own = view.snapshot.get(GATEWAY_PRODUCTION)
    if own is not None and _counts(own, view):
        return "gateway"
    return "inverters" if view.inverters_sum is not None else None


def interpret_production(view: SiteView) -> Production | None:
    """Return what the inverters produce, from the source that is held."""
    match view.site.production_source:
        case "meter":
            return _from_meter(view)
        case "gateway":
            return _from_gateway(view)
        case "inverters":
            return _from_inverters(view)
    return None


def _counts(own: GatewayProduction, view: SiteView) -> bool:
    """Return whether the gateway's own counter is reliable."""
    identity, inverters_sum = view.site.identity, view.inverters_sum
    return not (
        _is_all_zero(own)
        or quirks.counter_stalls_without_meters(
            identity.version,
            metered_hardware=identity.metered_hardware,
            meters_enabled=bool(view.site.enabled_meters),
        )
        or quirks.is_below_inverters_sum(own.wattHoursLifetime, inverters_sum.whLifetime if inverters_sum else None)
    )


def _is_all_zero(own: GatewayProduction) -> bool:
    return quirks.is_all_zero(own.wattHoursToday, own.wattHoursSevenDays, own.wattHoursLifetime)


def _from_meter(view: SiteView) -> Production | None:
    if (meter := view.meter(PRODUCTION)) is not None:
        power_w, lifetime_wh = meter.activePower, meter.actEnergyDlvd
    elif (counter := view.counter(PRODUCTION)) is not None and counter.wNow is not None:
        power_w, lifetime_wh = counter.wNow, counter.whLifetime
    else:
        return None
    return Production(
        timestamp=view.moment, power_w=power_w, energy_lifetime_wh=_not_negative(lifetime_wh), source="meter"
    )


def _from_gateway(view: SiteView) -> Production | None:
    own = view.snapshot.get(GATEWAY_PRODUCTION)
    if own is None or _is_all_zero(own):
        return None
    return Production(
        timestamp=view.moment,
        power_w=own.wattsNow,
        energy_lifetime_wh=own.wattHoursLifetime or None,
        source="gateway",
    )


def _from_inverters(view: SiteView) -> Production | None:
    inverters_sum = view.inverters_sum
    if inverters_sum is None or inverters_sum.wNow is None:
        return None
    wraps = quirks.inverters_sum_wraps(view.site.identity.version)
    return Production(
        # The time of the report is 0 at night, when no inverter reports: the sum is then that of now.
        timestamp=min(inverters_sum.readingTime or view.moment, view.moment),
        power_w=inverters_sum.wNow,
        energy_lifetime_wh=None if wraps else _not_negative(inverters_sum.whLifetime),
        source="inverters",
    )


def _not_negative(energy_wh: float | None) -> float | None:
    """Return a counter, or None where it is negative and therefore not one."""
    return energy_wh if energy_wh is not None and energy_wh >= 0 else None
