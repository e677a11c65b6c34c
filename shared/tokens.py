"""A gateway's token: a JSON Web Token that Enphase signs with ES256 for one gateway.

Its claims: ``aud`` is the gateway's serial number (a text, or a list of one), ``iss`` is ``Entrez``, ``enphaseUser`` is
``owner`` (valid for a year) or ``installer`` (valid for twelve hours).

The claims are decoded here, without PyJWT, which imports the cryptography library: the poller does not need it, and it
takes 9 MB. With Enphase's public key PyJWT checks the signature; without, only the gateway does.
"""

import base64
import json
import re
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import AfterValidator, Field, SecretStr, field_serializer

from shared.payload import Payload
from shared.readings import Serial, Timestamp
from shared.topics import SERIAL_PATTERN

DAY_S = 86_400
ISSUER = "Entrez"
MAX_TOKEN_LENGTH = 8192
"""Real tokens have about 600 characters."""

TOKEN_PATTERN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
"""Header, claims and signature (RFC 7515, section 7.1)."""

TokenKind = Literal["owner", "installer", "manual"]


class InvalidToken(ValueError):
    """A text is not the expected token; the message is the reason and never quotes the text."""


class ExpiredToken(InvalidToken):
    """The token is no longer valid."""


def _for_a_header(token: SecretStr) -> SecretStr:
    """Return a token that fits into an HTTP header, without the newline that a file ends with."""
    text = token.get_secret_value().strip()
    if not text or not all("!" <= letter <= "~" for letter in text):
        raise ValueError("must be a token: letters, digits, dots, dashes and underscores without spaces")
    return SecretStr(text)


TokenText = Annotated[SecretStr, AfterValidator(_for_a_header), Field(json_schema_extra={"format": "password"})]


class Token(Payload):
    """A token for one gateway, as it is published on the secret topic; times are epoch seconds."""

    token: TokenText
    serial: Serial
    kind: TokenKind
    issued_at: Timestamp
    expires_at: Timestamp

    @field_serializer("token", when_used="json")
    def _reveal(self, token: SecretStr) -> str:
        return token.get_secret_value()

    def days_left(self, now: float) -> float:
        """Return for how many more days it is valid, rounded to a hundredth."""
        return round(max(0.0, self.expires_at - now) / DAY_S, 2)

    def looks_valid(self, now: float) -> bool:
        """Return whether it is a token for its gateway and has not expired; only the gateway checks the signature."""
        try:
            return parse_token(self.token.get_secret_value(), now=now, serial=self.serial).expires_at > now
        except InvalidToken:
            return False


def parse_token(
    text: str,
    *,
    now: float,
    serial: str | None = None,
    manual: bool = False,
    public_key: str | None = None,
    fetched_at: float | None = None,
) -> Token:
    """Return the token in a text.

    Args:
        text: as received or copied; spaces and quotes around it are removed.
        now: epoch seconds.
        serial: the gateway that it must be for; any if None.
        manual: whether a person has set it; an expired one is returned then, so that its age can be reported.
        public_key: Enphase's, as PEM, to check the signature with.
        fetched_at: when it was received, used where the token has no time of issue; now if None.

    Raises:
        ExpiredToken: it is no longer valid, and not ``manual``.
        InvalidToken: it is not a token, its signature is wrong, or it is for another gateway.
    """
    text = text.strip().strip("\"'").strip()
    claims = _claims(text)
    if public_key is not None:
        _check_signature(text, public_key)
    audience, expires_at = _audience(claims, serial), claims.get("exp")
    issued_at = claims.get("iat", now if fetched_at is None else fetched_at)
    if audience is None:
        raise InvalidToken("it names no gateway")
    if serial not in (None, audience):
        raise InvalidToken(f"it is for another gateway than {serial}")
    if claims.get("iss") != ISSUER:
        raise InvalidToken(f"it was not issued by {ISSUER}")
    if not _is_time(expires_at) or not _is_time(issued_at):
        raise InvalidToken("it has no valid time of issue or expiry")
    if expires_at <= now and not manual:
        raise ExpiredToken("it has expired, if the clock of this machine is right")
    kind: TokenKind = "manual" if manual else "installer" if claims.get("enphaseUser") == "installer" else "owner"
    return Token(
        token=SecretStr(text), serial=audience, kind=kind, issued_at=int(issued_at), expires_at=int(expires_at)
    )


def _claims(text: str) -> dict[str, Any]:
    """Return the claims of a JSON Web Token whose header names ES256; the signature is not checked."""
    match = TOKEN_PATTERN.fullmatch(text)
    if match is None or len(text) > MAX_TOKEN_LENGTH:
        raise InvalidToken("it is not a JSON Web Token")
    header, claims = (_decode_part(part) for part in match.groups())
    if header.get("alg") != "ES256":
        raise InvalidToken("it is not signed with ES256")
    return claims


def _decode_part(part: str) -> dict[str, Any]:
    try:
        decoded = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        raise InvalidToken("it is not a JSON Web Token") from None
    if not isinstance(decoded, dict):
        raise InvalidToken("it is not a JSON Web Token")
    return decoded


def _check_signature(text: str, public_key: str) -> None:
    import jwt  # noqa: PLC0415 - see the module

    try:
        # The claims are checked in parse_token, so that each has its own message.
        jwt.PyJWS().decode(text, public_key, algorithms=["ES256"])
    except jwt.InvalidSignatureError:
        raise InvalidToken("its signature is not from Enphase") from None
    except (jwt.PyJWTError, ValueError):
        raise InvalidToken("it is not a JSON Web Token") from None


def _audience(claims: dict[str, Any], serial: str | None) -> str | None:
    """Return the gateway that a token is for: of several the expected one, otherwise the first."""
    audience = claims.get("aud")
    serials = audience if isinstance(audience, list) else [audience]
    valid = [each for each in serials if isinstance(each, str) and SERIAL_PATTERN.fullmatch(each)]
    return serial if serial in valid else next(iter(valid), None)


def _is_time(claim: object) -> TypeGuard[int | float]:
    # True and false are integers in Python; NaN fails the comparison.
    return isinstance(claim, int | float) and not isinstance(claim, bool) and 0 <= claim < 2**32
