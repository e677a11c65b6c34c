"""The store of ``carbon_sink --dry-run``: standard output."""

import sys
from collections.abc import Sequence

from services.carbon_sink.points import Point


class StandardOutput:
    """Prints points as lines of Carbon's plaintext protocol."""

    uninterrupted = True

    def write(self, points: Sequence[Point]) -> None:
        """Print points at once."""
        for point in points:
            sys.stdout.write(f"{point.path} {point.value} {point.timestamp}\n")
        sys.stdout.flush()

    def maintain_sentinel(self) -> None:
        """Do nothing: what is printed cannot be lost."""

    def close(self) -> None:
        """Leave standard output open."""
