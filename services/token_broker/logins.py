"""The log-ins of an account, recorded on disk so that Enphase never locks it.

An attempt is recorded before it is made, so one of a process that is killed counts too. Within a day at most three are
made that Enphase may have rejected; a success or other credentials start a new count. Processes that share the folder
share the count and log in one after the other.
"""

import fcntl
import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from shared.files import make_folder, quarantine, write_atomically
from shared.messages import TokenState

DAY_S = 86_400.0
MAX_REJECTED_PER_DAY = 3


class _Record(BaseModel):
    """The content of the file; times are epoch seconds."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    salt: Annotated[str, Field(pattern="^([0-9a-f]{2})*$")] = ""
    credentials: str = ""
    """A digest, by which changed credentials are noticed."""
    tried_at: list[float] = []
    """Attempts that Enphase has rejected or may have rejected."""
    clock_behind_since: float | None = None
    """The lowest time that the clock has shown while it is behind the other times here; None while it is not."""
    stay_away_until: float = 0.0
    state: TokenState = "bad_credentials"
    message: str = "the last log-ins were interrupted before Enphase responded"
    """State and message of the last refusal."""
    renewed_at: dict[str, float] = {}
    """When a rejected token was last exchanged, by serial number."""


class LoginRecord:
    """The log-ins of one account; times are epoch seconds.

    Methods that write raise OSError if they cannot, and must be called inside :meth:`locked`.
    """

    def __init__(self, path: Path, email: str, password: SecretStr) -> None:
        """Read the file; a corrupt one counts as none until :meth:`locked` quarantines it. Raises OSError."""
        self._path = path
        self._credentials = SecretStr(f"{email}\0{password.get_secret_value()}")
        try:
            record = self._read()
        except ValidationError:
            record = _Record()
        if not self._has_our_credentials(record):
            salt = secrets.token_hex(16)
            record = _Record(salt=salt, credentials=self._digest(salt), renewed_at=record.renewed_at)
        self._record = record

    @property
    def last_refusal(self) -> tuple[TokenState, str]:
        """State and message of the last refusal, also of another process."""
        return self._record.state, self._record.message

    def next_attempt_at(self, now: float) -> float:
        """Return when the next log-in is allowed; a time in the past means now."""
        wait_until = self._past(self._record.stay_away_until - DAY_S, now) + DAY_S
        attempts = sorted(self._past(at, now) for at in self._attempts_of_a_day(now))
        if len(attempts) < MAX_REJECTED_PER_DAY:
            return wait_until
        return max(wait_until, attempts[-MAX_REJECTED_PER_DAY] + DAY_S)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from logging in, after reading what they have recorded.

        Raises:
            OSError: the folder cannot be written, so no log-in may be attempted.
        """
        make_folder(self._path.parent)
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                record = self._read()
            except ValidationError:
                quarantine(self._path, "it is not a record of log-ins")
                record = _Record()
            unchanged = (record.salt, record.credentials) == (self._record.salt, self._record.credentials)
            # A process with other credentials must not reset the count for ours.
            if unchanged or self._has_our_credentials(record):
                self._record = record
            yield

    def record_attempt(self, now: float) -> None:
        """Record that a log-in is about to be made."""
        self._record.tried_at = [*self._attempts_of_a_day(now), now]
        self._write()

    def undo_attempt(self) -> None:
        """Remove the last attempt: Enphase has not judged it."""
        self._record.tried_at.pop()
        self._write()

    def record_success(self) -> None:
        """Remove all attempts."""
        self._record.tried_at, self._record.stay_away_until = [], 0.0
        self._write()

    def record_refusal(self, state: TokenState, message: str, wait_until: float) -> None:
        """Record why the last request was refused, and until when none is allowed."""
        self._record.state, self._record.message = state, message
        self._record.stay_away_until = max(self._record.stay_away_until, wait_until)
        self._write()

    def record_clock(self, now: float) -> None:
        """Record whether the clock is behind the recorded times, so that a wait for one of them ends after a day."""
        behind_since = self._clock_behind_since(now)
        if behind_since != self._record.clock_behind_since:
            self._record.clock_behind_since = behind_since
            self._write()

    def claim_renewal(self, serial: str, now: float) -> bool:
        """Return True once a day, when the token that a gateway rejects may be exchanged, and record it.

        It locks the record itself.
        """
        with self.locked():
            if now - min(now, self._record.renewed_at.get(serial, 0.0)) < DAY_S:
                return False
            self._record.renewed_at[serial] = now
            self._write()
            return True

    def _attempts_of_a_day(self, now: float) -> list[float]:
        return [at for at in self._record.tried_at if self._past(at, now) > now - DAY_S]

    def _past(self, at: float, now: float) -> float:
        """Return a recorded time; for one in the future, since when the clock is behind, so that its day ends."""
        behind_since = self._clock_behind_since(now)
        return at if at <= now or behind_since is None else behind_since

    def _clock_behind_since(self, now: float) -> float | None:
        """Return the lowest time that the clock has shown while behind a recorded time; None if it is not behind.

        Either it is behind now, or it was ahead when the time was recorded.
        """
        record = self._record
        if max([*record.tried_at, record.stay_away_until - DAY_S]) <= now:
            return None
        return now if record.clock_behind_since is None else min(now, record.clock_behind_since)

    def _read(self) -> _Record:
        """Return what is on disk. Raises OSError, and ValidationError if it is corrupt."""
        try:
            return _Record.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Record()

    def _write(self) -> None:
        write_atomically(self._path, self._record.model_dump_json())

    def _has_our_credentials(self, record: _Record) -> bool:
        return bool(record.salt) and record.credentials == self._digest(record.salt)

    def _digest(self, salt: str) -> str:
        # A slow hash, so that the password cannot be found by trying.
        credentials = self._credentials.get_secret_value().encode()
        return hashlib.scrypt(credentials, salt=bytes.fromhex(salt), n=2**14, r=8, p=1).hex()
