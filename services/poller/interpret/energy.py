"""Energy: the gateway's own counters of the day and of the last seven days, where they are right."""

from typing import NamedTuple, Self

from services.poller.endpoints import GATEWAY_PRODUCTION, PDM_ENERGY
from services.poller.interpret import quirks
from services.poller.models import GatewayProduction, PdmEnergyCounter, ProductionEntry
from services.poller.snapshot import PRODUCTION, TOTAL_CONSUMPTION, SiteView
from shared.readings import Energy


class _DayAndWeek(NamedTuple):
    """The energies of today and of the last seven days; None for each that is not counted or wrong."""

    today_wh: float | None = None
    last_7_days_wh: float | None = None

    @classmethod
    def of(cls, counter: ProductionEntry | GatewayProduction | PdmEnergyCounter | None) -> Self:
        """Return the energies of a counter."""
        match counter:
            case None:
                return cls()
            case ProductionEntry():
                return cls.checked(counter.whToday, counter.whLastSevenDays, counter.whLifetime)
            case _:
                return cls.checked(counter.wattHoursToday, counter.wattHoursSevenDays, counter.wattHoursLifetime)

    @classmethod
    def checked(cls, today_wh: float | None, last_7_days_wh: float | None, lifetime_wh: float | None) -> Self:
        """Return the energies without those that are known to be wrong."""
        if quirks.does_not_count(today_wh, last_7_days_wh, lifetime_wh):
            return cls()
        if today_wh is not None and quirks.equals_lifetime(today_wh, lifetime_wh):
            today_wh = None
        if last_7_days_wh is not None and (
            quirks.equals_lifetime(last_7_days_wh, lifetime_wh)
            or quirks.last_7_days_are_wrong(last_7_days_wh, today_wh, lifetime_wh)
        ):
            last_7_days_wh = None
        return cls(today_wh, last_7_days_wh)


def interpret_energy(view: SiteView) -> Energy | None:
    """Return the energies of the day and the week, of the same source as the production; None if there are none."""
    produced = _DayAndWeek.of(_production_counter(view))
    consumed = _DayAndWeek.of(view.counter(TOTAL_CONSUMPTION))
    if all(energy_wh is None for energy_wh in (*produced, *consumed)):
        return None
    return Energy(
        timestamp=view.moment,
        production_today_wh=produced.today_wh,
        production_last_7_days_wh=produced.last_7_days_wh,
        consumption_today_wh=consumed.today_wh,
        consumption_last_7_days_wh=consumed.last_7_days_wh,
    )


def _production_counter(view: SiteView) -> ProductionEntry | GatewayProduction | PdmEnergyCounter | None:
    match view.site.production_source:
        case "meter":
            return view.counter(PRODUCTION) or _copy_of_meter(view)
        case "gateway":
            return view.snapshot.get(GATEWAY_PRODUCTION)
        case "inverters":
            pdm_energy = view.snapshot.get(PDM_ENERGY)
            return pdm_energy.production.pcu if pdm_energy is not None else None
    return None


def _copy_of_meter(view: SiteView) -> GatewayProduction | None:
    """Return the gateway's own counter where ``/production.json`` never responds and it counts what the meter does.

    With transformers fitted it is a copy of the meter, but not on 8.3.5433, where it has two thirds of the energy.
    """
    own, meter = view.snapshot.get(GATEWAY_PRODUCTION), view.meter(PRODUCTION)
    if view.site.production_json is not None or own is None or meter is None:
        return None
    return own if quirks.matches_meter(own.wattHoursLifetime, meter.actEnergyDlvd) else None
