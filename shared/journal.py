"""The readings that are not known to be stored yet, on disk, so that a killed process loses none of them.

A SQLite database in write-ahead mode that flushes to disk at each commit; a poll's readings are one transaction. A row
goes when its receipt comes, or when it is older or the whole is larger than allowed. Row numbers are never used twice,
and the journal has a random name, so that a receipt for an earlier journal cannot be taken for one of ours.

Errors::

    JournalError        it cannot be opened: stop
    ├── JournalInUse    another process has it: stop
    └── JournalFull     nothing was written or removed: go on without, and say so
"""

import contextlib
import fcntl
import logging
import secrets
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shared.readings import Reading

logger = logging.getLogger(__name__)

DAY_S = 86_400
PAGE_BYTES = 4096
MEGABYTE = 1_000_000
RESERVE_BYTES = 262_144
"""Set free when the disk is full: SQLite needs room even to delete (measured with SQLite 3.40 on a full tmpfs)."""

MAX_AHEAD_S = 60
WAL_PAGES = 100
"""Written back to the database at this length, or the write-ahead log would grow to 4 MB first."""

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


class JournalError(Exception):
    """The journal cannot be used as it should."""


class JournalInUse(JournalError):
    """Another process writes to this journal; two would send each other's readings."""


class JournalFull(JournalError):
    """The disk is full."""


@dataclass(frozen=True, slots=True)
class Row:
    """A reading that waits for its receipt."""

    sequence: int
    serial: str
    kind: str
    timestamp: int
    payload: bytes
    taken_at: float


class Journal:
    """A journal in a file; for one thread at a time."""

    def __init__(self, path: Path, *, keep_days: float, max_mb: float) -> None:
        """Open the journal, or begin one.

        Args:
            path: the database; a lock and a reserve lie beside it.
            keep_days: rows older than this are given up.
            max_mb: the oldest rows are given up when the database grows larger.

        Raises:
            JournalError: it cannot be opened; what is in it stays.
            JournalInUse: another process has it.
        """
        self._path = path
        self._keep_s = keep_days * DAY_S
        self._max_pages = max(64, int(max_mb * MEGABYTE / PAGE_BYTES))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise JournalInUse(f"another process uses {path}; STATE_DIR tells the two apart") from error
        self._database = self._open()
        self.name = self._name()
        self._keep_reserve()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and let others have it."""
        self._database.close()
        self._lock.close()

    def add(self, serial: str, readings: Sequence[Reading], now: float) -> list[int]:
        """Write readings in one transaction and return their row numbers.

        Raises:
            JournalFull: none is written.
        """
        try:
            with self._database:
                return [self._add(serial, reading, now) for reading in readings]
        except sqlite3.OperationalError as error:
            self._free_reserve()
            raise JournalFull(f"{self._path}: {error}") from error

    def _add(self, serial: str, reading: Reading, now: float) -> int:
        self._database.execute(
            # A newest time in the future was a wrong clock's, and would make everything after it late.
            "INSERT INTO newest VALUES (?, ?, ?) ON CONFLICT (serial, kind) DO UPDATE SET timestamp = "
            "CASE WHEN timestamp > ? THEN excluded.timestamp ELSE max(timestamp, excluded.timestamp) END",
            (serial, reading.kind, reading.timestamp, now + MAX_AHEAD_S),
        )
        added = self._database.execute(
            "INSERT INTO readings (serial, kind, timestamp, payload, taken_at) VALUES (?, ?, ?, ?, ?)",
            (serial, reading.kind, reading.timestamp, reading.to_json(), now),
        )
        return added.lastrowid or 0

    def is_newest(self, row: Row) -> bool:
        """Return whether no newer reading of its kind was ever taken."""
        (newest,) = self._database.execute(
            "SELECT timestamp FROM newest WHERE serial = ? AND kind = ?", (row.serial, row.kind)
        ).fetchone()
        return bool(row.timestamp >= newest)

    def remove(self, sequences: Iterable[tuple[int, int]]) -> int:
        """Remove the rows of the ranges, first and last both included, and return how many there were.

        Raises:
            JournalFull: none is removed.
        """
        try:
            with self._database:
                return sum(
                    self._database.execute("DELETE FROM readings WHERE sequence BETWEEN ? AND ?", range_).rowcount
                    for range_ in sequences
                )
        except sqlite3.OperationalError as error:
            self._free_reserve()
            raise JournalFull(f"{self._path}: {error}") from error

    def rows(self, sequences: Sequence[int]) -> list[Row]:
        """Return the rows of these numbers that are still there, in order."""
        marks = ",".join("?" * len(sequences))
        found = self._database.execute(
            "SELECT sequence, serial, kind, timestamp, payload, taken_at FROM readings "  # noqa: S608 - question marks
            f"WHERE sequence IN ({marks}) ORDER BY sequence",
            list(sequences),
        )
        return [Row(*row) for row in found]

    def sequences(self) -> list[int]:
        """Return the numbers of all rows, in order."""
        return [sequence for (sequence,) in self._database.execute("SELECT sequence FROM readings ORDER BY sequence")]

    def depth(self) -> int:
        """Return how many rows wait."""
        (count,) = self._database.execute("SELECT count(*) FROM readings").fetchone()
        return int(count)

    def oldest_taken_at(self) -> float | None:
        """Return when the oldest row was taken, epoch seconds."""
        (oldest,) = self._database.execute("SELECT min(taken_at) FROM readings").fetchone()
        return None if oldest is None else float(oldest)

    def prune(self, now: float) -> int:
        """Give up what is too old, and the oldest tenth of what is too much; return how many rows that were."""
        with contextlib.suppress(sqlite3.OperationalError), self._database:
            given_up = self._database.execute("DELETE FROM readings WHERE taken_at < ?", (now - self._keep_s,)).rowcount
            if self._pages_used() > self._max_pages:
                tenth = max(1, self.depth() // 10)
                given_up += self._database.execute(
                    "DELETE FROM readings WHERE sequence IN (SELECT sequence FROM readings ORDER BY sequence LIMIT ?)",
                    (tenth,),
                ).rowcount
            return given_up
        return 0

    def shift_ages(self, by_s: float) -> None:
        """Keep the age of every row as it was when the clock jumps, or all would suddenly be too old."""
        with contextlib.suppress(sqlite3.OperationalError), self._database:
            self._database.execute("UPDATE readings SET taken_at = taken_at + ?", (by_s,))

    def _pages_used(self) -> int:
        (pages,), (free,) = (
            self._database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count")
        )
        return int(pages) - int(free)

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except sqlite3.OperationalError as error:
            # A full disk, a lock, a missing right: nothing that says that the rows are spoilt.
            self._lock.close()
            raise JournalError(f"{self._path} cannot be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            aside = self._path.with_suffix(f".unusable-{int(time.time())}")
            for suffix in ("", "-wal", "-shm"):
                damaged = self._path.with_name(self._path.name + suffix)
                if damaged.exists():
                    damaged.replace(aside.with_name(aside.name + suffix))
            logger.error("%s cannot be read (%s): moved to %s, a new one is begun", self._path, error, aside)  # noqa: TRY400
            return self._connected()

    def _connected(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=5, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            database.executescript(SCHEMA)
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError:
            database.close()
            raise
        if verdict != "ok":
            database.close()
            raise sqlite3.DatabaseError(verdict)
        return database

    def _name(self) -> str:
        found = self._database.execute("SELECT name FROM journal").fetchone()
        if found is None:
            found = (secrets.token_hex(8),)
            with self._database:
                self._database.execute("INSERT INTO journal VALUES (?)", found)
        return str(found[0])

    def _keep_reserve(self) -> None:
        reserve = self._path.with_suffix(".reserve")
        if not reserve.exists():
            try:
                reserve.write_bytes(secrets.token_bytes(RESERVE_BYTES))
            except OSError:
                reserve.unlink(missing_ok=True)

    def _free_reserve(self) -> None:
        self._path.with_suffix(".reserve").unlink(missing_ok=True)
