"""Files that survive a power cut: replaced as a whole, and moved out of the way when corrupt."""

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)


def write_atomically(path: Path, data: bytes | str, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace a file by new content that is on disk when this returns; after a crash it holds the old or the new.

    The steps are a temporary file, fsync, rename, and fsync of the folder, without which ext4 may lose the new name in
    a power cut. A link at the path is replaced, not followed. Missing folders are made with :func:`make_folder`.

    Args:
        path: the file.
        data: its whole content; text is written as UTF-8.
        mode: its permissions, whatever the umask.
        durable: False leaves out both fsyncs, for what is written often and worthless after a power cut; the file may
            then be empty.

    Raises:
        OSError: nothing has changed at the path, or it has and may not survive a power cut.
    """
    make_folder(path.parent)
    # mkstemp creates a file that only its owner can read, and never opens an existing one.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def make_folder(folder: Path, *, mode: int = 0o700) -> None:
    """Make a folder and its missing parents, durably. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode=mode)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to disk: files created, renamed or removed in it. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def quarantine(path: Path, reason: str, *, companions: Sequence[str] = ()) -> Path:
    """Rename a corrupt file so that it is no longer read, log why, and return its new path.

    The new name ends in ``.corrupt``; a file quarantined earlier is kept.

    Args:
        path: the file.
        reason: what is wrong with it.
        companions: suffixes of files that belong to it and are renamed with it if they exist, such as ``-wal``.

    Raises:
        OSError: it cannot be renamed.
    """
    quarantined = path.with_name(f"{path.name}.corrupt")
    if os.path.lexists(quarantined):
        quarantined = path.with_name(f"{path.name}.{time.time_ns()}.corrupt")
    path.replace(quarantined)
    for suffix in companions:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(quarantined.with_name(quarantined.name + suffix))
    sync_folder(path.parent)
    logger.error("%s is corrupt (%s); moved to %s", path, reason, quarantined)
    return quarantined
