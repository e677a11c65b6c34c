"""HTTP digest authentication, as firmware before 7 asks for it (RFC 7616, MD5, qop=auth)."""

import hashlib
import hmac
import secrets
import time
from urllib.request import parse_http_list, parse_keqv_list

NONCE_LIFETIME_S = 300.0
_REALM = "enphaseenergy.com"


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class DigestCheck:
    """Hands out nonces and checks what comes back. Passwords are kept by user name."""

    def __init__(self, passwords: dict[str, str], nonce_lifetime_s: float = NONCE_LIFETIME_S) -> None:
        self._passwords = passwords
        self._nonce_lifetime_s = nonce_lifetime_s
        self._secret = secrets.token_bytes(32)

    def challenge(self, *, stale: bool = False) -> str:
        """Return the value of a WWW-Authenticate header with a fresh nonce."""
        stamp = f"{time.monotonic():.6f}"
        nonce = f"{stamp}-{self._seal(stamp)}"
        return f'Digest realm="{_REALM}", qop="auth", algorithm=MD5, nonce="{nonce}"' + (
            ", stale=true" if stale else ""
        )

    def check(self, method: str, target: str, authorization: str | None) -> bool | None:
        """Return whether an Authorization header is good; None where all is right but the nonce has grown old."""
        scheme, _, rest = (authorization or "").partition(" ")
        if scheme.lower() != "digest":
            return False
        try:
            fields = parse_keqv_list(parse_http_list(rest))
            password = self._passwords[fields["username"]]
            nonce, uri, response = fields["nonce"], fields["uri"], fields["response"]
            quality = fields.get("qop")
            middle = f"{nonce}:{fields['nc']}:{fields['cnonce']}:{quality}" if quality else nonce
        except (KeyError, ValueError):
            return False
        stamp, _, seal = nonce.partition("-")
        if uri != target or not hmac.compare_digest(seal, self._seal(stamp)):
            return False
        who, what = _md5(f"{fields['username']}:{_REALM}:{password}"), _md5(f"{method}:{uri}")
        proof = _md5(f"{who}:{middle}:{what}")
        if not hmac.compare_digest(response, proof):
            return False
        return True if time.monotonic() - float(stamp) < self._nonce_lifetime_s else None

    def _seal(self, stamp: str) -> str:
        return hmac.new(self._secret, stamp.encode(), hashlib.sha256).hexdigest()[:32]
