"""What a household draws over a day: a base, the fridge, morning, noon and evening, the kettle, the washing."""

import math
import random

from services.simulator.weather import smooth

BASE_W = 140.0
_FRIDGE_W = 85.0
_KETTLE_W = 2050.0
_KETTLE_LIKELY = 0.75
_KETTLE_HOURS = (7.0, 7.4, 9.8, 12.6, 15.8, 18.6, 19.2, 21.3)
# Hour, width in hours, height in watts.
_HABITS = ((7.2, 0.8, 330.0), (12.4, 0.7, 260.0), (19.4, 1.6, 620.0))
_HABIT_STEP_MINUTES = 10
_QUIET_AROUND_MIDNIGHT_MINUTES = 20


def _habits_w(chance: random.Random, count: int) -> list[float]:
    """Return the slow part: three humps, a little later or stronger each day, with some unrest in them."""
    humps = [
        (chance.gauss(hour, 0.35), width * chance.uniform(0.8, 1.3), height * chance.uniform(0.6, 1.4))
        for hour, width, height in _HABITS
    ]
    knots = []
    for knot in range(count // _HABIT_STEP_MINUTES + 2):
        hour = knot * _HABIT_STEP_MINUTES / 60
        hump_w = sum(height * math.exp(-(((hour - middle) / width) ** 2)) for middle, width, height in humps)
        knots.append((hump_w + 60) * chance.uniform(0.75, 1.25))
    return smooth(knots, _HABIT_STEP_MINUTES, count)


def _add(load_w: list[float], start: int, minutes: int, power_w: float) -> None:
    for minute in range(start, min(start + minutes, len(load_w))):
        load_w[minute] += power_w


def load_w(seed: str, minutes: int) -> list[float]:
    """Return the load in watts, one value a minute; a day begins and ends at the base, so that days join."""
    chance = random.Random(f"{seed} household")  # noqa: S311 - a made-up household, not a secret
    count = minutes + 1
    load = _habits_w(chance, count)
    minute = chance.randint(0, 30)
    while minute < minutes:
        _add(load, minute, chance.randint(14, 20), _FRIDGE_W)
        minute += chance.randint(42, 58)
    for middle_hour in _KETTLE_HOURS:
        if chance.random() < _KETTLE_LIKELY:
            _add(load, int(60 * chance.gauss(middle_hour, 0.6)), chance.randint(2, 4), _KETTLE_W)
    for _ in range(chance.choice((0, 1, 1, 2))):
        start = 60 * chance.randint(8, 19)
        _add(load, start, chance.randint(20, 35), chance.uniform(1500, 2100))
        _add(load, start + 40, 45, chance.uniform(150, 320))
    quiet = _QUIET_AROUND_MIDNIGHT_MINUTES
    for i in range(quiet):
        load[i] *= i / quiet
        load[-1 - i] *= i / quiet
    return [BASE_W + extra_w for extra_w in load]
