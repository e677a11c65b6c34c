import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shared.journal import RESERVE_BYTES, Journal, JournalError, JournalFull, JournalInUse, Row
from shared.readings import Consumption, Production, Reading
from tests.programs import ROOT

NOW = 1_800_000_000
SERIAL = "122012345678"


def production(timestamp: int, power_w: float = 1.0) -> Production:
    """Return a reading."""
    return Production(timestamp=timestamp, power_w=power_w, source="meter")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the journal is."""
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """Yield an open journal."""
    with Journal(path, keep_days=7, max_mb=1) as journal:
        yield journal


def test_rows_stay_unchanged_until_they_are_removed(journal: Journal) -> None:
    """What was written is read again, in order, without the ranges that were removed."""
    numbers = journal.add(SERIAL, [production(NOW + step, step / 3) for step in range(10)], NOW)

    assert journal.remove([(numbers[2], numbers[4]), (numbers[9], numbers[9] + 100)]) == 4

    assert journal.sequences() == [numbers[step] for step in (0, 1, 5, 6, 7, 8)]
    expected = Row(numbers[5], SERIAL, "production", production(NOW + 5, 5 / 3).to_json(), is_newest=False)
    assert journal.get(numbers[5]) == expected
    assert journal.get(numbers[2]) is None


def test_a_reopened_journal_has_its_name_its_rows_and_new_numbers(path: Path) -> None:
    """A restart changes nothing, and a number is never used for two readings."""
    with Journal(path, keep_days=7, max_mb=1) as first:
        name, (one, two) = first.name, first.add(SERIAL, [production(NOW), production(NOW + 10)], NOW)
        first.remove([(two, two)])

    with Journal(path, keep_days=7, max_mb=1) as second:
        assert second.name == name
        assert second.sequences() == [one]
        assert second.add(SERIAL, [production(NOW + 20)], NOW) == [two + 1]


def test_two_journals_never_have_the_same_name(tmp_path: Path) -> None:
    """A receipt for an earlier journal does not match this one."""
    names = set()
    for number in range(5):
        with Journal(tmp_path / f"{number}.sqlite", keep_days=7, max_mb=1) as journal:
            names.add(journal.name)

    assert len(names) == 5


def test_a_second_process_on_one_journal_is_refused(journal: Journal, path: Path) -> None:
    """Two would publish each other's readings."""
    with pytest.raises(JournalInUse, match="STATE_DIR"):
        Journal(path, keep_days=7, max_mb=1)


@pytest.mark.parametrize("damage", [b"no database at all" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_corrupt_journal_is_quarantined_and_a_new_one_created(path: Path, damage: bytes) -> None:
    """Nothing is deleted, and the poller starts."""
    path.write_bytes(damage)

    with Journal(path, keep_days=7, max_mb=1) as journal:
        assert journal.add(SERIAL, [production(NOW)], NOW) == [1]

    assert path.with_name("journal.sqlite.corrupt").read_bytes() == damage


def test_each_corrupt_journal_is_kept(path: Path) -> None:
    """A second one does not replace the first."""
    for _time in range(2):
        path.write_bytes(b"no database" * 1000)
        Journal(path, keep_days=7, max_mb=1).close()

    assert len([*path.parent.glob("journal.sqlite*.corrupt")]) == 2


def test_a_journal_that_cannot_be_opened_now_is_not_changed(path: Path) -> None:
    """A lock of another program, a full disk or a missing permission corrupts no row: nothing is quarantined."""
    with Journal(path, keep_days=7, max_mb=1) as journal:
        journal.add(SERIAL, [production(NOW)], NOW)
    with closing(sqlite3.connect(path)) as another_program:
        another_program.execute("PRAGMA locking_mode = EXCLUSIVE")
        another_program.execute("BEGIN EXCLUSIVE")

        with pytest.raises(JournalError, match="locked"):
            Journal(path, keep_days=7, max_mb=1)

    with Journal(path, keep_days=7, max_mb=1) as journal:
        assert journal.sequences() == [1]
    assert not [*path.parent.glob("*.corrupt*")]


def test_a_folder_that_cannot_be_made_is_an_error_of_the_journal(tmp_path: Path) -> None:
    """The poller reports it in a line."""
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(tmp_path / "file" / "journal.sqlite", keep_days=7, max_mb=1)


def test_a_journal_of_the_first_version_is_read(path: Path) -> None:
    """Readings that wait while the software is updated are published."""
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(
            "CREATE TABLE journal (name TEXT NOT NULL);"
            "CREATE TABLE readings (sequence INTEGER PRIMARY KEY AUTOINCREMENT, serial TEXT NOT NULL,"
            " kind TEXT NOT NULL, timestamp INTEGER NOT NULL, payload BLOB NOT NULL, taken_at REAL NOT NULL);"
            "CREATE TABLE newest (serial TEXT NOT NULL, kind TEXT NOT NULL, timestamp INTEGER NOT NULL,"
            " PRIMARY KEY (serial, kind));"
            "INSERT INTO journal VALUES ('first');"
            "INSERT INTO readings VALUES (7, '1', 'grid', 5, '{}', 5.0);"
            "INSERT INTO newest VALUES ('1', 'grid', 5);"
        )

    with Journal(path, keep_days=7, max_mb=1) as journal:
        assert journal.name == "first"
        assert journal.sequences() == [7]
        assert journal.oldest_added_at() == 5.0
        row = journal.get(7)
        assert row is not None
        assert row.is_newest


def test_rows_older_than_allowed_expire_and_are_counted(journal: Journal) -> None:
    """Without a sink the disk does not fill."""
    journal.add(SERIAL, [production(NOW)] * 3, NOW - 8 * 86_400)
    journal.add(SERIAL, [production(NOW)] * 2, NOW)

    assert journal.prune(NOW) == 3
    assert journal.row_count() == 2


def test_the_oldest_rows_of_a_journal_larger_than_allowed_expire(path: Path) -> None:
    """It grows to about its maximum, and the newest readings are kept."""
    expired = 0
    with Journal(path, keep_days=7, max_mb=1) as journal:
        for poll in range(200):
            journal.add(SERIAL, [production(NOW + 100 * poll + step) for step in range(100)], NOW + poll)
            expired += journal.prune(NOW + poll)

        assert expired > 1000
        assert path.stat().st_size < 1_500_000
        assert journal.sequences()[-1] == 20_000
        assert journal.oldest_added_at() != NOW


def is_newest(journal: Journal, *readings: Reading, now: float = NOW) -> list[bool]:
    """Add readings and return which of them are the newest of their kind."""
    rows = [journal.get(sequence) for sequence in journal.add(SERIAL, readings, now)]
    return [row is not None and row.is_newest for row in rows]


def test_only_the_newest_reading_of_a_kind_is_newest(journal: Journal, path: Path) -> None:
    """Also after a restart; another kind has its own."""
    readings = [production(NOW), production(NOW + 10), production(NOW + 5), Consumption(timestamp=NOW)]

    assert is_newest(journal, *readings) == [False, True, False, True]
    journal.close()
    with Journal(path, keep_days=7, max_mb=1) as reopened:
        assert is_newest(reopened, production(NOW + 9), production(NOW + 11)) == [False, True]


def test_a_time_in_the_future_does_not_make_everything_after_it_history(journal: Journal) -> None:
    """A clock that was a year ahead and was corrected has no effect on what follows."""
    assert is_newest(journal, production(NOW + 31_536_000)) == [True]

    assert is_newest(journal, production(NOW + 10), now=NOW + 10) == [True]


def test_a_clock_jump_changes_no_age(journal: Journal) -> None:
    """Rows expire by their age, not by the new time."""
    journal.add(SERIAL, [production(NOW)], NOW)

    journal.shift_ages(365 * 86_400)

    assert journal.prune(NOW + 366 * 86_400) == 0
    assert journal.prune(NOW + 373 * 86_400) == 1


def fill(journal: Journal) -> None:
    """Let SQLite fail as on a full disk: the database must not grow any more."""
    (pages,) = journal._database.execute("PRAGMA page_count").fetchone()
    journal._database.execute(f"PRAGMA max_page_count = {pages}")


def test_on_a_full_disk_nothing_is_written_and_the_reserve_is_released(journal: Journal, path: Path) -> None:
    """A poll is written whole or not at all, and rows can be removed afterwards."""
    journal.add(SERIAL, [production(NOW)], NOW)
    fill(journal)

    with pytest.raises(JournalFull, match="database or disk is full"):
        journal.add(SERIAL, [production(NOW + step) for step in range(1000)], NOW)

    assert journal.sequences() == [1]
    assert not path.with_suffix(".reserve").exists()
    assert journal.remove([(1, 1)]) == 1


def test_the_reserve_is_created_again_at_the_next_start(journal: Journal, path: Path) -> None:
    """The next full disk finds one."""
    journal.close()
    path.with_suffix(".reserve").unlink()

    with Journal(path, keep_days=7, max_mb=1):
        assert path.with_suffix(".reserve").stat().st_size == RESERVE_BYTES


WRITER = """
import sys
from pathlib import Path
from shared.journal import Journal
from shared.readings import Production
with Journal(Path(sys.argv[1]), keep_days=7, max_mb=10) as journal:
    for step in range(1_000_000):
        numbers = journal.add("122012345678", [Production(timestamp=step, power_w=1.0, source="meter")] * 3, 0.0)
        print(numbers[-1], flush=True)
"""


@pytest.mark.parametrize("lines", [1, 50, 400])
def test_a_writer_killed_at_any_time_has_all_that_it_reported(path: Path, lines: int) -> None:
    """What was reported as written is there after a SIGKILL, whole polls only."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert writer.stdout is not None
    reported = [int(writer.stdout.readline()) for _line in range(lines)][-1]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()

    with Journal(path, keep_days=7_000_000, max_mb=10) as journal:
        sequences = journal.sequences()

    assert sequences[:reported] == list(range(1, reported + 1))
    assert len(sequences) % 3 == 0
