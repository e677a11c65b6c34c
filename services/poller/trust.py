"""What was verified of gateways before: the certificate of each, and which gateway is at an address.

Files in the state folder, readable without this program and replaced only for a reason that is logged::

    <serial>.sha256      the SHA-256 of the certificate, and in a second line ``key`` and that of its public key
    <address>.serial     the serial number of the gateway that responded at an address

What cannot be read is never taken for absent: an impostor is trusted at most where nothing was known.
"""

import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from services.poller.certificates import Certificate
from services.poller.errors import GatewayUntrusted
from shared.files import write_atomically
from shared.topics import SERIAL_PATTERN

logger = logging.getLogger(__name__)

ACCEPT_COMMAND = "python -m services.poller --accept-certificate"

PIN_PATTERN = re.compile(r"\s*([0-9a-f]{64})(?:\s+key ([0-9a-f]{64}))?\s*")
"""Pins of earlier versions have no key."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned certificate; fingerprints as in :class:`Certificate`."""

    fingerprint: str
    key_fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class TrustStore:
    """The pins and the addresses."""

    folder: Path

    def pin_path(self, serial: str) -> Path:
        """Return the file that holds a gateway's pin."""
        return self.folder / f"{serial}.sha256"

    def address_path(self, host: str) -> Path:
        """Return the file that holds which gateway is at an address; ``http://`` and ``https://`` have the same."""
        address = urlsplit(host if "://" in host else f"//{host}").netloc.lower()
        return self.folder / f"{quote(address, safe='')}.serial"

    def pinned(self, serial: str) -> Pin | None:
        """Return what is pinned for a gateway; None if there is nothing yet.

        Raises:
            GatewayUntrusted: there is a pin that cannot be read.
        """
        path = self.pin_path(serial)
        text = _read(path)
        if text is None:
            return None
        if (match := PIN_PATTERN.fullmatch(text)) is None:
            raise GatewayUntrusted(
                f"{path} does not hold the fingerprint of gateway {serial}'s certificate (64 hexadecimal digits); "
                f"restore it, or run `{ACCEPT_COMMAND} <fingerprint>` with that of the gateway's certificate"
            )
        return Pin(match[1], match[2])

    def pin(self, serial: str, certificate: Certificate, reason: str) -> None:
        """Pin a certificate for a gateway, and log why.

        Raises:
            GatewayUntrusted: it cannot be written.
        """
        path = self.pin_path(serial)
        key = f"key {certificate.key_fingerprint}\n" if certificate.key_fingerprint is not None else ""
        if _replace(path, f"{certificate.fingerprint}\n{key}"):
            logger.warning(
                "pinned the certificate %s of gateway %s in %s: %s", certificate.fingerprint, serial, path, reason
            )

    def serial_at(self, host: str) -> str | None:
        """Return the serial number of the gateway that responded at an address; None if none has yet.

        Raises:
            GatewayUntrusted: there is a file that cannot be read.
        """
        path = self.address_path(host)
        text = _read(path)
        if text is None:
            return None
        if not SERIAL_PATTERN.fullmatch(serial := text.strip()):
            raise GatewayUntrusted(
                f"{path} does not hold the serial number of the gateway at {host}; restore it, or set ENVOY_SERIAL to "
                "the gateway's serial number"
            )
        return serial

    def remember(self, host: str, serial: str) -> None:
        """Remember which gateway is at an address.

        Raises:
            GatewayUntrusted: it cannot be written.
        """
        path = self.address_path(host)
        if _replace(path, f"{serial}\n"):
            logger.info("gateway %s is at %s from now on; any other there is rejected (%s)", serial, host, path)


def _read(path: Path) -> str | None:
    """Return a file's text; None if there is none. Raises GatewayUntrusted."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GatewayUntrusted(f"cannot read {path}, by which a gateway is recognized: {error.strerror}") from None


def _replace(path: Path, text: str) -> bool:
    """Write a file, unless it has this content, and return whether it was written. Raises GatewayUntrusted."""
    with suppress(OSError):
        if path.read_bytes() == text.encode():
            return False
    try:
        write_atomically(path, text)
    except OSError as error:
        raise GatewayUntrusted(
            f"cannot write {path}, by which the gateway is recognized from now on: {error.strerror}; nothing is sent "
            "to it until that is possible"
        ) from None
    return True
