"""Clouds: the fraction of a clear sky's light that reaches the panels, smooth within a day, from a seed."""

import random
from itertools import pairwise

SKIES = {
    "clear": (0.02, 0.15, 0.22),
    "fair": (0.30, 0.60, 0.28),
    "broken": (0.60, 0.85, 0.28),
    "overcast": (0.75, 0.92, 0.22),
}
"""The minimum and maximum of the light that clouds absorb, and the probability of such a day."""
FRONT_INTERVAL_MINUTES = 120
MIN_CLOUD_INTERVAL_MINUTES, MAX_CLOUD_INTERVAL_MINUTES = 8, 45


def smooth(knots: list[float], step: int, count: int) -> list[float]:
    """Return ``count`` values through knots that are ``step`` values apart, interpolated without corners."""
    weights = [(i / step) ** 2 * (3 - 2 * i / step) for i in range(step)]
    values = [left + (right - left) * weight for left, right in pairwise(knots) for weight in weights]
    return values[:count]


def _random_curve(rng: random.Random, step: int, count: int) -> list[float]:
    """Return a smooth random curve in 0..1 with a knot every ``step`` values."""
    return smooth([rng.random() for _ in range(count // step + 2)], step, count)


def sky_transmission(seed: str, minutes: int) -> list[float]:
    """Return the fraction of light that is transmitted, in 0..1, one value a minute."""
    rng = random.Random(f"{seed} clouds")  # noqa: S311 - reproducible weather, not a secret
    sky = rng.choices(list(SKIES), weights=[probability for _, _, probability in SKIES.values()])[0]
    min_depth, max_depth, _ = SKIES[sky]
    depth = rng.uniform(min_depth, max_depth)
    count = minutes + 1
    fronts = _random_curve(rng, FRONT_INTERVAL_MINUTES, count)
    clouds = _random_curve(rng, rng.randint(MIN_CLOUD_INTERVAL_MINUTES, MAX_CLOUD_INTERVAL_MINUTES), count)
    if sky == "overcast":
        return [1 - depth * (0.8 + 0.2 * front) for front in fronts]
    return [1 - depth * (0.4 * front + 0.6 * cloud * cloud) for front, cloud in zip(fronts, clouds, strict=True)]
