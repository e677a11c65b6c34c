"""Consumption: production plus net-consumption, or what transformers around the load measure."""

from services.poller.interpret import quirks
from services.poller.snapshot import NET_CONSUMPTION, PRODUCTION, TOTAL_CONSUMPTION, SiteView
from shared.readings import Consumption

DECIMALS = 3
"""A gateway's values have three; a sum of floats has more."""


def interpret_consumption(view: SiteView) -> Consumption | None:
    """Return what the house uses; None where it is not measured."""
    power_w = _power_w(view)
    if power_w is None:
        return None
    return Consumption(timestamp=view.moment, power_w=round(power_w, DECIMALS), energy_lifetime_wh=_lifetime_wh(view))


def _power_w(view: SiteView) -> float | None:
    """Return production plus net-consumption of one response, which is how the gateway computes its total.

    Only where transformers are fitted around the load is total-consumption measured itself.
    """
    production, net = view.meter(PRODUCTION), view.meter(NET_CONSUMPTION)
    if production is not None and net is not None:
        return production.activePower + net.activePower
    if (total := view.meter(TOTAL_CONSUMPTION)) is not None:
        return total.activePower
    return _counted_power_w(view)


def _counted_power_w(view: SiteView) -> float | None:
    """Return the same from ``/production.json``."""
    total, net, production = (view.counter(kind) for kind in (TOTAL_CONSUMPTION, NET_CONSUMPTION, PRODUCTION))
    if total is None or total.wNow is None:
        return None
    if net is None or total.wNow != net.wNow:
        return total.wNow
    if production is None or production.wNow is None:
        # The total is net plus nothing: the gateway does not measure the production, and there may well be some.
        return None
    return net.wNow + production.wNow if quirks.total_equals_net(total.whLifetime, net.whLifetime) else total.wNow


def _lifetime_wh(view: SiteView) -> float | None:
    """Return the counter of total-consumption, or what it should be where it is a copy of net-consumption.

    Where transformers are fitted around the load, net-consumption is the computed one, and both may rightly be equal.
    """
    measured, total, net = view.meter(TOTAL_CONSUMPTION), view.counter(TOTAL_CONSUMPTION), view.counter(NET_CONSUMPTION)
    if total is None:
        return measured.actEnergyDlvd if measured is not None else None
    lifetime_wh = total.whLifetime
    if measured is None and net is not None and quirks.total_equals_net(total.whLifetime, net.whLifetime):
        produced_wh = _produced_wh(view)
        if produced_wh is None or net.whLifetime is None:
            return None
        lifetime_wh = round(net.whLifetime + produced_wh, DECIMALS)
    return lifetime_wh if lifetime_wh is not None and lifetime_wh >= 0 else None


def _produced_wh(view: SiteView) -> float | None:
    counter, meter = view.counter(PRODUCTION), view.meter(PRODUCTION)
    if counter is not None and counter.whLifetime is not None:
        return counter.whLifetime
    return meter.actEnergyDlvd if meter is not None else None
