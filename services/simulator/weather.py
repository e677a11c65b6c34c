"""Clouds: what share of a clear sky's light comes through, smooth within a day and seeded by it."""

import random
from itertools import pairwise

# How much of the light thick cloud takes, least and most, and how likely such a day is.
_SKIES = {
    "clear": (0.02, 0.15, 0.22),
    "fair": (0.30, 0.60, 0.28),
    "broken": (0.60, 0.85, 0.28),
    "overcast": (0.75, 0.92, 0.22),
}
_MOST_TIME_BETWEEN_CLOUDS_MINUTES = 45


def smooth(knots: list[float], step: int, count: int) -> list[float]:
    """Return `count` values that run through the knots, `step` values apart, without corners."""
    weights = [(i / step) ** 2 * (3 - 2 * i / step) for i in range(step)]
    values = [left + (right - left) * weight for left, right in pairwise(knots) for weight in weights]
    return values[:count]


def _knots(chance: random.Random, step: int, count: int) -> list[float]:
    return [chance.random() for _ in range(count // step + 2)]


def sky_transmission(seed: str, minutes: int) -> list[float]:
    """Return the share of light that comes through, one value a minute, each in 0..1."""
    chance = random.Random(f"{seed} clouds")  # noqa: S311 - a made-up sky, not a secret
    sky = chance.choices(list(_SKIES), weights=[weight for _, _, weight in _SKIES.values()])[0]
    least, most, _ = _SKIES[sky]
    depth = chance.uniform(least, most)
    count = minutes + 1
    fronts = smooth(_knots(chance, 120, count), 120, count)
    gap = chance.randint(8, _MOST_TIME_BETWEEN_CLOUDS_MINUTES)
    puffs = smooth(_knots(chance, gap, count), gap, count)
    if sky == "overcast":  # one even grey
        return [1 - depth * (0.8 + 0.2 * front) for front in fronts]
    return [1 - depth * (0.4 * front + 0.6 * puff * puff) for front, puff in zip(fronts, puffs, strict=True)]
