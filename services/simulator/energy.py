"""What has flowed through the house's meters, in watt-hours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Energy:
    """Watt-hours between two moments, or since the commissioning."""

    produced_wh: float
    """Towards the house: what the production meter calls delivered."""
    drawn_wh: float
    """What the inverters take at night: what the production meter calls received."""
    load_wh: float
    charged_wh: float
    discharged_wh: float
    imported_wh: tuple[float, ...]
    """From the grid, one value for each phase: a phase may import while another exports."""
    exported_wh: tuple[float, ...]

    @classmethod
    def none(cls, phases: int) -> "Energy":
        """Return no energy at all."""
        return cls(0.0, 0.0, 0.0, 0.0, 0.0, (0.0,) * phases, (0.0,) * phases)

    @classmethod
    def from_numbers(cls, numbers: list[float], phases: int) -> "Energy":
        """Return what `to_numbers` wrote. Raises ValueError where the count is wrong."""
        if len(numbers) != 5 + 2 * phases:
            raise ValueError(f"{len(numbers)} numbers for {phases} phases")
        produced, drawn, load, charged, discharged, *grid = numbers
        return cls(produced, drawn, load, charged, discharged, tuple(grid[:phases]), tuple(grid[phases:]))

    def to_numbers(self) -> list[float]:
        """Return all values in a row, for keeping."""
        return [
            self.produced_wh,
            self.drawn_wh,
            self.load_wh,
            self.charged_wh,
            self.discharged_wh,
            *self.imported_wh,
            *self.exported_wh,
        ]

    def _combine(self, other: "Energy", sign: int) -> "Energy":
        mine, others = self.to_numbers(), other.to_numbers()
        numbers = [value + sign * more for value, more in zip(mine, others, strict=True)]
        return Energy.from_numbers(numbers, len(self.imported_wh))

    def __add__(self, other: "Energy") -> "Energy":
        return self._combine(other, 1)

    def __sub__(self, other: "Energy") -> "Energy":
        return self._combine(other, -1)

    @property
    def consumed_wh(self) -> float:
        """Return the consumption as the gateway counts it: production plus what came over the grid meter."""
        return self.produced_wh - self.drawn_wh + sum(self.imported_wh) - sum(self.exported_wh)
