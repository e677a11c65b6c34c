"""What is read of a certificate is what the cryptography library reads; anything but strict DER is rejected."""

import hashlib
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from services.poller.certificates import describe, describe_expiry, fetch_certificate, renewal_is_near
from services.poller.x509 import InvalidCertificate, parse_certificate
from shared.certificates import create_key
from tests.gateway_certificates import Key, make_certificate, write_certificate
from tests.programs import HOST

DAY_S = 86_400
DER = make_certificate(create_key()).public_bytes(Encoding.DER)


def public_key_of(key: Key) -> bytes:
    """Return the SubjectPublicKeyInfo of a key."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("years", [-20, 1, 24, 40, 7000], ids=lambda years: f"expires in {years} years")
@pytest.mark.parametrize("bits", [0, 1024, 4096], ids=["EC", "RSA 1024", "RSA 4096"])
def test_key_and_expiry_are_those_that_another_library_reads(years: int, bits: int) -> None:
    """UTCTime until 2049, GeneralizedTime from then on; lengths of one, two and three bytes."""
    key = rsa.generate_private_key(65537, bits) if bits else create_key()
    certificate = make_certificate(key, starts_in_days=-30 * 365, expires_in_days=years * 365)

    public_key, expires_at = parse_certificate(certificate.public_bytes(Encoding.DER))

    assert public_key == public_key_of(key)
    assert expires_at == int(certificate.not_valid_after_utc.timestamp())


@given(st.integers(0, len(DER) - 1), st.integers(0, 255))
def test_a_changed_byte_never_shows_another_key_than_another_library_reads(at: int, byte: int) -> None:
    """What OpenSSL verified possession of and what is pinned must be the same."""
    changed = DER[:at] + bytes([byte]) + DER[at + 1 :]
    try:
        public_key, _expires_at = parse_certificate(changed)
    except InvalidCertificate:
        return
    try:
        other = x509.load_der_x509_certificate(changed).public_key()
    except Exception:  # noqa: BLE001 - a key that it cannot load was never in a handshake
        return

    assert public_key == other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@given(st.binary(max_size=200) | st.integers(0, len(DER) - 1).map(lambda end: DER[:end]) | st.just(DER + b"\0"))
def test_what_is_no_certificate_is_rejected(der: bytes) -> None:
    """With the one error that the caller expects; its fingerprint remains."""
    with pytest.raises(InvalidCertificate):
        parse_certificate(der)

    assert describe(der).fingerprint == hashlib.sha256(der).hexdigest()
    assert (describe(der).key_fingerprint, describe(der).expires_at) == (None, None)


def element(tag: int, *contents: bytes) -> bytes:
    """Return an element of DER."""
    content = b"".join(contents)
    length = bytes([len(content)]) if len(content) < 128 else b"\x82" + len(content).to_bytes(2)
    return bytes([tag]) + length + content


def crafted(not_after: bytes = element(0x17, b"300101000000Z"), version: bytes = b"", key: bytes = b"") -> bytes:
    """Return the frame of a certificate, with parts of it replaced."""
    validity = element(0x30, element(0x17, b"200101000000Z"), not_after)
    empty = element(0x30)
    return element(
        0x30, element(0x30, version, element(0x02, b"\1"), empty, empty, validity, empty, key or element(0x30, b"key"))
    )


def test_a_crafted_frame_is_read() -> None:
    """So that the next test rejects each of its variants for the one thing that is wrong."""
    assert parse_certificate(crafted()) == (element(0x30, b"key"), 1_893_456_000)
    assert parse_certificate(crafted(version=element(0xA0, b"\2\1\2")))[0] == element(0x30, b"key")


@pytest.mark.parametrize(
    "der",
    [
        crafted(key=b"\x30\x81\x03key"),
        crafted(key=b"\x30\x82\x00\x03key"),
        crafted(key=b"\x30\x84\x00\x00\x00\x03key"),
        crafted(key=b"\x30\x80key\0\0"),
        crafted(key=b"\x31\x03key"),
        crafted(key=b"\x30\x7fkey"),
        crafted(version=element(0xA0) * 2),
        crafted(not_after=element(0x17, b"3001010000Z")),
        crafted(not_after=element(0x17, b"300101000000+0100")),
        crafted(not_after=element(0x17, b"301301000000Z")),
        crafted(not_after=element(0x18, b"00000101000000Z")),
        crafted(not_after=element(0x17, b"3001010000\xb2\xb2Z")),
        crafted(not_after=b""),
    ],
    ids=[
        "long form of a short length",
        "zero before the length",
        "length of four bytes",
        "indefinite length",
        "another tag",
        "longer than what follows",
        "two versions",
        "no seconds",
        "time zone",
        "month 13",
        "year 0",
        "no digits",
        "no end",
    ],
)
def test_anything_but_strict_der_is_rejected(der: bytes) -> None:
    """Other parsers may read it, each in its own way."""
    with pytest.raises(InvalidCertificate):
        parse_certificate(der)


@pytest.mark.parametrize(
    ("days", "is_near", "text"),
    [(120, False, "it expires on"), (80, True, "it expires on"), (-3, True, "it expired on")],
)
def test_renewal_is_announced_weeks_ahead(days: int, text: str, *, is_near: bool) -> None:
    """A gateway renews its certificate two months before it expires, so that the last day would be too late."""
    certificate = describe(
        make_certificate(create_key(), starts_in_days=-400, expires_in_days=days).public_bytes(Encoding.DER)
    )

    described = describe_expiry(certificate, time.time())

    assert renewal_is_near(certificate, time.time()) == is_near
    assert text in described
    assert ("--accept-certificate" in described) == is_near


def test_an_expiry_that_cannot_be_read_is_described_as_that() -> None:
    """And no renewal is announced."""
    certificate = describe(b"no certificate")

    assert describe_expiry(certificate, time.time()) == "when it expires cannot be read"
    assert not renewal_is_near(certificate, time.time())


def test_a_handshake_that_never_ends_is_ended_at_the_deadline(tmp_path: Path) -> None:
    """A byte now and then would restart a timeout for each read."""
    write_certificate(tmp_path / "server.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    ended = threading.Event()

    def send_slowly(listener: socket.socket) -> None:
        connection, _address = listener.accept()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(connection.recv(65_536))
        with pytest.raises(ssl.SSLWantReadError):
            server.do_handshake()
        with connection:
            for byte in outgoing.read():
                if ended.wait(0.05):
                    return
                connection.send(bytes([byte]))

    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=send_slowly, args=(listener,), daemon=True).start()
        with pytest.raises(TimeoutError):
            fetch_certificate(HOST, listener.getsockname()[1], 0.5)
        ended.set()


def test_a_name_with_several_addresses_is_tried_until_one_responds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a gateway that has an IPv6 address on which it does not listen."""
    fingerprint = write_certificate(tmp_path / "server.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        resolved = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)) for host in ("127.0.0.2", HOST)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved)

        def serve() -> None:
            connection, _address = listener.accept()
            context.wrap_socket(connection, server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        assert fetch_certificate("roof", port, 5).fingerprint == fingerprint
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved[:1])
        with pytest.raises(ConnectionRefusedError):
            fetch_certificate("roof", port, 5)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
        with pytest.raises(OSError, match="roof has no address"):
            fetch_certificate("roof", port, 5)
