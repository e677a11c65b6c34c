"""Energy through the meters of the house, in watt-hours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Energy:
    """Watt-hours between two times, or since the commissioning."""

    produced_wh: float
    """What the production meter counts as delivered."""
    standby_wh: float
    """What the inverters consume at night; the production meter counts it as received."""
    load_wh: float
    charged_wh: float
    discharged_wh: float
    imported_wh: tuple[float, ...]
    """From the grid, one value for each phase: one phase can import while another exports."""
    exported_wh: tuple[float, ...]

    @classmethod
    def zero(cls, phases: int) -> "Energy":
        """Return zero for each counter."""
        return cls(0.0, 0.0, 0.0, 0.0, 0.0, (0.0,) * phases, (0.0,) * phases)

    @classmethod
    def from_numbers(cls, numbers: list[float], phases: int) -> "Energy":
        """Return the energy that :meth:`to_numbers` has converted.

        Raises:
            ValueError: there are too many numbers, or too few.
        """
        if len(numbers) != 5 + 2 * phases:
            raise ValueError(f"{len(numbers)} numbers for {phases} phases")
        produced, standby, load, charged, discharged, *grid = numbers
        return cls(produced, standby, load, charged, discharged, tuple(grid[:phases]), tuple(grid[phases:]))

    def to_numbers(self) -> list[float]:
        """Return all values as a list, to be stored."""
        return [
            self.produced_wh,
            self.standby_wh,
            self.load_wh,
            self.charged_wh,
            self.discharged_wh,
            *self.imported_wh,
            *self.exported_wh,
        ]

    @property
    def consumed_wh(self) -> float:
        """The consumption as the gateway counts it: production plus net import."""
        return self.produced_wh - self.standby_wh + sum(self.imported_wh) - sum(self.exported_wh)

    def consumed_on_phase_wh(self, phase: int) -> float:
        """Return the consumption of one phase; the production is equal on all."""
        production_wh = (self.produced_wh - self.standby_wh) / len(self.imported_wh)
        return production_wh + self.imported_wh[phase] - self.exported_wh[phase]

    def __add__(self, other: "Energy") -> "Energy":
        return self._combine(other, 1)

    def __sub__(self, other: "Energy") -> "Energy":
        return self._combine(other, -1)

    def _combine(self, other: "Energy", sign: int) -> "Energy":
        pairs = zip(self.to_numbers(), other.to_numbers(), strict=True)
        return Energy.from_numbers([mine + sign * others for mine, others in pairs], len(self.imported_wh))
