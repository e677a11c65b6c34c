"""The load of a household over a day: base load, fridge, daily peaks, kettle and washing machine."""

import math
import random

from services.simulator.weather import smooth

BASE_W = 140.0
FRIDGE_W = 85.0
KETTLE_W = 2050.0
KETTLE_PROBABILITY = 0.75
KETTLE_HOURS = (7.0, 7.4, 9.8, 12.6, 15.8, 18.6, 19.2, 21.3)
PEAKS = ((7.2, 0.8, 330.0), (12.4, 0.7, 260.0), (19.4, 1.6, 620.0))
"""Hour, width in hours, and height in watts."""
PEAK_STEP_MINUTES = 10
FADE_MINUTES = 20
"""Around midnight the load fades to the base load, so that days join without a step."""


def load_w(seed: str, minutes: int) -> list[float]:
    """Return the load in watts, one value a minute."""
    rng = random.Random(f"{seed} household")  # noqa: S311 - reproducible load, not a secret
    count = minutes + 1
    load = _daily_peaks_w(rng, count)
    minute = rng.randint(0, 30)
    while minute < minutes:
        _add_load(load, minute, rng.randint(14, 20), FRIDGE_W)
        minute += rng.randint(42, 58)
    for mean_hour in KETTLE_HOURS:
        if rng.random() < KETTLE_PROBABILITY:
            _add_load(load, int(60 * rng.gauss(mean_hour, 0.6)), rng.randint(2, 4), KETTLE_W)
    for _ in range(rng.choice((0, 1, 1, 2))):
        start = 60 * rng.randint(8, 19)
        _add_load(load, start, rng.randint(20, 35), rng.uniform(1500, 2100))
        _add_load(load, start + 40, 45, rng.uniform(150, 320))
    for i in range(FADE_MINUTES):
        load[i] *= i / FADE_MINUTES
        load[-1 - i] *= i / FADE_MINUTES
    return [BASE_W + above_base_w for above_base_w in load]


def _daily_peaks_w(rng: random.Random, count: int) -> list[float]:
    """Return the morning, noon and evening peaks with noise; time, width and height vary from day to day."""
    peaks = [
        (rng.gauss(hour, 0.35), width * rng.uniform(0.8, 1.3), height * rng.uniform(0.6, 1.4))
        for hour, width, height in PEAKS
    ]
    knots = []
    for knot in range(count // PEAK_STEP_MINUTES + 2):
        hour = knot * PEAK_STEP_MINUTES / 60
        peak_w = sum(height * math.exp(-(((hour - middle) / width) ** 2)) for middle, width, height in peaks)
        knots.append((peak_w + 60) * rng.uniform(0.75, 1.25))
    return smooth(knots, PEAK_STEP_MINUTES, count)


def _add_load(load: list[float], start: int, minutes: int, power_w: float) -> None:
    """Add an appliance's power to the minutes in which it runs."""
    for minute in range(start, min(start + minutes, len(load))):
        load[minute] += power_w
