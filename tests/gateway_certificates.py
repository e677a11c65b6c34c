"""Certificates as gateways sign them themselves: for a new key or a given one, valid from and until any day."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from shared.certificates import create_key

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def make_certificate(key: Key, *, starts_in_days: float = -1, expires_in_days: float = 364) -> x509.Certificate:
    """Return a certificate for a key, signed with it."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "envoy.local")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=starts_in_days))
        .not_valid_after(now + timedelta(days=expires_in_days))
        .sign(key, hashes.SHA256())
    )


def write_certificate(file: Path, key: Key | None = None, *, expires_in_days: float = 364) -> str:
    """Write a private key and its certificate into a PEM file for a server, and return the fingerprint."""
    key = key or create_key()
    certificate = make_certificate(key, starts_in_days=expires_in_days - 365, expires_in_days=expires_in_days)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    return certificate.fingerprint(hashes.SHA256()).hex()
