import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shared.journal import Journal, JournalError, JournalInUse
from shared.readings import Consumption, Production
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


def test_rows_stay_until_their_receipt_and_come_back_as_they_were(journal: Journal) -> None:
    """What was written is read again, in order, without what was removed."""
    numbers = journal.add(SERIAL, [production(NOW + step, step / 3) for step in range(10)], NOW)

    assert journal.remove([(numbers[2], numbers[4]), (numbers[9], numbers[9] + 100)]) == 4

    left = journal.rows(numbers)
    assert [row.sequence for row in left] == [numbers[step] for step in (0, 1, 5, 6, 7, 8)]
    assert left[2].payload == production(NOW + 5, 5 / 3).to_json()
    assert (left[2].serial, left[2].kind, left[2].timestamp) == (SERIAL, "production", NOW + 5)


def test_a_reopened_journal_has_its_name_its_rows_and_new_numbers(path: Path) -> None:
    """A restart goes on where it was; a number is never used for two readings."""
    with Journal(path, keep_days=7, max_mb=1) as first:
        name, (one, two) = first.name, first.add(SERIAL, [production(NOW), production(NOW + 10)], NOW)
        first.remove([(two, two)])

    with Journal(path, keep_days=7, max_mb=1) as second:
        assert second.name == name
        assert second.sequences() == [one]
        assert second.add(SERIAL, [production(NOW + 20)], NOW) == [two + 1]


def test_two_journals_never_have_the_same_name(tmp_path: Path) -> None:
    """A receipt for an earlier journal is none for this one."""
    names = set()
    for number in range(5):
        with Journal(tmp_path / f"{number}.sqlite", keep_days=7, max_mb=1) as journal:
            names.add(journal.name)

    assert len(names) == 5


def test_p7_a_second_process_on_one_journal_is_refused(journal: Journal, path: Path) -> None:
    """Two would send each other's readings."""
    with pytest.raises(JournalInUse, match="STATE_DIR"):
        Journal(path, keep_days=7, max_mb=1)


@pytest.mark.parametrize("damage", [b"no database at all" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_p4_a_corrupt_journal_is_put_aside_and_a_new_one_begun(path: Path, damage: bytes) -> None:
    """Nothing is deleted, and the poller starts."""
    path.write_bytes(damage)

    with Journal(path, keep_days=7, max_mb=1) as journal:
        assert journal.add(SERIAL, [production(NOW)], NOW) == [1]

    (aside,) = path.parent.glob("journal.unusable-*")
    assert aside.read_bytes() == damage


def test_p4_a_journal_that_cannot_be_opened_now_is_left_as_it_is(path: Path) -> None:
    """A lock of somebody else's, a full disk or a missing right spoils no row: nothing is put aside."""
    with Journal(path, keep_days=7, max_mb=1) as journal:
        journal.add(SERIAL, [production(NOW)], NOW)
    with closing(sqlite3.connect(path)) as somebody_else:
        somebody_else.execute("PRAGMA locking_mode = EXCLUSIVE")
        somebody_else.execute("BEGIN EXCLUSIVE")

        with pytest.raises(JournalError, match="locked"):
            Journal(path, keep_days=7, max_mb=1)

    with Journal(path, keep_days=7, max_mb=1) as journal:
        assert journal.sequences() == [1]
    assert not [*path.parent.glob("*.unusable-*")]


def test_rows_older_than_allowed_are_given_up_and_counted(journal: Journal) -> None:
    """A house without a sink fills no disk."""
    journal.add(SERIAL, [production(NOW)] * 3, NOW - 8 * 86_400)
    journal.add(SERIAL, [production(NOW)] * 2, NOW)

    assert journal.prune(NOW) == 3
    assert journal.depth() == 2


def test_a_journal_larger_than_allowed_gives_up_its_oldest_rows(path: Path) -> None:
    """It grows to about its limit, and the newest readings are the ones kept."""
    given_up = 0
    with Journal(path, keep_days=7, max_mb=1) as journal:
        for poll in range(200):
            journal.add(SERIAL, [production(NOW + 100 * poll + step) for step in range(100)], NOW + poll)
            given_up += journal.prune(NOW + poll)

        assert given_up > 1000
        assert path.stat().st_size < 1_500_000
        assert journal.sequences()[-1] == 20_000
        assert journal.oldest_taken_at() != NOW


def test_only_the_newest_reading_of_a_kind_is_newest(journal: Journal) -> None:
    """Also after a restart; another kind or gateway has its own."""
    rows = journal.rows(
        journal.add(
            SERIAL, [production(NOW), production(NOW + 10), production(NOW + 5), Consumption(timestamp=NOW)], NOW
        )
    )

    assert [journal.is_newest(row) for row in rows] == [False, True, False, True]


def test_a_time_in_the_future_does_not_make_everything_after_it_late(journal: Journal) -> None:
    """A clock that was a year ahead and was set right again is forgotten."""
    journal.add(SERIAL, [production(NOW + 31_536_000)], NOW)

    (row,) = journal.rows(journal.add(SERIAL, [production(NOW + 10)], NOW + 10))

    assert journal.is_newest(row)


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
def test_p1_a_writer_killed_at_any_time_has_all_that_it_reported(path: Path, lines: int) -> None:
    """What was told as written is there after a SIGKILL, whole polls only."""
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
