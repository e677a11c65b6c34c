"""A battery that charges from the surplus of the house and discharges to cover its load."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.simulator.curve import areas

CHARGING_EFFICIENCY = 0.95
RESERVE_FRACTION = 0.05
FOLLOWED_FRACTION = 0.98
"""A real battery compensates slightly less than the surplus or load."""
TAPER_H = 0.2
"""Near full and empty the power is limited to what reaches the limit in this time, so that it is never crossed."""


@dataclass(frozen=True)
class Battery:
    """The battery's limits; both are zero for a house without one."""

    capacity_wh: float
    power_w: float

    @property
    def reserve_wh(self) -> float:
        """The energy below which it does not discharge."""
        return self.capacity_wh * RESERVE_FRACTION


def simulate_battery(
    battery: Battery, surplus_w: Sequence[float], stored_wh: float, step_h: float
) -> tuple[list[float], list[float]]:
    """Return the battery's power (W, positive when it discharges) and stored energy (Wh) at each step of a day.

    Args:
        battery: its limits.
        surplus_w: production minus load, at each step.
        stored_wh: the energy stored at the start.
        step_h: the time between two steps, in hours.
    """
    powers_w: list[float] = []
    energies_wh: list[float] = []
    full_wh, reserve_wh, limit_w = battery.capacity_wh, battery.reserve_wh, battery.power_w
    previous_w = 0.0
    for surplus in surplus_w:
        power_w = -surplus * FOLLOWED_FRACTION
        if power_w > 0:
            power_w = min(power_w, limit_w, (stored_wh - reserve_wh) / TAPER_H)
        else:
            power_w = max(power_w, -limit_w, (stored_wh - full_wh) / TAPER_H)
        if powers_w:
            discharged_wh, charged_wh = areas(previous_w, power_w, step_h)
            stored_wh += charged_wh * CHARGING_EFFICIENCY - discharged_wh
        powers_w.append(power_w)
        energies_wh.append(stored_wh)
        previous_w = power_w
    return powers_w, energies_wh
