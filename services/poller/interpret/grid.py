"""Grid: the power at the grid connection, with import and export counted separately."""

from collections.abc import Set as AbstractSet

from services.poller.snapshot import NET_CONSUMPTION, PRODUCTION, TOTAL_CONSUMPTION, SiteView
from shared.readings import Grid


def interpret_grid(view: SiteView) -> Grid | None:
    """Return what crosses the grid connection; None where it is not measured.

    The lifetime of net-consumption in ``/production.json`` is import minus export, or import alone (fixture 4.10.35),
    so neither counter is taken from there.
    """
    imported_wh: float | None = None
    exported_wh: float | None = None
    if (meter := view.meter(NET_CONSUMPTION)) is not None:
        power_w, imported_wh, exported_wh = meter.activePower, meter.actEnergyDlvd, meter.actEnergyRcvd
    else:
        counter = view.counter(NET_CONSUMPTION)
        if counter is None or counter.wNow is None or net_is_computed(view.meters.keys()):
            return None
        power_w = counter.wNow
    return Grid(
        timestamp=view.moment,
        power_w=power_w,
        import_power_w=max(power_w, 0.0),
        export_power_w=max(-power_w, 0.0),
        import_lifetime_wh=imported_wh,
        export_lifetime_wh=exported_wh,
    )


def net_is_computed(measured_types: AbstractSet[str]) -> bool:
    """Return whether net-consumption is total-consumption minus a production that is not measured."""
    return TOTAL_CONSUMPTION in measured_types and PRODUCTION not in measured_types
