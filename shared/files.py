"""Files that must survive a power cut: written whole and durably, and moved out of the way when corrupt."""

import logging
import os
import tempfile
import time
from pathlib import Path

logger = logging.getLogger(__name__)


def write_atomically(path: Path, data: bytes | str, *, mode: int = 0o600) -> None:
    """Replace a file by new content that is on disk when this returns; after a crash it holds the old or the new.

    Temporary file, fsync, rename, fsync of the folder: without the last, ext4 may lose the name in a power cut. A link
    at the path is replaced, not followed. Missing folders are made with :func:`make_folder`.

    Args:
        path: the file.
        data: its whole content; text is written as UTF-8.
        mode: its permissions, whatever the umask.

    Raises:
        OSError: nothing has changed at the path, or it has and may not survive a power cut.
    """
    make_folder(path.parent)
    # mkstemp makes a file that only its owner can read, and never opens one that exists.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(folder: Path, *, mode: int = 0o700) -> None:
    """Make a folder and its missing parents, durably. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode=mode)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Write a folder's names to disk: files made, renamed or removed in it. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def quarantine(path: Path, reason: str) -> Path:
    """Rename a corrupt file so that it is no longer read, log why, and return its new path.

    The name ends in ``.corrupt``; an earlier quarantined file is kept.

    Raises:
        OSError: it cannot be renamed.
    """
    quarantined = path.with_name(f"{path.name}.corrupt")
    if quarantined.exists():
        quarantined = path.with_name(f"{path.name}.{time.time_ns()}.corrupt")
    path.replace(quarantined)
    logger.error("%s is corrupt (%s); moved to %s", path, reason, quarantined)
    return quarantined
