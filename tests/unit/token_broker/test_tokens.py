from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.token_broker.tokens import NotAToken, Token, TokenCache

NOW = 1_800_000_000
SERIAL = "122012345678"
YEAR_S, HALF_DAY_S, DAY_S = 31_536_000, 43_200, 86_400
KEY = ec.generate_private_key(ec.SECP256R1())
KEYS: dict[str, Any] = {"ES256": KEY, "HS256": "secret" * 10, "none": None}


def signed(life_s: int = YEAR_S, algorithm: str = "ES256", **claims: object) -> str:
    """Return a token as Enphase signs them."""
    usual = {"aud": SERIAL, "iss": "Entrez", "enphaseUser": "owner", "iat": NOW, "exp": NOW + life_s, "username": "x"}
    return jwt.encode(usual | claims, KEYS[algorithm], algorithm=algorithm)


def test_a_token_tells_its_gateway_kind_and_life() -> None:
    """What is believed of a token stands in its claims."""
    token = Token.read(signed(HALF_DAY_S, enphaseUser="installer"), now=NOW, serial=SERIAL)

    assert (token.serial, token.kind, token.issued_at, token.expires_at) == (SERIAL, "installer", NOW, NOW + HALF_DAY_S)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON Web Token"),
        ("<html>queue full</html>", "no JSON Web Token"),
        ("a.b.c", "no JSON Web Token"),
        (signed(algorithm="HS256"), "ES256"),
        (signed(algorithm="none"), "ES256"),
        (signed(aud="999999999999"), "another gateway"),
        (signed(iss="Somebody"), "not issued by Entrez"),
        (signed(-1), "expired"),
        (signed(exp="soon"), "when it expires"),
        (signed(exp=float("inf")), "when it expires"),
        (signed(aud="../../etc/passwd"), "names no gateway"),
        (signed(aud=None), "no JSON Web Token|names no gateway"),
    ],
)
def test_a_text_that_is_not_the_token_asked_for_is_refused_with_the_reason(text: str, why: str) -> None:
    """An error page, another gateway's token, or an old one are not saved as if they were good."""
    with pytest.raises(NotAToken, match=why):
        Token.read(text, now=NOW, serial=SERIAL)


@pytest.mark.parametrize(
    ("life_s", "left_s"),
    [(YEAR_S, 30 * DAY_S), (100 * DAY_S, 10 * DAY_S), (HALF_DAY_S, HALF_DAY_S // 10), (3600, 600)],
)
def test_a_token_is_renewed_with_a_tenth_of_its_life_left_within_bounds(life_s: int, left_s: int) -> None:
    """A year's token a month before its end, an installer's over an hour, none later than ten minutes."""
    token = Token.read(signed(life_s), now=NOW)

    assert token.expires_at - token.renew_at() == left_s


def test_a_token_shows_nothing_of_itself_in_a_log() -> None:
    """Neither it nor its message shows its text."""
    token = Token.read(signed(), now=NOW)

    assert token.text not in repr(token)
    assert token.text not in repr(token.message())


def test_a_token_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    """The cache gives back what it was given."""
    cache, token = TokenCache(tmp_path), Token.read(signed(), now=NOW)

    cache.save(token)

    assert cache.load(SERIAL, NOW) == token


def test_an_expired_token_is_not_given_out_of_the_cache(tmp_path: Path) -> None:
    """What no gateway would accept is fetched anew, and nothing is wrong with the file."""
    cache = TokenCache(tmp_path)
    cache.save(Token.read(signed(10), now=NOW))

    assert cache.load(SERIAL, NOW + 11) is None
    assert cache.path(SERIAL).exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"{}", b"[]", b"[" * 100_000, b'{"text": 1}', b'{"text": "***", "fetched_at": 0}', b'"eyJ.eyJ.x"'],
)
def test_a_damaged_file_in_the_cache_is_put_aside(content: bytes, tmp_path: Path) -> None:
    """It is not obeyed, and not deleted, nor is the one before it."""
    cache = TokenCache(tmp_path)
    for _time in range(2):
        cache.path(SERIAL).write_bytes(content)

        assert cache.load(SERIAL, NOW) is None

    assert [kept.read_bytes() for kept in tmp_path.glob("*.unusable")] == [content, content]


def test_a_file_in_the_cache_that_is_no_gateways_is_passed_over(tmp_path: Path) -> None:
    """Nobody's notes are taken for a serial number."""
    cache = TokenCache(tmp_path)
    cache.save(Token.read(signed(), now=NOW))
    (tmp_path / "my notes.json").write_text("{}")

    assert cache.serials() == {SERIAL}


@pytest.mark.parametrize("wrapped", ['"{}"', "'{}'", " {}\n"])
def test_a_token_copied_with_something_around_it_is_read(wrapped: str) -> None:
    """As env files and clipboards give it."""
    text = signed()

    assert Token.read(wrapped.format(text), now=NOW, manual=True).text == text


def test_a_foreign_token_in_the_cache_is_put_aside(tmp_path: Path) -> None:
    """A file that holds another gateway's token is not obeyed and not deleted."""
    cache = TokenCache(tmp_path)
    cache.save(Token.read(signed(), now=NOW))
    cache.path(SERIAL).rename(cache.path("999999999999"))

    assert cache.load("999999999999", NOW) is None
    assert cache.path("999999999999").with_suffix(".unusable").exists()


def test_a_token_whose_signature_is_not_enphases_is_refused_where_the_key_is_known() -> None:
    """With the public key a token signed by somebody else is none."""
    ours, others = (
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        for key in (KEY, ec.generate_private_key(ec.SECP256R1()))
    )

    assert Token.read(signed(), now=NOW, public_key=ours).serial == SERIAL
    with pytest.raises(NotAToken, match="ES256"):
        Token.read(signed(algorithm="HS256"), now=NOW, public_key=ours)
    with pytest.raises(NotAToken, match="signature"):
        Token.read(signed(), now=NOW, public_key=others)


def test_a_cached_token_whose_signature_is_not_enphases_is_put_aside(tmp_path: Path) -> None:
    """What somebody else put there is not published."""
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    key = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    TokenCache(tmp_path).save(Token.read(signed(), now=NOW))

    assert TokenCache(tmp_path, key).load(SERIAL, NOW) is None
    assert len(list(tmp_path.glob("*.unusable"))) == 1


def test_a_token_given_by_hand_is_read_even_when_it_has_expired() -> None:
    """A person is told that it has, instead of being refused."""
    assert Token.read(signed(-1), now=NOW, manual=True).kind == "manual"
