"""What Carbon has read and may not have written yet: kept until it must be on disk, sent again after any doubt.

How old a batch is counts from when Carbon last read it, and only while Carbon is known to live: one that was read just
before a long outage is as unsettled after it as it was before.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.carbon_sink.points import Point
from shared.messages import Receipt


@dataclass(slots=True)
class Batch:
    """Points that were sent together, and the journal rows that they came from."""

    points: list[Point] = field(default_factory=list)
    rows: list[tuple[str, int]] = field(default_factory=list)
    """Journal and sequence of each reading whose publisher keeps a journal."""

    read_at: float = 0.0
    """When Carbon last proved that it has read them, on the monotonic clock."""


class Unsettled:
    """The batches that Carbon may still forget, oldest first."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._batches: deque[Batch] = deque()
        self.points = 0
        """How many points are unsettled."""

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def add(self, batch: Batch, now: float) -> None:
        """Take in a batch that Carbon has just read."""
        batch.read_at = now
        self._batches.append(batch)
        self.points += len(batch.points)

    def is_due(self, now: float) -> bool:
        """Return whether a batch is old enough to be on disk."""
        return bool(self._batches) and now - self._batches[0].read_at >= self._settle_s

    def settle(self, now: float) -> list[Batch]:
        """Return the batches that are old enough to be on disk, and forget them; call it only while Carbon lives."""
        settled = []
        while self.is_due(now):
            settled.append(self._batches.popleft())
            self.points -= len(settled[-1].points)
        return settled


def receipts(batches: list[Batch]) -> list[Receipt]:
    """Return a receipt for each journal whose rows the batches hold, its sequences as ranges."""
    by_journal: dict[str, list[int]] = {}
    for batch in batches:
        for journal, sequence in batch.rows:
            by_journal.setdefault(journal, []).append(sequence)
    return [Receipt(journal=journal, sequences=ranges(sequences)) for journal, sequences in by_journal.items()]


def ranges(numbers: list[int]) -> tuple[tuple[int, int], ...]:
    """Return numbers as ranges, first and last both included, in order."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return tuple((first, last) for first, last in found)
