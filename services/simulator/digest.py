"""HTTP digest authentication as required by firmware before 7 (RFC 7616, MD5, ``qop=auth``)."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from urllib.request import parse_http_list, parse_keqv_list

NONCE_LIFETIME_S = 300.0
REALM = "enphaseenergy.com"


class DigestVerifier:
    """Issues nonces and verifies the digests computed with them."""

    def __init__(self, passwords: Mapping[str, str], nonce_lifetime_s: float = NONCE_LIFETIME_S) -> None:
        """Prepare.

        Args:
            passwords: by user name.
            nonce_lifetime_s: how long a nonce is accepted.
        """
        self._passwords = passwords
        self._nonce_lifetime_s = nonce_lifetime_s
        self._secret = secrets.token_bytes(32)

    def challenge(self, *, stale: bool = False) -> str:
        """Return the value of a ``WWW-Authenticate`` header with a new nonce."""
        issued_at = f"{time.monotonic():.6f}"
        nonce = f"{issued_at}-{self._sign(issued_at)}"
        challenge = f'Digest realm="{REALM}", qop="auth", algorithm=MD5, nonce="{nonce}"'
        return f"{challenge}, stale=true" if stale else challenge

    def verify(self, method: str, target: str, authorization: str | None) -> bool | None:
        """Return whether an ``Authorization`` header is valid; None if only its nonce has expired."""
        scheme, _, rest = (authorization or "").partition(" ")
        if scheme.lower() != "digest":
            return False
        try:
            fields = parse_keqv_list(parse_http_list(rest))
            password = self._passwords[fields["username"]]
            nonce, uri, response = fields["nonce"], fields["uri"], fields["response"]
            qop = fields.get("qop")
            middle = f"{nonce}:{fields['nc']}:{fields['cnonce']}:{qop}" if qop else nonce
        except (KeyError, ValueError):
            return False
        issued_at, _, signature = nonce.partition("-")
        if uri != target or not hmac.compare_digest(signature, self._sign(issued_at)):
            return False
        ha1, ha2 = _md5(f"{fields['username']}:{REALM}:{password}"), _md5(f"{method}:{uri}")
        if not hmac.compare_digest(response, _md5(f"{ha1}:{middle}:{ha2}")):
            return False
        return True if time.monotonic() - float(issued_at) < self._nonce_lifetime_s else None

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()[:32]


def _md5(text: str) -> str:
    """Return the MD5 of a text, which RFC 7616 calls ``H``."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
