"""The tokens on disk: one file for each gateway, readable only by its owner."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.files import quarantine, write_atomically
from shared.tokens import ExpiredToken, InvalidToken, Token, parse_token
from shared.topics import SERIAL_PATTERN


class CachedToken(NamedTuple):
    """A token and when it was fetched, epoch seconds by the clock of this machine."""

    token: Token
    fetched_at: float


class _File(BaseModel):
    """The content of a file; other fields, which earlier versions wrote, are ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    text: str
    fetched_at: float


@dataclass(frozen=True, slots=True)
class TokenCache:
    """A folder of tokens."""

    folder: Path
    public_key: str | None = None
    """Enphase's, as PEM, to check the signature of a cached token with."""

    def path(self, serial: str) -> Path:
        """Return the path of a gateway's token."""
        return self.folder / f"{serial}.json"

    def serials(self) -> set[str]:
        """Return the gateways that have a file."""
        return {path.stem for path in self.folder.glob("*.json") if SERIAL_PATTERN.fullmatch(path.stem)}

    def read(self, serial: str, now: float) -> CachedToken | None:
        """Return the token of a gateway; None without a file, or if the token has expired.

        Raises:
            InvalidToken: the file contains no token for this gateway.
            OSError: the file cannot be read.
        """
        try:
            content = _File.model_validate_json(self.path(serial).read_bytes())
            # A time in the future was recorded while the clock was ahead.
            fetched_at = min(now, content.fetched_at)
            token = parse_token(content.text, now=now, serial=serial, public_key=self.public_key, fetched_at=fetched_at)
        except (FileNotFoundError, ExpiredToken):
            return None
        except ValidationError:
            raise InvalidToken("it is not a cached token") from None
        return CachedToken(token, fetched_at)

    def read_or_quarantine(self, serial: str, now: float) -> CachedToken | None:
        """Return the token of a gateway, as :meth:`read` does; None after moving a corrupt file away.

        Raises:
            OSError: the file cannot be read or moved.
        """
        try:
            return self.read(serial, now)
        except InvalidToken as error:
            quarantine(self.path(serial), str(error))
            return None

    def write(self, cached: CachedToken) -> None:
        """Save a token durably. Raises OSError."""
        file = _File(text=cached.token.token.get_secret_value(), fetched_at=cached.fetched_at)
        write_atomically(self.path(cached.token.serial), file.model_dump_json())
