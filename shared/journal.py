"""The readings that are not known to be stored yet, on disk, so that a killed process loses none of them.

A SQLite database in write-ahead mode that is flushed to disk at each commit; the readings of one poll are one
transaction. A row is removed when its receipt comes, and expires when it is too old or the database too large. Row
numbers are never reused, and the journal has a random name, so that a receipt for an earlier journal never matches.

Errors::

    JournalError        it cannot be opened: stop
    ├── JournalInUse    another process has it open: stop
    └── JournalFull     nothing was written or removed: publish without it, and report it
"""

import contextlib
import fcntl
import logging
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shared.files import make_folder, quarantine
from shared.readings import Reading

logger = logging.getLogger(__name__)

DAY_S = 86_400
PAGE_BYTES = 4096
MEGABYTE = 1_000_000
MIN_PAGES = 64
RESERVE_BYTES = 262_144
"""Size of a file that is deleted when the disk is full: SQLite needs space even to delete rows (measured with SQLite
3.40 on a full tmpfs)."""

MAX_AHEAD_S = 60
EXPIRE_FRACTION = 10
"""A database that is too large loses this part of its rows at once: a tenth."""

CHECKPOINT_PAGES = 100
"""At this length the write-ahead log is copied into the database; SQLite's default would let it grow to 4 MB."""

# The names in the schema are those of the first version, so that its journals are read.
SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS readings (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    serial TEXT NOT NULL,
    kind TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    payload BLOB NOT NULL,
    taken_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS newest (
    serial TEXT NOT NULL,
    kind TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    PRIMARY KEY (serial, kind)
);
"""

# A newest time in the future came from a wrong clock; without the exception every later reading would be history.
UPDATE_NEWEST = """
INSERT INTO newest VALUES (:serial, :kind, :timestamp) ON CONFLICT (serial, kind) DO UPDATE SET timestamp =
    CASE WHEN timestamp > :max_timestamp THEN excluded.timestamp ELSE max(timestamp, excluded.timestamp) END
"""

ADD_READING = """
INSERT INTO readings (serial, kind, timestamp, payload, taken_at) VALUES (:serial, :kind, :timestamp, :payload, :now)
"""

GET_ROW = """
SELECT sequence, serial, kind, payload, readings.timestamp >= newest.timestamp
FROM readings JOIN newest USING (serial, kind) WHERE sequence = ?
"""


class JournalError(Exception):
    """The journal cannot be opened."""


class JournalInUse(JournalError):
    """Another process has this journal open; two would publish each other's readings."""


class JournalFull(JournalError):
    """The disk is full, or cannot be written for another reason."""


@dataclass(frozen=True, slots=True)
class Row:
    """A reading that waits for its receipt."""

    sequence: int
    serial: str
    kind: str
    payload: bytes
    is_newest: bool
    """Whether no newer reading of its kind was ever added."""


class Journal:
    """A journal in a file; use it from one thread at a time."""

    def __init__(self, path: Path, *, keep_days: float, max_mb: float) -> None:
        """Open the journal or create it; a corrupt one is quarantined first.

        Args:
            path: the database; a ``.lock`` and a ``.reserve`` file are next to it.
            keep_days: rows expire at this age.
            max_mb: the oldest rows expire when the database is larger.

        Raises:
            JournalError: it cannot be opened; its content is unchanged.
            JournalInUse: another process has it open.
        """
        self._path = path
        self._max_age_s = keep_days * DAY_S
        self._max_pages = max(MIN_PAGES, int(max_mb * MEGABYTE / PAGE_BYTES))
        with contextlib.ExitStack() as opened:
            try:
                make_folder(path.parent)
                lock = opened.enter_context(path.with_suffix(".lock").open("w"))
                _lock(lock.fileno(), path)
                self._database = opened.enter_context(contextlib.closing(_open(path)))
                self.name = _name(self._database)
            except (sqlite3.Error, OSError) as error:
                raise JournalError(f"{path} cannot be opened: {error}") from error
            self._close = opened.pop_all().close
        self._create_reserve()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and unlock it for other processes."""
        self._close()

    def add(self, serial: str, readings: Sequence[Reading], now: float) -> list[int]:
        """Write readings in one transaction and return their row numbers.

        Raises:
            JournalFull: none was written.
        """
        with self._transaction():
            return [self._add(serial, reading, now) for reading in readings]

    def _add(self, serial: str, reading: Reading, now: float) -> int:
        values = {
            "serial": serial,
            "kind": reading.kind,
            "timestamp": reading.timestamp,
            "payload": reading.to_json(),
            "now": now,
            "max_timestamp": now + MAX_AHEAD_S,
        }
        self._database.execute(UPDATE_NEWEST, values)
        return self._database.execute(ADD_READING, values).lastrowid or 0

    def get(self, sequence: int) -> Row | None:
        """Return a row, or None if it was removed or has expired."""
        found = self._database.execute(GET_ROW, (sequence,)).fetchone()
        if found is None:
            return None
        sequence, serial, kind, payload, is_newest = found
        return Row(sequence, serial, kind, payload, bool(is_newest))

    def remove(self, ranges: Iterable[tuple[int, int]]) -> int:
        """Remove the rows of ranges, first and last included, and return how many there were.

        Raises:
            JournalFull: none was removed.
        """
        delete = "DELETE FROM readings WHERE sequence BETWEEN ? AND ?"
        with self._transaction():
            return sum(self._database.execute(delete, range_).rowcount for range_ in ranges)

    def sequences(self) -> list[int]:
        """Return the numbers of all rows in order."""
        return [sequence for (sequence,) in self._database.execute("SELECT sequence FROM readings ORDER BY sequence")]

    def row_count(self) -> int:
        """Return how many rows there are."""
        (count,) = self._database.execute("SELECT count(*) FROM readings").fetchone()
        return int(count)

    def oldest_added_at(self) -> float | None:
        """Return when the oldest row was added, epoch seconds; None if there is none."""
        (oldest,) = self._database.execute("SELECT min(taken_at) FROM readings").fetchone()
        return None if oldest is None else float(oldest)

    def prune(self, now: float) -> int:
        """Remove rows that are too old, and the oldest tenth if the database is too large; return how many.

        Nothing is removed while the disk is full.
        """
        with contextlib.suppress(JournalFull), self._transaction():
            too_old = "DELETE FROM readings WHERE taken_at < ?"
            expired = self._database.execute(too_old, (now - self._max_age_s,)).rowcount
            if self._used_pages() > self._max_pages:
                oldest = (
                    "DELETE FROM readings WHERE sequence IN (SELECT sequence FROM readings ORDER BY sequence LIMIT ?)"
                )
                count = max(1, self.row_count() // EXPIRE_FRACTION)
                expired += self._database.execute(oldest, (count,)).rowcount
            return expired
        return 0

    def shift_ages(self, by_s: float) -> None:
        """Keep the age of every row when the clock jumps; otherwise all might expire at once."""
        with contextlib.suppress(JournalFull), self._transaction():
            self._database.execute("UPDATE readings SET taken_at = taken_at + ?", (by_s,))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit at the end, or roll back and raise JournalFull; then the reserve's space is free for the next one."""
        try:
            with self._database:
                yield
        except sqlite3.OperationalError as error:
            self._delete_reserve()
            raise JournalFull(f"{self._path} cannot be written: {error}") from error

    def _used_pages(self) -> int:
        (pages,), (free,) = (
            self._database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count")
        )
        return int(pages) - int(free)

    def _create_reserve(self) -> None:
        reserve = self._path.with_suffix(".reserve")
        if not reserve.exists():
            try:
                # Random, because file systems may store zeros without using space.
                reserve.write_bytes(secrets.token_bytes(RESERVE_BYTES))
            except OSError:
                reserve.unlink(missing_ok=True)

    def _delete_reserve(self) -> None:
        self._path.with_suffix(".reserve").unlink(missing_ok=True)


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalInUse(f"another process uses {path}; set STATE_DIR so that each has its own") from None


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # a full disk, a lock or a missing permission; the rows are not corrupt
        quarantine(path, str(error), companions=("-wal", "-shm"))
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=5, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        database.executescript(SCHEMA)
        (result,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError:
        database.close()
        raise
    if result != "ok":
        database.close()
        raise sqlite3.DatabaseError(result)
    return database


def _name(database: sqlite3.Connection) -> str:
    """Return the journal's random name, which a new one is given."""
    found = database.execute("SELECT name FROM journal").fetchone()
    if found is None:
        found = (secrets.token_hex(8),)
        with database:
            database.execute("INSERT INTO journal VALUES (?)", found)
    return str(found[0])
