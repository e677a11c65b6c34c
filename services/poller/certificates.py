"""The certificate by which a gateway is recognized.

An Envoy signs its certificate itself, so there is no authority to verify it. What can be verified is that it is the
same one as before, or has the same key: a credential is sent over no other connection.
"""

import hashlib
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

from services.poller.x509 import InvalidCertificate, parse_certificate
from shared.http import BoundedAdapter

RENEWAL_NOTICE_S = 90 * 86_400.0
"""So long before a certificate expires its renewal is announced: a gateway replaced one that was valid for a year 67
days before (Matthew1471/Enphase-API#25), which leaves three weeks."""

MIN_TIMEOUT_S = 0.001
"""A timeout of zero would make the socket non-blocking."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is known of a certificate whose private key the server has."""

    fingerprint: str
    """SHA-256, in hexadecimal."""
    key_fingerprint: str | None = None
    """SHA-256 of its public key (SubjectPublicKeyInfo); None if the certificate is not strict DER."""
    expires_at: int | None = None
    """Epoch seconds; None if the certificate is not strict DER."""


def describe(der: bytes) -> Certificate:
    """Return what is known of a certificate."""
    fingerprint = hashlib.sha256(der).hexdigest()
    try:
        public_key, expires_at = parse_certificate(der)
    except InvalidCertificate:
        return Certificate(fingerprint)
    return Certificate(fingerprint, hashlib.sha256(public_key).hexdigest(), expires_at)


def describe_expiry(certificate: Certificate, now: float) -> str:
    """Return when a certificate expires, and what to do where the gateway will replace it soon."""
    if certificate.expires_at is None:
        return "when it expires cannot be read"
    date = time.strftime("%Y-%m-%d", time.gmtime(certificate.expires_at))
    if not renewal_is_near(certificate, now):
        return f"it expires on {date}"
    expires = "expires" if now < certificate.expires_at else "expired"
    return (
        f"it {expires} on {date}, and a gateway replaces its certificate about two months before; if the new one has "
        "another key, readings stop until you accept it with --accept-certificate"
    )


def renewal_is_near(certificate: Certificate, now: float) -> bool:
    """Return whether the gateway will replace its certificate soon."""
    return certificate.expires_at is not None and certificate.expires_at - now < RENEWAL_NOTICE_S


def unverified_context() -> ssl.SSLContext:
    """Return a context that verifies no authority and allows the older ciphers that gateways offer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Python's default leaves out the RSA key exchange (pyenphase/pyenphase, src/pyenphase/ssl.py).
    context.set_ciphers("DEFAULT")
    return context


def fetch_certificate(host: str, port: int, deadline_s: float) -> Certificate:
    """Return the certificate that a server presents, after a handshake that proves that it has the private key.

    Args:
        host: a name or an address.
        port: its port.
        deadline_s: for connecting and the handshake together; only a DNS query can take longer.

    Raises:
        OSError: the server does not respond in time, or not with TLS.
    """
    ends_at = time.monotonic() + deadline_s
    with _connect(host, port, ends_at) as connection:
        connection.settimeout(_left_s(ends_at))
        # The timeout is for the whole handshake: do_handshake() computes a deadline from it (CPython, Modules/_ssl.c).
        with unverified_context().wrap_socket(connection) as tls:
            return describe(tls.getpeercert(binary_form=True) or b"")


def _connect(host: str, port: int, ends_at: float) -> socket.socket:
    """Return a connection to the first address of a name that accepts one."""
    error = OSError(f"{host} has no address")
    for family, kind, protocol, _name, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_left_s(ends_at))
            connection.connect(address)
        except OSError as failure:
            connection.close()
            error = failure
        else:
            return connection
    raise error


def _left_s(ends_at: float) -> float:
    return max(MIN_TIMEOUT_S, ends_at - time.monotonic())


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
