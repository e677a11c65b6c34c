"""Files that only we read: written whole or not at all, and never obeyed when damaged."""

import logging
import os
import tempfile
import time
from pathlib import Path

logger = logging.getLogger(__name__)


def write_private(path: Path, text: str) -> None:
    """Write a file readable by its owner alone: beside, flushed to disk, then moved into place."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp makes the file readable by its owner alone.
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise


def quarantine(path: Path, why: str) -> None:
    """Move a file that cannot be used to a name beside it, for a person to look at."""
    aside = path.with_suffix(".unusable")
    if aside.exists():  # an earlier one, which is not deleted either
        aside = path.with_suffix(f".{time.time_ns()}.unusable")
    path.replace(aside)
    logger.warning("%s is not used: %s; moved to %s", path, why, aside)
