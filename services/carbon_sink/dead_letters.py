"""Messages that can never be stored, kept in a file of bounded size for a person to examine."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_BYTES = 1_000_000
MAX_PAYLOAD_BYTES = 1000
MAX_LOGGED_FAULTS = 100


class DeadLetters:
    """A file of JSON lines ``{time, topic, fault, payload}``; the full one before it is kept as ``.old``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._logged_faults: set[str] = set()

    def add(self, topic: str, payload: bytes, fault: str) -> None:
        """Append a message to the file, and log it if it is the first with this fault; a write error is only logged."""
        if fault not in self._logged_faults and len(self._logged_faults) < MAX_LOGGED_FAULTS:
            self._logged_faults.add(fault)
            logger.warning("rejected a message on %s: %s; not logging others with this fault", topic, fault)
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
            logger.warning("cannot write the rejected message to %s: %s", self._path, error.strerror)
