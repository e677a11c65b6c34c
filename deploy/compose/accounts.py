"""The accounts of the stack: a random password for each, created once, readable by its own service only."""

import base64
import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path

from shared.files import write_atomically

SECRET_MODE = 0o440
"""The group is that of mosquitto, Grafana and Node-RED, which run as users of their own."""
PASSWORD_BYTES = 24
PBKDF2_ITERATIONS = 101
"""Mosquitto's default; the passwords are random, so that no iterations are needed against guessing."""


def load_or_create_password(file: Path) -> tuple[str, bool]:
    """Return the password in a file, and whether it was created now because the file was missing."""
    if file.exists():
        return file.read_text(), False
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    write_secret(file, password)
    return password, True


def write_secret(file: Path, text: str) -> None:
    """Write a file that its owner and group can read. Raises OSError."""
    write_atomically(file, text, mode=SECRET_MODE)


def mosquitto_password_file(accounts: Iterable[tuple[str, str]]) -> str:
    """Return a mosquitto password file for user names and passwords.

    The format is mosquitto's ``$7$``: PBKDF2 with SHA-512 (eclipse/mosquitto, common/password_mosq.c), which 2.0 and
    2.1 read.
    """
    return "".join(f"{name}:{_hash(password)}\n" for name, password in accounts)


def _hash(password: str) -> str:
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PBKDF2_ITERATIONS)
    return f"$7${PBKDF2_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
