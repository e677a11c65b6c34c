"""Which gateways' topics may hold something of ours: an empty file for each, so that a later process can clear them."""

from dataclasses import dataclass
from pathlib import Path

from shared.topics import SERIAL_PATTERN


@dataclass(frozen=True, slots=True)
class Published:
    """A folder with a file for each gateway that a token or its status was ever published for."""

    folder: Path

    def add(self, serial: str) -> None:
        """Note that something is published for a gateway."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / serial).touch()

    def serials(self) -> set[str]:
        """Return the gateways noted."""
        if not self.folder.is_dir():
            return set()
        return {path.name for path in self.folder.iterdir() if SERIAL_PATTERN.fullmatch(path.name)}
