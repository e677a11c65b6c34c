"""What is remembered of log-ins, on disk, so that no owner is ever locked out by us.

A log-in is written down before it is tried: a process that is killed in between, or started again and again, cannot
forget it. Three that Enphase rejected within a day are the most; a success or other credentials begin anew. Processes
that share the folder share the count, and log in one after the other.
"""

import fcntl
import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from services.token_broker.files import quarantine, write_private
from shared.messages import TokenState

DAY_S = 86_400.0
MAX_REJECTED_PER_DAY = 3


class _Kept(BaseModel):
    """The file: whose log-ins, when they were tried, how the last one went, and until when to stay away."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    salt: Annotated[str, Field(pattern="^([0-9a-f]{2})*$")] = ""
    credentials: str = ""
    tried_at: list[float] = []
    clock_behind_since: float | None = None
    """Since when, by that clock itself, it shows a time before these: it is behind now, or was ahead then."""
    stay_away_until: float = 0.0
    state: TokenState = "bad_credentials"
    message: str = "the last log-ins were broken off before they were answered"
    renewed_at: dict[str, float] = {}


class LoginRecord:
    """The log-ins of one account; times are epoch seconds."""

    def __init__(self, path: Path, email: str, password: SecretStr) -> None:
        self.path = path
        self._credentials = SecretStr(f"{email}\0{password.get_secret_value()}")
        kept = self._load()
        if self._is_ours(kept):
            self._kept = kept
        else:
            salt = secrets.token_hex(16)
            self._kept = _Kept(salt=salt, credentials=self._digest(salt), renewed_at=kept.renewed_at)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process logs in, keep others from it, and learn what they have tried.

        Raises:
            OSError: the record cannot be written, so that nothing may be tried.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = self._load()
            known = (kept.salt, kept.credentials) == (self._kept.salt, self._kept.credentials)
            # What others tried with other credentials does not begin our count anew.
            if known or self._is_ours(kept):
                self._kept = kept
            yield

    def may_try_at(self, now: float) -> float:
        """Return when the next log-in is allowed; now or earlier means at once."""
        self._look_at_clock(now)
        stay_away_until = self._past(self._kept.stay_away_until - DAY_S, now) + DAY_S
        tried_at = sorted(self._past(at, now) for at in self._lately(now))
        if len(tried_at) < MAX_REJECTED_PER_DAY:
            return stay_away_until
        return max(stay_away_until, tried_at[-MAX_REJECTED_PER_DAY] + DAY_S)

    @property
    def last_refusal(self) -> tuple[TokenState, str]:
        """What the last refusal was, for a process that did not meet it itself."""
        return self._kept.state, self._kept.message

    def trying(self, now: float) -> None:
        """Write down that a log-in is about to be tried."""
        self._kept.tried_at = [*self._lately(now), now]
        self._save()

    def succeeded(self) -> None:
        """Forget all that was rejected."""
        self._kept.tried_at, self._kept.stay_away_until = [], 0.0
        self._save()

    def without_verdict(self) -> None:
        """Take back the last try: Enphase did not get to judge it."""
        self._kept.tried_at.pop()
        self._save()

    def refused(self, state: TokenState, message: str, stay_away_until: float) -> None:
        """Keep how the last try went and until when Enphase is to be left alone."""
        self._kept.state, self._kept.message = state, message
        self._kept.stay_away_until = max(self._kept.stay_away_until, stay_away_until)
        self._save()

    def may_renew_rejected(self, serial: str, now: float) -> bool:
        """Return whether a token that a gateway rejects may be exchanged now, and write down that it is: once a day.

        Raises:
            OSError: it cannot be written down.
        """
        with self.alone():
            if now - min(now, self._kept.renewed_at.get(serial, 0.0)) < DAY_S:
                return False
            self._kept.renewed_at[serial] = now
            self._save()
            return True

    def _lately(self, now: float) -> list[float]:
        return [at for at in self._kept.tried_at if self._past(at, now) > now - DAY_S]

    def _past(self, at: float, now: float) -> float:
        """Return a time, or if it is yet to come, since when it has been: so that it ends some day, but no sooner."""
        if at <= now or self._kept.clock_behind_since is None:
            return at
        return self._kept.clock_behind_since

    def _look_at_clock(self, now: float) -> None:
        kept = self._kept
        if max([*kept.tried_at, kept.stay_away_until - DAY_S]) <= now:
            behind_since = None
        else:
            behind_since = now if kept.clock_behind_since is None else min(now, kept.clock_behind_since)
        if behind_since != kept.clock_behind_since:
            kept.clock_behind_since = behind_since
            self._save()

    def _load(self) -> _Kept:
        try:
            return _Kept.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return _Kept()
        except ValidationError:
            quarantine(self.path, "it is no record of log-ins")
            return _Kept()

    def _save(self) -> None:
        write_private(self.path, self._kept.model_dump_json())

    def _is_ours(self, kept: _Kept) -> bool:
        return bool(kept.salt) and kept.credentials == self._digest(kept.salt)

    def _digest(self, salt: str) -> str:
        # Slow on purpose: whoever reads the file shall not find the password by trying.
        credentials = self._credentials.get_secret_value().encode()
        return hashlib.scrypt(credentials, salt=bytes.fromhex(salt), n=2**14, r=8, p=1).hex()
