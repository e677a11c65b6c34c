"""All readings of a poll. A new kind is one interpreter here."""

from services.poller.interpret.battery import interpret_batteries
from services.poller.interpret.consumption import interpret_consumption
from services.poller.interpret.energy import interpret_energy
from services.poller.interpret.grid import interpret_grid
from services.poller.interpret.inverters import interpret_inverters
from services.poller.interpret.meters import interpret_meters
from services.poller.interpret.production import interpret_production
from services.poller.snapshot import SiteView
from shared.readings import Reading


def interpret(view: SiteView) -> list[Reading]:
    """Return the readings of a poll, all with its time, except those that have a report's own time."""
    readings: tuple[Reading | None, ...] = (
        interpret_production(view),
        interpret_consumption(view),
        interpret_grid(view),
        interpret_energy(view),
        *interpret_batteries(view),
        *interpret_meters(view),
        *interpret_inverters(view),
    )
    return [reading for reading in readings if reading is not None]
