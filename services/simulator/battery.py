"""A battery that stores what the house has left over and gives it back when the house runs short."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.simulator.curve import areas

CHARGING_EFFICIENCY = 0.95
RESERVE_SHARE = 0.05
# A real one stays a little behind the load it follows.
_SHARE_FOLLOWED = 0.98
# Near its limits it slows down, and so reaches them without ever going beyond.
_SLOWING_H = 0.2


@dataclass(frozen=True)
class Battery:
    """What a battery can do; all zero where a house has none."""

    capacity_wh: float
    power_w: float

    @property
    def reserve_wh(self) -> float:
        """Return what it always keeps."""
        return self.capacity_wh * RESERVE_SHARE


def follow(
    battery: Battery, surplus_w: Sequence[float], stored_wh: float, step_h: float
) -> tuple[list[float], list[float]]:
    """Let the battery follow a house through a day.

    Args:
        battery: what it can do.
        surplus_w: production less load, at each step.
        stored_wh: what it holds at the start.
        step_h: the time between two steps, in hours.

    Returns:
        Its power at each step, in watts, positive when it discharges, and what it then holds, in watt-hours.
    """
    powers_w: list[float] = []
    stored: list[float] = []
    full_wh, reserve_wh, limit_w = battery.capacity_wh, battery.reserve_wh, battery.power_w
    before_w = 0.0
    for surplus in surplus_w:
        # Comparisons instead of min and max: this runs for every minute since the commissioning.
        power_w = -surplus * _SHARE_FOLLOWED
        if power_w > 0:
            max_w = (stored_wh - reserve_wh) / _SLOWING_H
            max_w = min(limit_w, max_w)
            power_w = min(max_w, power_w)
        else:
            min_w = (stored_wh - full_wh) / _SLOWING_H
            min_w = max(-limit_w, min_w)
            power_w = max(min_w, power_w)
        if powers_w:
            discharged_wh, charged_wh = areas(before_w, power_w, step_h)
            stored_wh += charged_wh * CHARGING_EFFICIENCY - discharged_wh
        powers_w.append(power_w)
        stored.append(stored_wh)
        before_w = power_w
    return powers_w, stored
