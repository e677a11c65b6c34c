"""Batches that Carbon has read and may not have written yet: kept until they are on disk, to be resent if necessary.

A batch's age counts from when Carbon last read it, and it settles only while Carbon is known to run: after a long
outage a batch that was read just before is still unsettled.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.carbon_sink.points import Point
from shared.messages import Receipt


@dataclass(slots=True)
class Batch:
    """Points that are sent together, and the journal rows that they come from."""

    points: list[Point] = field(default_factory=list)
    rows: list[tuple[str, int]] = field(default_factory=list)
    """Journal and row number of each reading whose publisher keeps a journal."""

    read_at: float = 0.0
    """When Carbon last proved that it has read the points, on the monotonic clock."""

    @property
    def empty(self) -> bool:
        """True without points and rows."""
        return not self.points and not self.rows


class Unsettled:
    """The batches that Carbon may still lose, oldest first."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._batches: deque[Batch] = deque()
        self.points = 0
        """The number of points in all batches."""

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def add(self, batch: Batch, now: float) -> None:
        """Add a batch that Carbon has just read."""
        batch.read_at = now
        self._batches.append(batch)
        self.points += len(batch.points)

    def is_due(self, now: float) -> bool:
        """Return whether the oldest batch must be on disk if Carbon was not interrupted."""
        return bool(self._batches) and now - self._batches[0].read_at >= self._settle_s

    def remove_due(self, now: float) -> list[Batch]:
        """Remove and return the batches that must be on disk; call it only if Carbon was not interrupted."""
        settled = []
        while self.is_due(now):
            settled.append(self._batches.popleft())
            self.points -= len(settled[-1].points)
        return settled


def receipts(batches: list[Batch]) -> list[Receipt]:
    """Return one receipt for each journal in the batches."""
    by_journal: dict[str, list[int]] = {}
    for batch in batches:
        for journal, row in batch.rows:
            by_journal.setdefault(journal, []).append(row)
    return [Receipt(journal=journal, sequences=ranges(rows)) for journal, rows in by_journal.items()]


def ranges(numbers: list[int]) -> tuple[tuple[int, int], ...]:
    """Return numbers as ascending ranges, first and last included."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return tuple((first, last) for first, last in found)
