import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.token_broker.logins import DAY_S, LoginRecord

NOW = 1_800_000_000.0


def record(folder: Path, password: str = "secret") -> LoginRecord:
    """Return the record of a process that starts now."""
    return LoginRecord(folder / "logins.json", "owner@example.com", SecretStr(password))


def attempts(folder: Path, count: int) -> None:
    """Record attempts, each of a process of its own."""
    for number in range(count):
        logins = record(folder)
        with logins.locked():
            logins.record_attempt(NOW + number)


@pytest.mark.parametrize(("count", "next_at"), [(0, 0.0), (2, 0.0), (3, NOW + DAY_S), (4, NOW + 1 + DAY_S)])
def test_three_attempts_within_a_day_are_allowed(count: int, next_at: float, tmp_path: Path) -> None:
    """The next one is allowed a day after the third last."""
    attempts(tmp_path, count)

    assert record(tmp_path).next_attempt_at(NOW + 10) == next_at


def test_computing_the_next_attempt_writes_nothing(tmp_path: Path) -> None:
    """Also while the clock is behind, and also with a corrupt record: --check must not write."""
    attempts(tmp_path, 3)
    before = (tmp_path / "logins.json").read_bytes()

    for now in (NOW - 7 * DAY_S, NOW, NOW + 7 * DAY_S):
        assert record(tmp_path).next_attempt_at(now) <= max(now, NOW) + DAY_S
    assert (tmp_path / "logins.json").read_bytes() == before

    (tmp_path / "logins.json").write_text("{")
    assert record(tmp_path).next_attempt_at(NOW) <= NOW
    assert (tmp_path / "logins.json").read_text() == "{"


def test_a_wait_recorded_by_a_clock_that_was_ahead_ends_after_a_day(tmp_path: Path) -> None:
    """It counts from when the clock was first seen behind."""
    attempts(tmp_path, 3)
    earlier = NOW - 400 * DAY_S

    logins = record(tmp_path)
    with logins.locked():
        logins.record_clock(earlier)

    assert record(tmp_path).next_attempt_at(earlier + 10) == earlier + DAY_S
    assert record(tmp_path).next_attempt_at(earlier + DAY_S + 1) <= earlier + DAY_S + 1


def test_an_undone_attempt_does_not_count(tmp_path: Path) -> None:
    """Enphase has not judged it."""
    attempts(tmp_path, 2)
    logins = record(tmp_path)
    with logins.locked():
        logins.record_attempt(NOW + 5)
        assert logins.next_attempt_at(NOW + 6) > NOW + 6
        logins.undo_attempt()

    assert record(tmp_path).next_attempt_at(NOW + 6) <= NOW + 6


def test_other_credentials_neither_inherit_nor_reset_the_count(tmp_path: Path) -> None:
    """A process with an old password keeps its own count while another has corrected it."""
    attempts(tmp_path, 3)
    old = record(tmp_path)
    corrected = record(tmp_path, password="corrected")
    assert corrected.next_attempt_at(NOW + 10) <= NOW + 10
    with corrected.locked():
        corrected.record_attempt(NOW + 10)

    with old.locked():
        assert old.next_attempt_at(NOW + 20) == NOW + DAY_S


def test_a_refusal_is_known_to_the_next_process(tmp_path: Path) -> None:
    """With its state, its message and its wait, of which the longest counts."""
    logins = record(tmp_path)
    with logins.locked():
        logins.record_refusal("locked_out", "too many requests", wait_until=NOW + 7200)
        logins.record_refusal("locked_out", "blocked", wait_until=NOW + 3600)

    following = record(tmp_path)
    assert following.last_refusal == ("locked_out", "blocked")
    assert following.next_attempt_at(NOW) == NOW + 7200

    with following.locked():
        following.record_success()
    assert record(tmp_path).next_attempt_at(NOW) == 0


def test_the_renewal_of_a_rejected_token_is_claimed_once_a_day_by_one_process(tmp_path: Path) -> None:
    """For each gateway, and also after the credentials have changed."""
    assert record(tmp_path).claim_renewal("1", NOW)
    assert not record(tmp_path).claim_renewal("1", NOW + DAY_S - 1)
    assert record(tmp_path).claim_renewal("2", NOW)
    assert not record(tmp_path, password="corrected").claim_renewal("1", NOW + 1)
    assert record(tmp_path).claim_renewal("1", NOW + DAY_S)


def test_the_file_contains_no_credential(tmp_path: Path) -> None:
    """Only a slow, salted digest of them, and only its owner may read it."""
    attempts(tmp_path, 1)

    text = (tmp_path / "logins.json").read_text()
    assert "secret" not in text
    assert "owner" not in text
    assert len(json.loads(text)["credentials"]) == 128
    assert (tmp_path / "logins.json").stat().st_mode & 0o077 == 0
