"""The certificate by which a gateway is recognized.

An Envoy signs its certificate itself, so there is no authority to verify it. What can be verified is that it is the
same one as before: its SHA-256 fingerprint is pinned, and a credential is sent over no other connection.
"""

import hashlib
import logging
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.poller.errors import GatewayUntrusted
from shared.files import write_atomically
from shared.http import BoundedAdapter

logger = logging.getLogger(__name__)


def unverified_context() -> ssl.SSLContext:
    """Return a context that verifies no authority and allows the older ciphers that gateways offer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Python's default leaves out the RSA key exchange (pyenphase/pyenphase, src/pyenphase/ssl.py).
    context.set_ciphers("DEFAULT")
    return context


def fetch_fingerprint(host: str, port: int, timeout_s: float) -> str:
    """Return the SHA-256 fingerprint of a server's certificate, in hexadecimal.

    Raises:
        OSError: the server does not respond, or not with TLS.
    """
    with (
        socket.create_connection((host, port), timeout=timeout_s) as connection,
        unverified_context().wrap_socket(connection) as tls,
    ):
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


class PinnedAdapter(BoundedAdapter):
    """Connects only to a server with one certain certificate; any other is sent nothing."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **keywords: Any) -> None:
        """Make the pools, which verify the fingerprint after each handshake."""
        super().init_poolmanager(
            *arguments,
            ssl_context=unverified_context(),
            cert_reqs="CERT_NONE",
            assert_hostname=False,
            assert_fingerprint=self._fingerprint,
            **keywords,
        )


@dataclass(frozen=True, slots=True)
class PinStore:
    """The pinned fingerprints, one file for each gateway."""

    folder: Path

    def path(self, serial: str) -> Path:
        """Return the file that holds a gateway's fingerprint; once it is deleted, the next certificate is pinned."""
        return self.folder / f"{serial}.sha256"

    def lookup(self, serial: str) -> str | None:
        """Return the fingerprint pinned for a gateway; None if there is none yet.

        Raises:
            GatewayUntrusted: there is one that cannot be read; it is never replaced.
        """
        path = self.path(serial)
        try:
            pinned = path.read_text(errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise GatewayUntrusted(f"cannot read the pinned certificate of gateway {serial}: {error}") from None
        if not re.fullmatch(r"[0-9a-f]{64}", pinned):
            raise GatewayUntrusted(
                f"{path} does not hold the fingerprint of gateway {serial}'s certificate (64 hexadecimal digits); "
                "restore it, or delete the file to pin the certificate that the gateway presents now"
            )
        return pinned

    def pin(self, serial: str, fingerprint: str) -> None:
        """Pin the fingerprint of a gateway that has none yet.

        Raises:
            OSError: it cannot be written.
        """
        path = self.path(serial)
        write_atomically(path, f"{fingerprint}\n")
        logger.warning("pinned the certificate %s of gateway %s in %s", fingerprint, serial, path)
