"""Tokens: told from what is none, and kept on disk.

A token is a JSON Web Token that Enphase signs with ES256 for one gateway: ``aud`` is its serial number, ``iss`` is
``Entrez``, ``enphaseUser`` says owner (a year) or installer (twelve hours).
"""

import json
import logging
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import jwt

from shared.messages import TokenKind, TokenMessage, TokenStatus

logger = logging.getLogger(__name__)

DAY_S = 86_400
LONGEST_MARGIN_S = 30 * DAY_S
SHORTEST_MARGIN_S = 600


class NotAToken(ValueError):  # noqa: N818 - what it is
    """A text is not the token that was asked for; the message says why, never what it holds."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token for one gateway; its text stays out of ``repr``."""

    text: str = field(repr=False)
    serial: str
    kind: TokenKind
    issued_at: int
    expires_at: int

    @classmethod
    def read(cls, text: str, *, now: float, serial: str | None = None, by_hand: bool = False) -> Self:
        """Return the token that a text is.

        Args:
            text: what was handed out.
            now: epoch seconds.
            serial: the gateway it must be for; None takes any.
            by_hand: it came from a person.

        Raises:
            NotAToken: it is none, is not signed with ES256, is for another gateway, or has expired.
        """
        text = text.strip()
        try:
            header = jwt.get_unverified_header(text)
            # The gateway checks the signature; what is checked here is that an error page is not taken for a token.
            claims = jwt.decode(text, options={"verify_signature": False})
        except jwt.PyJWTError:
            raise NotAToken("it is no JSON Web Token") from None
        if header.get("alg") != "ES256":
            raise NotAToken("it is not signed with ES256")
        audience, issuer, expires_at = claims.get("aud"), claims.get("iss"), claims.get("exp")
        issued_at = claims.get("iat", now)
        if not isinstance(audience, str) or (serial is not None and audience != serial):
            raise NotAToken("it is for another gateway")
        if issuer != "Entrez":
            raise NotAToken("it was not issued by Entrez")
        if not isinstance(expires_at, int | float) or not isinstance(issued_at, int | float) or expires_at <= now:
            raise NotAToken("it has expired")
        kind: TokenKind = "manual" if by_hand else "installer" if claims.get("enphaseUser") == "installer" else "owner"
        return cls(text, audience, kind, int(issued_at), int(expires_at))

    def renew_at(self) -> int:
        """Return when to fetch the next one: with a tenth of its life left, thirty days and ten minutes the bounds."""
        tenth_s = (self.expires_at - self.issued_at) // 10
        return self.expires_at - max(SHORTEST_MARGIN_S, min(LONGEST_MARGIN_S, tenth_s))

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

    def status(self, now: float) -> TokenStatus:
        """Return what is published for everybody while all is well."""
        return TokenStatus(
            state="ok",
            message=f"{self.kind} token, good for {self.days_left(now):g} days",
            expires_at=self.expires_at,
            days_left=self.days_left(now),
        )


@dataclass(frozen=True, slots=True)
class TokenCache:
    """A folder with one file for each gateway's token, readable only by its owner."""

    folder: Path

    def path(self, serial: str) -> Path:
        """Return the file of a gateway's token."""
        return self.folder / f"{serial}.json"

    def load(self, serial: str, now: float) -> Token | None:
        """Return the token kept for a gateway if it is still good; a file that holds none is put aside."""
        path = self.path(serial)
        try:
            kept = json.loads(path.read_bytes())
            return Token.read(kept["text"], now=now, serial=serial)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            aside = path.with_suffix(".unusable")
            path.replace(aside)
            reason = error if isinstance(error, NotAToken) else "it cannot be read"
            logger.warning("the token kept in %s is not used: %s; moved to %s", path, reason, aside)
            return None

    def save(self, token: Token) -> None:
        """Keep a token: written beside, flushed to disk, then moved into place."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes the file readable by its owner alone.
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=f".{token.serial}.")
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(token), file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(self.path(token.serial))
