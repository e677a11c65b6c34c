"""Tokens that a gateway rejects although they look valid."""

import base64
import json
import time

from shared.tokens import Token, parse_token

HOUR_S = 3600


def with_wrong_signature(token: str) -> str:
    """Return a token for the same gateway without a signature."""
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{signature[::-1]}"


def unsigned_token(serial: str, lifetime_s: int = HOUR_S) -> str:
    """Return a token for a gateway that accepts any."""
    now = int(time.time())
    header: dict[str, object] = {"alg": "ES256", "typ": "JWT"}
    claims: dict[str, object] = {
        "aud": serial,
        "iss": "Entrez",
        "enphaseUser": "owner",
        "exp": now + lifetime_s,
        "iat": now,
    }
    return f"{_encode(header)}.{_encode(claims)}.c2lnbmF0dXJl"


def broker_token(serial: str, signature: str = "c2lnbmF0dXJl", lifetime_s: int = HOUR_S) -> Token:
    """Return such a token as token_broker publishes it."""
    signed = unsigned_token(serial, lifetime_s).rpartition(".")[0]
    return parse_token(f"{signed}.{signature}", now=time.time(), manual=True)


def _encode(part: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
