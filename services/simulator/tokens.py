"""The JWTs of the simulated Enlighten: signed ES256 with a key that outlives a restart."""

import hashlib
import secrets
import time
from collections.abc import Callable

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

LIFETIME_S = {"owner": 31_536_000, "installer": 43_200}
_KEPT = 256


class TokenMint:
    """Signs tokens as Enlighten does, and checks them as a gateway does. They live by a clock of their own."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._key = key
        self._public_key = key.public_key()
        public = self._public_key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key_id = hashlib.sha256(public).hexdigest()[:32]
        self._checked: dict[tuple[str, str], float] = {}

    def issue(self, serial: str, account: str, username: str, lifetime_s: float | None = None) -> str:
        """Return a token for one gateway. The lifetime is Enlighten's for that kind of account where not given."""
        now = int(self.clock())
        claims = {
            "aud": serial,
            "iss": "Entrez",
            "enphaseUser": account,
            "exp": now + int(LIFETIME_S[account] if lifetime_s is None else lifetime_s),
            "iat": now,
            "jti": secrets.token_hex(16),
            "username": username,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._key_id})

    def is_valid(self, token: str, serial: str) -> bool:
        """Return whether a token is signed by this mint, meant for this gateway and not expired."""
        expires_at = self._checked.get((token, serial))
        if expires_at is None:
            try:
                claims = jwt.decode(
                    token, self._public_key, algorithms=["ES256"], audience=serial, options={"require": ["exp", "aud"]}
                )
            except jwt.InvalidTokenError:
                return False
            expires_at = float(claims["exp"])
            if len(self._checked) >= _KEPT:
                self._checked.clear()
            self._checked[token, serial] = expires_at
        return time.time() < expires_at
