from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.token_broker.enlighten import AccountLocked, CloudUnreachable, CredentialsRejected, MfaRequired
from services.token_broker.service import retry_delay_s
from services.token_broker.tokens import NotAToken, Token, TokenCache

NOW = 1_800_000_000
SERIAL = "122012345678"
YEAR_S, HALF_DAY_S, DAY_S = 31_536_000, 43_200, 86_400
KEY = ec.generate_private_key(ec.SECP256R1())


def signed(life_s: int = YEAR_S, algorithm: str = "ES256", **claims: object) -> str:
    """Return a token as Enphase signs them."""
    usual = {"aud": SERIAL, "iss": "Entrez", "enphaseUser": "owner", "iat": NOW, "exp": NOW + life_s, "username": "x"}
    return jwt.encode(usual | claims, KEY if algorithm == "ES256" else "secret" * 10, algorithm=algorithm)


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
        (signed(aud="999999999999"), "another gateway"),
        (signed(iss="Somebody"), "not issued by Entrez"),
        (signed(-1), "expired"),
        (signed(exp="soon"), "no JSON Web Token|expired"),
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
    """Neither repr nor status holds its text."""
    token = Token.read(signed(), now=NOW)

    assert token.text not in repr(token)
    assert token.text not in str(token.status(NOW))
    assert token.text not in repr(token.message())


def test_a_token_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    """The cache gives back what it was given."""
    cache, token = TokenCache(tmp_path), Token.read(signed(), now=NOW)

    cache.save(token)

    assert cache.load(SERIAL, NOW) == token


def test_an_expired_token_is_not_given_out_of_the_cache(tmp_path: Path) -> None:
    """What no gateway would accept is put aside."""
    cache = TokenCache(tmp_path)
    cache.save(Token.read(signed(10), now=NOW))

    assert cache.load(SERIAL, NOW + 11) is None


@pytest.mark.parametrize("error", [CredentialsRejected("x"), MfaRequired("x"), AccountLocked("x")])
def test_a_refused_log_in_is_repeated_at_most_three_times_a_day(error: Exception) -> None:
    """Nobody is locked out of their account by us."""
    assert retry_delay_s(error, failures=1) >= DAY_S / 3  # type: ignore[arg-type]  # the parameters are of that tree


def test_a_cloud_that_is_down_is_asked_again_within_seconds_then_ever_more_rarely() -> None:
    """From seconds to an hour, never longer."""
    assert 2 < retry_delay_s(CloudUnreachable("x"), failures=1) <= 5
    assert 1800 <= retry_delay_s(CloudUnreachable("x"), failures=500) <= 3600
