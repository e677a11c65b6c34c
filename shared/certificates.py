"""New keys and certificates for servers of this project: self-signed, or signed by an authority of their own.

Poller and sink never import this module, because cryptography takes 16 MB of memory.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIFETIME = timedelta(days=3650)
MAX_CLOCK_OFFSET = timedelta(days=1)
"""How far the clock of a client may be behind: certificates are valid from this long ago."""


class ServerCertificate(NamedTuple):
    """A server's certificate and private key, and the certificate with which clients verify it; PEM."""

    certificate: str
    key: str
    authority: str


def create_self_signed(common_name: str, names: Sequence[str]) -> ServerCertificate:
    """Return a new certificate that is its own authority.

    Args:
        common_name: its subject.
        names: host names and addresses of the server.
    """
    key = create_key()
    certificate = _sign(common_name, key, names=names, signs_certificates=True, signs_connections=True)
    return ServerCertificate(_pem(certificate), key_pem(key), _pem(certificate))


def create_with_authority(names: Sequence[str]) -> ServerCertificate:
    """Return a new certificate, signed by a new authority.

    The authority's key is not kept, so that nothing else can be signed with it; other names need a new authority.

    Args:
        names: host names and addresses of the server; the first is the subject.
    """
    authority_key, key = create_key(), create_key()
    authority = _sign("enphase-pipeline authority", authority_key, signs_certificates=True)
    certificate = _sign(names[0], key, names=names, signs_connections=True, issuer=(authority, authority_key))
    return ServerCertificate(_pem(certificate), key_pem(key), _pem(authority))


def create_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a private key as unencrypted PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _sign(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    names: Sequence[str] = (),
    signs_certificates: bool = False,
    signs_connections: bool = False,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None,
) -> x509.Certificate:
    """Return a certificate for a key, signed by the issuer or by itself.

    The extensions are those that VERIFY_X509_STRICT requires.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    issuer_name, issuer_key = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    valid_from = datetime.now(UTC) - MAX_CLOCK_OFFSET
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    usage = x509.KeyUsage(
        digital_signature=signs_connections,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid_from)
        .not_valid_after(valid_from + LIFETIME)
        .add_extension(
            x509.BasicConstraints(ca=signs_certificates, path_length=0 if signs_certificates else None), critical=True
        )
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(authority_identifier, critical=False)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        )
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
