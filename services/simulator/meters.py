"""What the current transformers see: power, voltage, current and counters of each phase, from the house's flows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.simulator.day import LOAD_SHARES, Power
from services.simulator.energy import Energy

_INVERTER_VAR_PER_W = 0.02
_INVERTER_IDLE_VAR = 1.5
_LOAD_VAR_PER_W = 0.1
_LOAD_IDLE_VAR = 60.0
_NOMINAL = {1: (230.0, 50.0), 2: (120.0, 60.0), 3: (230.0, 50.0)}
"""Volts and hertz by the number of phases; two phases are the two legs of North America."""


@dataclass(frozen=True)
class Line:
    """One phase at one meter, or the sum of a meter's phases; positive power flows towards the switchboard."""

    active_w: float
    reactive_var: float
    apparent_va: float
    voltage_v: float
    current_a: float
    frequency_hz: float
    delivered_wh: float
    received_wh: float
    lagging_varh: float
    leading_varh: float
    apparent_vah: float

    @property
    def power_factor(self) -> float:
        """Return active over apparent power, with the sign of the active power."""
        return self.active_w / self.apparent_va if self.apparent_va else 0.0


@dataclass(frozen=True)
class Meter:
    """One meter: its phases, and their sum (voltage and current are sums too, as the gateway gives them)."""

    kind: str
    lines: tuple[Line, ...]

    @property
    def total(self) -> Line:
        """Return the sum of the phases; each value is rounded before, so that served values add up."""
        first = self.lines[0]
        if len(self.lines) == 1:
            return first
        return Line(
            sum(line.active_w for line in self.lines),
            sum(line.reactive_var for line in self.lines),
            sum(line.apparent_va for line in self.lines),
            sum(line.voltage_v for line in self.lines),
            sum(line.current_a for line in self.lines),
            first.frequency_hz,
            sum(line.delivered_wh for line in self.lines),
            sum(line.received_wh for line in self.lines),
            sum(line.lagging_varh for line in self.lines),
            sum(line.leading_varh for line in self.lines),
            sum(line.apparent_vah for line in self.lines),
        )


def frequency_hz(phases: int, time: int) -> float:
    """Return the grid's frequency, wandering a little around its nominal value."""
    return _NOMINAL[phases][1] + 0.015 * math.sin(time / 97) + 0.01 * math.sin(time / 13.3)


def voltage_v(phases: int, phase: int, time: int, net_w: float) -> float:
    """Return a phase's voltage: it wanders, rises with export and sags with import."""
    nominal = _NOMINAL[phases][0]
    return (
        nominal * (1 + 0.004 * math.sin(time / 1700 + 2 * phase) + 0.001 * math.sin(time / 41 + phase)) - net_w * 4e-4
    )


def _line(active_w: float, reactive_var: float, volts: float, hertz: float, energy: Sequence[float]) -> Line:
    apparent_va = math.hypot(active_w, reactive_var)
    delivered, received, lagging, leading, hours = energy
    # A counter of apparent energy would need its own integral; this one is close, and moves forward.
    apparent_vah = (delivered + received) * 1.02 + 0.1 * (lagging + leading) + hours
    values = (active_w, reactive_var, apparent_va, volts, apparent_va / volts, hertz)
    return Line(*(round(value, 3) for value in (*values, delivered, received, lagging, leading, apparent_vah)))


def read_meters(power: Power, energy: Energy, hours: float, time: int, *, battery: bool) -> list[Meter]:
    """Return the production, net-consumption and, with a battery, storage meters.

    Args:
        power: the house now.
        energy: its counters over some time.
        hours: the length of that time, for what flows all the time.
        time: the epoch second, for voltage and frequency.
        battery: whether there is a storage meter.
    """
    phases = len(power.net_w)
    hertz = frequency_hz(phases, time)
    volts = [voltage_v(phases, phase, time, net_w) for phase, net_w in enumerate(power.net_w)]
    made_w, given_w = power.production_w / phases, power.battery_w / phases
    production, net, storage = [], [], []
    for phase, share in enumerate(LOAD_SHARES[phases]):
        idle_var = _INVERTER_IDLE_VAR / phases
        lagging = (energy.produced_wh * _INVERTER_VAR_PER_W / phases) + idle_var * hours
        counters = (energy.produced_wh / phases, energy.drawn_wh / phases, lagging, 0.0, hours)
        reactive_var = max(0.0, made_w) * _INVERTER_VAR_PER_W + idle_var
        production.append(_line(made_w, reactive_var, volts[phase], hertz, counters))

        leading = share * (energy.load_wh * _LOAD_VAR_PER_W + _LOAD_IDLE_VAR * hours)
        counters = (energy.imported_wh[phase], energy.exported_wh[phase], 0.0, leading, hours)
        reactive_var = -share * (power.load_w * _LOAD_VAR_PER_W + _LOAD_IDLE_VAR)
        net.append(_line(power.net_w[phase], reactive_var, volts[phase], hertz, counters))

        counters = (energy.discharged_wh / phases, energy.charged_wh / phases, 0.0, 0.0, hours)
        storage.append(_line(given_w, 0.0, volts[phase], hertz, counters))
    meters = [Meter("production", tuple(production)), Meter("net-consumption", tuple(net))]
    return [*meters, Meter("storage", tuple(storage))] if battery else meters
