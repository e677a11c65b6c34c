"""The accounts of the stack: a random password for each, made once, readable by its own service only."""

import base64
import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path

PASSWORD_BYTES = 24
ITERATIONS = 101
"""Mosquitto's own number; what it hashes here is random and cannot be guessed with less."""


def password(file: Path) -> tuple[str, bool]:
    """Return the password that a file holds, made now where there is none, and whether it is new."""
    if file.exists():
        return file.read_text(), False
    made = secrets.token_urlsafe(PASSWORD_BYTES)
    write(file, made)
    return made, True


def write(file: Path, text: str) -> None:
    """Write a file for its owner and group, whole or not at all."""
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    beside.touch(mode=0o600)
    beside.write_text(text)
    beside.chmod(0o440)
    beside.replace(file)


def mosquitto_password_file(accounts: Iterable[tuple[str, str]]) -> str:
    """Return the lines of a mosquitto password file, one for each name and password.

    The format is mosquitto's ``$7$``: PBKDF2 with SHA-512 (eclipse/mosquitto, common/password_mosq.c), which 2.0 and
    2.1 read.
    """
    return "".join(f"{name}:{_hashed(password)}\n" for name, password in accounts)


def _hashed(password: str) -> str:
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
