"""Tokens for the tests of token_broker, signed with a key of our own."""

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.tokens import Token, parse_token

NOW = 1_800_000_000
SERIAL = "122012345678"
DAY_S = 86_400
YEAR_S, HALF_DAY_S = 365 * DAY_S, DAY_S // 2
KEY = ec.generate_private_key(ec.SECP256R1())


def new_token(lifetime_s: int = YEAR_S, *, manual: bool = False, **claims: object) -> Token:
    """Return a token as Enphase issues them."""
    usual = {"aud": SERIAL, "iss": "Entrez", "enphaseUser": "owner", "iat": NOW, "exp": NOW + lifetime_s}
    return parse_token(jwt.encode(usual | claims, KEY, algorithm="ES256"), now=NOW, manual=manual)


def public_key(private_key: ec.EllipticCurvePrivateKey = KEY) -> str:
    """Return a public key as PEM."""
    return private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
