"""The simulator's keys and certificates, in files, so that they survive restarts."""

import ssl
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.certificates import create_key, create_self_signed, key_pem
from shared.files import write_atomically

NAMES = ("envoy.local", "localhost", "127.0.0.1", "::1")


def load_or_create_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """Return the private key in a file, which is created if it is missing.

    Raises:
        OSError: the file cannot be read or written.
        ValueError: it contains no such key.
    """
    if file.exists():
        key = serialization.load_pem_private_key(file.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{file} contains no elliptic-curve key")
        return key
    key = create_key()
    write_atomically(file, key_pem(key))
    return key


def load_or_create_tls(file: Path, common_name: str) -> ssl.SSLContext:
    """Return a server context with the certificate in a file, which is created if it is missing.

    Args:
        file: certificate and private key.
        common_name: the subject of a new certificate.

    Raises:
        OSError: the file cannot be read or written, or contains no certificate.
    """
    return load_tls(file) if file.exists() else create_tls(file, common_name)


def create_tls(file: Path, common_name: str) -> ssl.SSLContext:
    """Return a server context with a new certificate, which replaces the one in the file. Raises OSError."""
    created = create_self_signed(common_name, NAMES)
    write_atomically(file, created.key + created.certificate)
    return load_tls(file)


def load_tls(file: Path) -> ssl.SSLContext:
    """Return a server context with the certificate in a file. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
