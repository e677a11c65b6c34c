"""What the current transformers measure: power, voltage, current and counters of each phase."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.simulator.day import LOAD_FRACTIONS, Power
from services.simulator.energy import Energy

INVERTER_VAR_PER_W = 0.02
INVERTER_IDLE_VAR = 1.5
LOAD_VAR_PER_W = 0.1
LOAD_IDLE_VAR = 60.0
NOMINAL = {1: (230.0, 50.0), 2: (120.0, 60.0), 3: (230.0, 50.0)}
"""Volts and hertz by the number of phases; two phases are the two legs of North America."""


@dataclass(frozen=True)
class Line:
    """One phase of a meter, or the sum of its phases; power towards the switchboard is positive."""

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
        """The active power divided by the apparent, with the sign of the active."""
        return self.active_w / self.apparent_va if self.apparent_va else 0.0


@dataclass(frozen=True)
class Meter:
    """One meter and its phases."""

    kind: str
    lines: tuple[Line, ...]

    @property
    def total(self) -> Line:
        """The sum of the phases, also of voltage and current, as the gateway computes it from rounded values."""
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
    """Return the grid's frequency, which varies around its nominal value."""
    return NOMINAL[phases][1] + 0.015 * math.sin(time / 97) + 0.01 * math.sin(time / 13.3)


def voltage_v(phases: int, phase: int, time: int, net_w: float) -> float:
    """Return a phase's voltage: it varies, rises with export and falls with import."""
    nominal = NOMINAL[phases][0]
    return (
        nominal * (1 + 0.004 * math.sin(time / 1700 + 2 * phase) + 0.001 * math.sin(time / 41 + phase)) - net_w * 4e-4
    )


def _measure_line(active_w: float, reactive_var: float, volts: float, hertz: float, counters: Sequence[float]) -> Line:
    """Return what a phase measures, rounded as the gateway does.

    Args:
        active_w: active power.
        reactive_var: reactive power.
        volts: voltage.
        hertz: frequency.
        counters: delivered and received Wh, lagging and leading varh, and the hours in which they were counted.
    """
    apparent_va = math.hypot(active_w, reactive_var)
    delivered, received, lagging, leading, hours = counters
    # The exact counter would need an integral of its own; this one is close, and never decreases.
    apparent_vah = (delivered + received) * 1.02 + 0.1 * (lagging + leading) + hours
    values = (active_w, reactive_var, apparent_va, volts, apparent_va / volts, hertz)
    return Line(*(round(value, 3) for value in (*values, delivered, received, lagging, leading, apparent_vah)))


def read_meters(power: Power, energy: Energy, hours: float, time: int, *, battery: bool) -> list[Meter]:
    """Return the production, net-consumption and, with a battery, storage meters.

    Args:
        power: of the house, now.
        energy: the house's counters over a time.
        hours: the length of that time, for what is counted without load.
        time: epoch seconds, for voltage and frequency.
        battery: whether there is a storage meter.
    """
    phases = len(power.net_w)
    hertz = frequency_hz(phases, time)
    volts = [voltage_v(phases, phase, time, net_w) for phase, net_w in enumerate(power.net_w)]
    production_w, battery_w = power.production_w / phases, power.battery_w / phases
    production, net, storage = [], [], []
    for phase, fraction in enumerate(LOAD_FRACTIONS[phases]):
        idle_var = INVERTER_IDLE_VAR / phases
        lagging = (energy.produced_wh * INVERTER_VAR_PER_W / phases) + idle_var * hours
        counters = (energy.produced_wh / phases, energy.standby_wh / phases, lagging, 0.0, hours)
        reactive_var = max(0.0, production_w) * INVERTER_VAR_PER_W + idle_var
        production.append(_measure_line(production_w, reactive_var, volts[phase], hertz, counters))

        leading = fraction * (energy.load_wh * LOAD_VAR_PER_W + LOAD_IDLE_VAR * hours)
        counters = (energy.imported_wh[phase], energy.exported_wh[phase], 0.0, leading, hours)
        reactive_var = -fraction * (power.load_w * LOAD_VAR_PER_W + LOAD_IDLE_VAR)
        net.append(_measure_line(power.net_w[phase], reactive_var, volts[phase], hertz, counters))

        counters = (energy.discharged_wh / phases, energy.charged_wh / phases, 0.0, 0.0, hours)
        storage.append(_measure_line(battery_w, 0.0, volts[phase], hertz, counters))
    meters = [Meter("production", tuple(production)), Meter("net-consumption", tuple(net))]
    return [*meters, Meter("storage", tuple(storage))] if battery else meters
