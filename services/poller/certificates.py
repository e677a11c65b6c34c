"""The certificate that a gateway is known by.

An Envoy signs its certificate itself, so no authority can vouch for it. What can be known is that it is the same one
as before: its SHA-256 fingerprint is kept, and a token goes to no other.
"""

import hashlib
import logging
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.http import BoundedAdapter

logger = logging.getLogger(__name__)


def unverified_context() -> ssl.SSLContext:
    """Return a context that checks no authority and speaks the older ciphers that gateways offer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Python's default leaves out the RSA key exchange (pyenphase/pyenphase, src/pyenphase/ssl.py).
    context.set_ciphers("DEFAULT")
    return context


def presented_fingerprint(host: str, port: int, deadline_s: float) -> str:
    """Return the SHA-256 fingerprint of the certificate that a server shows, in hexadecimal.

    Raises:
        OSError: nobody answers, or not with TLS.
    """
    with (
        socket.create_connection((host, port), timeout=deadline_s) as connection,
        unverified_context().wrap_socket(connection) as tls,
    ):
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


class PinnedAdapter(BoundedAdapter):
    """Connects only to a server that shows one certain certificate; another receives nothing."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool: Any) -> None:  # noqa: FBT001, FBT002 - requests' signature
        """Make the pool with the pin in it."""
        super().init_poolmanager(
            connections,
            maxsize,
            block,
            ssl_context=unverified_context(),
            cert_reqs="CERT_NONE",
            assert_hostname=False,
            assert_fingerprint=self._fingerprint,
            **pool,
        )


@dataclass(frozen=True, slots=True)
class PinStore:
    """A folder with the fingerprint of each gateway known."""

    folder: Path

    def path(self, serial: str) -> Path:
        """Return the file that a gateway's fingerprint is kept in; without it the next certificate is trusted."""
        return self.folder / f"{serial}.sha256"

    def pinned(self, serial: str, presented: str) -> str:
        """Return the fingerprint kept for a gateway; the one it presents is kept if there is none."""
        path = self.path(serial)
        try:
            kept = path.read_text(errors="replace").strip()
        except FileNotFoundError:
            kept = ""
        if kept:
            return kept
        self.folder.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: half a fingerprint would lock the gateway out.
        written = path.with_suffix(".new")
        written.write_text(f"{presented}\n")
        written.replace(path)
        logger.warning("gateway %s is known from now on by the certificate %s, kept in %s", serial, presented, path)
        return presented
