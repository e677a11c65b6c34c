import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.token_broker.token_cache import CachedToken, TokenCache
from shared.tokens import InvalidToken
from tests.unit.token_broker.signed_tokens import NOW, SERIAL, new_token, public_key

OTHER_SERIAL = "999999999999"


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of each file in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_written_token_is_read_unchanged_and_readable_only_by_its_owner(tmp_path: Path) -> None:
    """The time at which it was fetched is read too."""
    cache, cached = TokenCache(tmp_path, public_key()), CachedToken(new_token(), NOW)

    cache.write(cached)

    assert cache.read(SERIAL, NOW) == cached
    assert stat.S_IMODE(cache.path(SERIAL).stat().st_mode) == 0o600


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It contains the claims too; an update needs no new token."""
    cache, token = TokenCache(tmp_path), new_token()
    file = {
        "text": token.token.get_secret_value(),
        "serial": SERIAL,
        "kind": "owner",
        "issued_at": NOW,
        "expires_at": token.expires_at,
        "fetched_at": NOW,
    }
    cache.path(SERIAL).write_text(json.dumps(file))

    assert cache.read(SERIAL, NOW) == CachedToken(token, NOW)


def test_a_time_of_fetch_in_the_future_counts_as_now(tmp_path: Path) -> None:
    """The clock was ahead when the token was fetched."""
    cache, token = TokenCache(tmp_path), new_token()
    cache.write(CachedToken(token, NOW + 1000))

    assert cache.read(SERIAL, NOW) == CachedToken(token, NOW)


def test_an_expired_token_is_not_returned_and_its_file_is_not_corrupt(tmp_path: Path) -> None:
    """No gateway would accept it."""
    cache = TokenCache(tmp_path)
    cache.write(CachedToken(new_token(10), NOW))
    before = files(tmp_path)

    assert cache.read(SERIAL, NOW + 11) is None
    assert cache.read_or_quarantine(SERIAL, NOW + 11) is None
    assert files(tmp_path) == before


def test_without_a_file_there_is_no_token(tmp_path: Path) -> None:
    """Also without the folder."""
    cache = TokenCache(tmp_path / "missing")

    assert cache.read(SERIAL, NOW) is None
    assert cache.serials() == set()


CORRUPT = [
    b"",
    b"\xff",
    b"{}",
    b"[]",
    b"[" * 100_000,
    b'{"text": 1}',
    b'{"text": "***", "fetched_at": 0}',
    b'"eyJ.e.x"',
]


@pytest.mark.parametrize("content", CORRUPT)
def test_a_corrupt_file_is_quarantined_and_so_is_the_next(content: bytes, tmp_path: Path) -> None:
    """Neither is deleted."""
    cache = TokenCache(tmp_path)
    for _time in range(2):
        cache.path(SERIAL).write_bytes(content)

        assert cache.read_or_quarantine(SERIAL, NOW) is None

    assert [path.read_bytes() for path in tmp_path.glob("*.corrupt")] == [content, content]
    assert cache.serials() == set()


@pytest.mark.parametrize("content", CORRUPT)
def test_reading_a_corrupt_file_changes_nothing(content: bytes, tmp_path: Path) -> None:
    """--check reads the cache and must not write."""
    cache = TokenCache(tmp_path)
    cache.path(SERIAL).write_bytes(content)
    before = files(tmp_path)

    with pytest.raises(InvalidToken) as invalid:
        cache.read(SERIAL, NOW)

    assert files(tmp_path) == before
    assert not content or content.decode(errors="replace") not in str(invalid.value)


def test_a_file_with_another_gateways_token_is_quarantined(tmp_path: Path) -> None:
    """A renamed file is not used for the wrong gateway."""
    cache = TokenCache(tmp_path)
    cache.write(CachedToken(new_token(), NOW))
    cache.path(SERIAL).rename(cache.path(OTHER_SERIAL))

    assert cache.read_or_quarantine(OTHER_SERIAL, NOW) is None
    assert [path.name for path in tmp_path.iterdir()] == [f"{OTHER_SERIAL}.json.corrupt"]


def test_with_a_public_key_a_token_of_another_signer_is_quarantined(tmp_path: Path) -> None:
    """A token that someone else has put there is not published."""
    TokenCache(tmp_path).write(CachedToken(new_token(), NOW))

    cache = TokenCache(tmp_path, public_key(ec.generate_private_key(ec.SECP256R1())))

    assert cache.read_or_quarantine(SERIAL, NOW) is None
    assert len(list(tmp_path.glob("*.corrupt"))) == 1


def test_a_file_whose_name_is_not_a_serial_number_is_ignored(tmp_path: Path) -> None:
    """Other files may be in the folder."""
    cache = TokenCache(tmp_path)
    cache.write(CachedToken(new_token(), NOW))
    (tmp_path / "my notes.json").write_text("{}")

    assert cache.serials() == {SERIAL}
