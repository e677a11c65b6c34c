"""A quantity over a day: linear between values at equal steps, with exact integrals."""

from array import array
from collections import deque
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate, pairwise


def areas(start: float, end: float, duration: float) -> tuple[float, float]:
    """Return the areas above and below zero, both positive, under a straight line from ``start`` to ``end``."""
    if start >= 0 <= end:
        return (start + end) / 2 * duration, 0.0
    if start <= 0 >= end:
        return 0.0, -(start + end) / 2 * duration
    crossing = start / (start - end) * duration
    if start > 0:
        return start / 2 * crossing, -end / 2 * (duration - crossing)
    return end / 2 * (duration - crossing), -start / 2 * crossing


class Curve:
    """Values at equal steps; a point is the number of a step and the fraction of the way to the next."""

    def __init__(self, values: Iterable[float], step_h: float) -> None:
        """Prepare.

        Args:
            values: one for each step.
            step_h: the time between two steps, in hours.
        """
        self.values = array("d", values)
        self._step_h = step_h

    def at(self, step: int, fraction: float) -> float:
        """Return the value at a point."""
        if not fraction:
            return self.values[step]
        return self.values[step] + (self.values[step + 1] - self.values[step]) * fraction

    def areas(self, step: int, fraction: float) -> tuple[float, float]:
        """Return the areas above and below zero from the start to a point."""
        above, below = (cumulative[step] for cumulative in self._cumulative)
        if fraction:
            more, less = areas(self.values[step], self.at(step, fraction), fraction * self._step_h)
            above, below = above + more, below + less
        return above, below

    def total_areas(self) -> tuple[float, float]:
        """Return the areas above and below zero of the whole curve, without keeping the sums between."""
        above, below = (deque(accumulate(areas_), maxlen=1).pop() for areas_ in self._step_areas())
        return above, below

    @cached_property
    def _cumulative(self) -> tuple["array[float]", "array[float]"]:
        above, below = self._step_areas()
        return array("d", accumulate(above, initial=0.0)), array("d", accumulate(below, initial=0.0))

    def _step_areas(self) -> tuple[list[float], list[float]]:
        """Return the areas of each step; optimized, because it runs for every day since the commissioning."""
        half_step_h = self._step_h / 2
        both = [(left + right) * half_step_h for left, right in pairwise(self.values)]
        if min(self.values) >= 0:
            return both, [0.0] * len(both)
        above = [
            area if left >= 0 <= right else 0.0 if left <= 0 >= right else areas(left, right, self._step_h)[0]
            for area, (left, right) in zip(both, pairwise(self.values), strict=True)
        ]
        return above, [more - area for more, area in zip(above, both, strict=True)]
