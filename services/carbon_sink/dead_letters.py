"""Messages that can never be stored, kept for a person to look at in a file that does not grow without end."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_BYTES = 1_000_000
MAX_PAYLOAD_BYTES = 1000


class DeadLetters:
    """A file of JSON lines ``{time, topic, fault, payload}``; the one before it is kept as ``.old``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, topic: str, payload: bytes, fault: str) -> None:
        """Add a message; one that cannot be kept is only told of."""
        line = json.dumps(
            {
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "topic": topic,
                "fault": fault,
                "payload": payload[:MAX_PAYLOAD_BYTES].decode("utf-8", "replace"),
            }
        )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
                self._path.replace(self._path.with_suffix(".old"))
            with self._path.open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            logger.warning("a dead letter cannot be kept in %s: %s", self._path, error)
