"""The gateways that something is retained for at the broker, recorded so that a later process can clear it."""

from dataclasses import dataclass
from pathlib import Path

from shared.files import write_atomically
from shared.topics import SERIAL_PATTERN


@dataclass(frozen=True, slots=True)
class PublishedSerials:
    """A folder with an empty file for each gateway that a token or its status was ever published for."""

    folder: Path

    def add(self, serial: str) -> None:
        """Record a gateway durably. Raises OSError."""
        path = self.folder / serial
        if not path.exists():
            write_atomically(path, b"")

    def read(self) -> set[str]:
        """Return the recorded gateways. Raises OSError."""
        if not self.folder.is_dir():
            return set()
        return {path.name for path in self.folder.iterdir() if SERIAL_PATTERN.fullmatch(path.name)}
