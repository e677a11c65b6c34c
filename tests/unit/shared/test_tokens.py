import base64
import json
import subprocess
import sys
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from shared.payload import InvalidPayload
from shared.tokens import MAX_TOKEN_LENGTH, ExpiredToken, InvalidToken, Token, parse_token
from tests.programs import ROOT

NOW = 1_800_000_000
SERIAL = "122012345678"
DAY_S = 86_400
YEAR_S = 365 * DAY_S
KEY = ec.generate_private_key(ec.SECP256R1())
SIGNING_KEYS: dict[str, Any] = {"ES256": KEY, "HS256": "secret" * 10, "none": None}


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public key that checks the signatures of a private one."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


PUBLIC_KEY = pem(KEY)


def signed(algorithm: str = "ES256", **claims: object) -> str:
    """Return a token as Enphase signs them; a claim that is None is left out."""
    usual = {"aud": SERIAL, "iss": "Entrez", "enphaseUser": "owner", "iat": NOW, "exp": NOW + YEAR_S, "username": "x"}
    present = {name: value for name, value in (usual | claims).items() if value is not None}
    return jwt.encode(present, SIGNING_KEYS[algorithm], algorithm=algorithm)


def part(value: object) -> str:
    """Return a value as a part of a JSON Web Token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("claims", "manual", "kind"),
    [
        ({}, False, "owner"),
        ({"enphaseUser": "installer"}, False, "installer"),
        ({"enphaseUser": None}, False, "owner"),
        ({"enphaseUser": "installer"}, True, "manual"),
    ],
)
def test_a_token_has_the_gateway_kind_and_times_of_its_claims(
    claims: dict[str, Any], kind: str, *, manual: bool
) -> None:
    """A token that a person has set is manual, also an installer's."""
    text = signed(**claims)

    token = parse_token(text, now=NOW, serial=SERIAL, manual=manual, public_key=PUBLIC_KEY)

    assert token.token.get_secret_value() == text
    assert (token.serial, token.kind, token.issued_at, token.expires_at) == (SERIAL, kind, NOW, NOW + YEAR_S)


@pytest.mark.parametrize("wrapping", ["{}", "{}\n", '"{}"', "'{}'", ' "{}" \n'])
def test_spaces_and_quotes_around_a_copied_token_are_removed(wrapping: str) -> None:
    """It is pasted from a web page or read from a file."""
    text = signed()

    assert parse_token(wrapping.format(text), now=NOW).token.get_secret_value() == text


@pytest.mark.parametrize(
    ("audience", "serial"),
    [(SERIAL, None), ([SERIAL], None), (["x" * 99, SERIAL], None), (["999999999999", SERIAL], SERIAL)],
)
def test_the_gateway_of_a_token_may_be_one_of_a_list(audience: object, serial: str | None) -> None:
    """The claim ``aud`` is a text or a list (RFC 7519, section 4.1.3)."""
    assert parse_token(signed(aud=audience), now=NOW, serial=serial).serial == SERIAL


def test_a_token_without_a_time_of_issue_was_issued_when_it_was_fetched() -> None:
    """Its lifetime can be computed."""
    text = signed(iat=None)

    assert parse_token(text, now=NOW, fetched_at=NOW - 60).issued_at == NOW - 60
    assert parse_token(text, now=NOW).issued_at == NOW


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a JSON Web Token"),
        ("<html>queue full</html>", "not a JSON Web Token"),
        ("a.b.c", "not a JSON Web Token"),
        (signed() + ".x", "not a JSON Web Token"),
        (signed()[:-86] + "signature with spaces", "not a JSON Web Token"),
        (f"{part([1])}.{part({})}.x", "not a JSON Web Token"),
        (f"{part({'alg': 'ES256'})}.{part('text')}.x", "not a JSON Web Token"),
        (signed(padding="x" * MAX_TOKEN_LENGTH), "not a JSON Web Token"),
        (signed("HS256"), "ES256"),
        (signed("none"), "ES256|not a JSON Web Token"),
        (signed(aud="999999999999"), f"another gateway than {SERIAL}"),
        (signed(aud=["999999999999"]), "another gateway"),
        (signed(aud="../../etc/passwd"), "names no gateway"),
        (signed(aud=None), "names no gateway"),
        (signed(aud=[]), "names no gateway"),
        (signed(iss="Other"), "not issued by Entrez"),
        (signed(iss=None), "not issued by Entrez"),
        (signed(exp=NOW - 1), "expired"),
        (signed(exp=None), "time of issue or expiry"),
        (signed(exp="soon"), "time of issue or expiry"),
        (signed(exp=float("inf")), "time of issue or expiry"),
        (signed(exp=float("nan")), "time of issue or expiry"),
        (signed(exp=True), "time of issue or expiry"),
        (signed(exp=2**32), "time of issue or expiry"),
        (signed(iat="now"), "time of issue or expiry"),
    ],
)
def test_a_text_that_is_not_the_expected_token_is_rejected_with_the_reason(text: str, reason: str) -> None:
    """An error page, another gateway's token or an expired one is never stored as a token."""
    with pytest.raises(InvalidToken, match=reason) as rejected:
        parse_token(text, now=NOW, serial=SERIAL)

    assert not text or text not in str(rejected.value)


def test_an_expired_token_is_an_error_of_its_own_and_is_returned_if_manual() -> None:
    """The person who has set it reads that it has expired, not that it is invalid."""
    text = signed(exp=NOW)

    with pytest.raises(ExpiredToken):
        parse_token(text, now=NOW)
    assert parse_token(text, now=NOW, manual=True).expires_at == NOW


TOKEN = signed()


def json_values() -> st.SearchStrategy[object]:
    """Return a strategy for what JSON can hold."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    return st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


def claims() -> st.SearchStrategy[dict[str, object]]:
    """Return a strategy for claims of the names that are read, with plausible and with arbitrary values."""
    plausible: dict[str, st.SearchStrategy[object]] = {
        "aud": st.just(SERIAL),
        "iss": st.just("Entrez"),
        "iat": st.integers(0, 2**32),
        "exp": st.integers(NOW, 2**33),
        "enphaseUser": st.sampled_from(["owner", "installer"]),
    }
    return st.fixed_dictionaries({}, optional={name: values | json_values() for name, values in plausible.items()})


TEXTS = st.one_of(
    st.text(),
    st.binary().map(lambda data: data.decode(errors="surrogateescape")),
    st.builds(
        "{}.{}.{}".format,
        st.one_of(st.just(part({"alg": "ES256"})), json_values().map(part), st.text()),
        st.one_of(claims().map(part), json_values().map(part), st.text(alphabet="AZaz09-_")),
        st.text(alphabet="AZaz09-_") | st.text(),
    ),
    st.builds(lambda at, inserted: TOKEN[:at] + inserted + TOKEN[at + 1 :], st.integers(0, len(TOKEN)), st.text()),
)


@pytest.mark.parametrize("public_key", [None, PUBLIC_KEY], ids=["no key", "with the key"])
@given(text=TEXTS, manual=st.booleans(), serial=st.sampled_from([None, SERIAL, "999999999999"]))
def test_every_text_is_a_token_or_an_invalid_token(
    public_key: str | None, text: str, serial: str | None, *, manual: bool
) -> None:
    """No text from outside raises anything else."""
    try:
        token = parse_token(text, now=NOW, serial=serial, manual=manual, public_key=public_key)
    except InvalidToken:
        return
    assert serial in (None, token.serial)
    assert token.expires_at > NOW or manual


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deeply_nested_claims_are_rejected(depth: int) -> None:
    """The decoder's recursion limit does not end the service."""
    nested = base64.urlsafe_b64encode(b"[" * depth).decode().rstrip("=")

    with pytest.raises(InvalidToken):
        parse_token(f"{part({'alg': 'ES256'})}.{nested}.x", now=NOW)


@given(change=st.integers(1, 255), at=st.integers(0, 63))
def test_with_a_key_a_changed_signature_is_rejected(change: int, at: int) -> None:
    """Each byte of the signature counts."""
    head, _dot, encoded = signed().rpartition(".")
    signature = bytearray(base64.urlsafe_b64decode(encoded + "=="))
    signature[at] ^= change
    forged = f"{head}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"

    with pytest.raises(InvalidToken, match="signature"):
        parse_token(forged, now=NOW, public_key=PUBLIC_KEY)


def test_with_a_key_changed_claims_are_rejected() -> None:
    """A token for one gateway cannot be made into one for another."""
    header, _claims, signature = signed().split(".")
    changed = part({"aud": "999999999999", "iss": "Entrez", "iat": NOW, "exp": NOW + YEAR_S})

    with pytest.raises(InvalidToken, match="signature"):
        parse_token(f"{header}.{changed}.{signature}", now=NOW, public_key=PUBLIC_KEY)


def test_with_another_key_a_token_is_rejected() -> None:
    """Only Enphase's own key signs tokens."""
    with pytest.raises(InvalidToken, match="signature"):
        parse_token(signed(), now=NOW, public_key=pem(ec.generate_private_key(ec.SECP256R1())))


def test_a_token_is_not_in_a_log() -> None:
    """Neither the token's text nor a repr of it."""
    token = parse_token(signed(), now=NOW)

    assert token.token.get_secret_value() not in repr(token)


def test_a_token_published_and_received_is_the_same() -> None:
    """Its text is in the payload, which is for the secret topic only."""
    token = parse_token(signed(), now=NOW)

    assert Token.from_json(token.to_json()) == token


@pytest.mark.parametrize("text", ["", "two words", "line\nbreak", "ümlaut"])
def test_a_payload_with_a_token_that_no_header_can_hold_is_rejected(text: str) -> None:
    """It would end up in an HTTP request."""
    fields = {"token": text, "serial": SERIAL, "kind": "owner", "issued_at": NOW, "expires_at": NOW + 1}

    with pytest.raises(InvalidPayload, match="token") as rejected:
        Token.from_json(json.dumps(fields).encode())

    assert not text or text not in str(rejected.value)


@pytest.mark.parametrize(
    ("text", "at", "valid"),
    [
        (signed(), NOW, True),
        (signed(), NOW + YEAR_S, False),
        (signed(aud="999999999999"), NOW, False),
        ("something-else", NOW, False),
    ],
)
def test_a_token_looks_valid_until_it_expires_and_for_its_gateway_only(text: str, at: int, *, valid: bool) -> None:
    """What a broker retained may be anything; the gateway is spared what cannot work."""
    fields = {"token": text, "serial": SERIAL, "kind": "owner", "issued_at": NOW, "expires_at": NOW + YEAR_S}

    assert Token.from_json(json.dumps(fields).encode()).looks_valid(at) is valid


@pytest.mark.parametrize(
    ("after_s", "days"), [(0, 365.0), (YEAR_S - DAY_S // 2, 0.5), (YEAR_S, 0.0), (2 * YEAR_S, 0.0)]
)
def test_the_days_left_of_a_token_end_at_zero(after_s: int, days: float) -> None:
    """An expired token has none left."""
    assert parse_token(signed(), now=NOW).days_left(NOW + after_s) == days


def test_a_token_is_parsed_without_the_cryptography_library() -> None:
    """The poller checks no signature and saves its memory."""
    program = (
        "import sys; from shared.tokens import parse_token\n"
        f"parse_token({signed()!r}, now={NOW})\n"
        "print(*{'cryptography', 'jwt'} & sys.modules.keys())"
    )

    imported = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert imported.stdout.split() == []
