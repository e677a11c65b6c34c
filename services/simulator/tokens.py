"""The JWTs of the simulated Enlighten, signed ES256 with a key that survives restarts."""

import hashlib
import secrets
import time
from collections.abc import Callable

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

TOKEN_LIFETIME_S = {"owner": 31_536_000, "installer": 43_200}
"""By the kind of account."""
MAX_CACHED = 256


class TokenIssuer:
    """Issues tokens as Enlighten does and verifies them as a gateway does; in real time, not the simulated one."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        """When tokens are issued, epoch seconds."""
        self._key = key
        self._public_key = key.public_key()
        public = self._public_key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key_id = hashlib.sha256(public).hexdigest()[:32]
        self._expires_at: dict[tuple[str, str], float] = {}
        """Of verified tokens, with their gateways, so that each signature is verified once."""

    def issue(self, serial: str, account: str, username: str, lifetime_s: float | None = None) -> str:
        """Return a new token for a gateway.

        Args:
            serial: of the gateway.
            account: kind of account, a key of TOKEN_LIFETIME_S.
            username: of the account.
            lifetime_s: that of the kind of account if None.
        """
        now = int(self.clock())
        claims = {
            "aud": serial,
            "iss": "Entrez",
            "enphaseUser": account,
            "exp": now + int(TOKEN_LIFETIME_S[account] if lifetime_s is None else lifetime_s),
            "iat": now,
            "jti": secrets.token_hex(16),
            "username": username,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._key_id})

    def is_valid(self, token: str, serial: str) -> bool:
        """Return whether a token has this issuer's signature, is for this gateway and has not expired."""
        expires_at = self._expires_at.get((token, serial))
        if expires_at is None:
            try:
                claims = jwt.decode(
                    token, self._public_key, algorithms=["ES256"], audience=serial, options={"require": ["exp", "aud"]}
                )
            except jwt.InvalidTokenError:
                return False
            expires_at = float(claims["exp"])
            if len(self._expires_at) >= MAX_CACHED:
                self._expires_at.clear()
            self._expires_at[token, serial] = expires_at
        return time.time() < expires_at
