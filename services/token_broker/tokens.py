"""Tokens: told from what is none, and kept on disk.

A token is a JSON Web Token that Enphase signs with ES256 for one gateway: ``aud`` is its serial number, ``iss`` is
``Entrez``, ``enphaseUser`` says owner (a year) or installer (twelve hours).
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeGuard

import jwt
from jwt.types import Options

from services.token_broker.files import quarantine, write_private
from shared.messages import TokenMessage
from shared.tokens import TokenKind
from shared.topics import SERIAL_PATTERN

DAY_S = 86_400
MAX_MARGIN_S = 30 * DAY_S
MIN_MARGIN_S = 600
ONLY_SIGNATURE: Options = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
}
"""The claims are checked here one by one, so that each has its own message."""

NOT_ES256 = "it is not signed with ES256"


class NotAToken(ValueError):
    """A text is not the token that was asked for; the message says why, never what it holds."""


class Expired(NotAToken):
    """It was a good token once."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token for one gateway; its text stays out of ``repr``."""

    text: str = field(repr=False)
    serial: str
    kind: TokenKind
    issued_at: int
    expires_at: int
    fetched_at: int
    """When it was handed out, by our clock."""

    @classmethod
    def read(
        cls,
        text: str,
        *,
        now: float,
        serial: str | None = None,
        manual: bool = False,
        public_key: str | None = None,
        fetched_at: float | None = None,
    ) -> Self:
        """Return the token that a text is.

        Args:
            text: what was handed out.
            now: epoch seconds.
            serial: the gateway it must be for; None takes any.
            manual: it came from a person, who is also told of one that has expired.
            public_key: Enphase's, as PEM, to check the signature with; without it only the gateway checks.
            fetched_at: epoch seconds; now if None. It stands in for a time of issue that the token does not tell.

        Raises:
            NotAToken: it is none, is not signed with ES256, is for another gateway, or has expired.
        """
        text = text.strip().strip("\"'").strip()  # it is often copied with the quotes around it
        fetched_at = now if fetched_at is None else fetched_at
        claims = _claims(text, public_key)
        serial_told, issuer, expires_at = claims.get("aud"), claims.get("iss"), claims.get("exp")
        issued_at = claims.get("iat", fetched_at)
        if not isinstance(serial_told, str) or not SERIAL_PATTERN.fullmatch(serial_told):
            raise NotAToken("it names no gateway")
        if serial not in (None, serial_told):
            raise NotAToken(f"it is for another gateway than {serial}")
        if issuer != "Entrez":
            raise NotAToken("it was not issued by Entrez")
        if not _is_time(expires_at) or not _is_time(issued_at):
            raise NotAToken("it does not say when it expires")
        if expires_at <= now and not manual:
            raise Expired("it has expired, if the clock here is right")
        kind: TokenKind = "manual" if manual else "installer" if claims.get("enphaseUser") == "installer" else "owner"
        return cls(text, serial_told, kind, int(issued_at), int(expires_at), int(fetched_at))

    def renew_at(self) -> int:
        """Return when to fetch the next one: with a tenth of its life left, thirty days and ten minutes the bounds."""
        tenth_s = (self.expires_at - self.issued_at) // 10
        return self.expires_at - max(MIN_MARGIN_S, min(MAX_MARGIN_S, tenth_s))

    def days_left(self, now: float) -> float:
        """Return for how many days it is still good, to a hundredth."""
        return round(max(0.0, self.expires_at - now) / DAY_S, 2)

    def message(self) -> TokenMessage:
        """Return what is published on the secret topic."""
        return TokenMessage(
            token=self.text,  # type: ignore[arg-type]  # pydantic makes the secret of the text
            serial=self.serial,
            kind=self.kind,
            issued_at=self.issued_at,
            expires_at=self.expires_at,
        )


def _claims(text: str, public_key: str | None) -> dict[str, Any]:
    """Return what a text claims that is signed as a token must be."""
    try:
        header = jwt.get_unverified_header(text)
        claims = jwt.decode(text, options={"verify_signature": False})
        if public_key is not None:
            jwt.decode_complete(text, public_key, algorithms=["ES256"], options=ONLY_SIGNATURE)
    except jwt.InvalidSignatureError:
        raise NotAToken("its signature is not Enphase's") from None
    except jwt.InvalidAlgorithmError:
        raise NotAToken(NOT_ES256) from None
    except (jwt.PyJWTError, ValueError, RecursionError):  # the last two for letters and depths that no token has
        raise NotAToken("it is no JSON Web Token") from None
    if header.get("alg") != "ES256":
        raise NotAToken(NOT_ES256)
    return claims


def _is_time(claim: object) -> TypeGuard[int | float]:
    return isinstance(claim, int | float) and 0 <= claim < 2**32  # which NaN is not, either


@dataclass(frozen=True, slots=True)
class TokenCache:
    """A folder with one file for each gateway's token, readable only by its owner."""

    folder: Path
    public_key: str | None = None
    """Enphase's, to check the signature of what lies there with."""

    def path(self, serial: str) -> Path:
        """Return the file of a gateway's token."""
        return self.folder / f"{serial}.json"

    def load(self, serial: str, now: float) -> Token | None:
        """Return the token kept for a gateway if it is still good; a file that holds none is put aside."""
        path = self.path(serial)
        try:
            kept = json.loads(path.read_bytes())
            return Token.read(
                kept["text"],
                now=now,
                serial=serial,
                public_key=self.public_key,
                fetched_at=min(now, float(kept["fetched_at"])),  # later, if the clock was ahead then
            )
        except (FileNotFoundError, Expired):
            return None
        except NotAToken as error:
            quarantine(path, str(error))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            quarantine(path, "it cannot be read")
        return None

    def save(self, token: Token) -> None:
        """Keep a token."""
        write_private(self.path(token.serial), json.dumps(asdict(token)))

    def serials(self) -> set[str]:
        """Return the gateways that a token was ever kept for."""
        return {path.stem for path in self.folder.glob("*.json") if SERIAL_PATTERN.fullmatch(path.stem)}
