"""What the poller reads of an X.509 certificate: its public key, and when it expires.

The ssl module decodes only a certificate that an authority vouches for (``SSLSocket.getpeercert``), and the
cryptography library would take more memory than the rest of the poller's TLS.

Only strict DER is read: each element where RFC 5280 (section 4.1) has it, with a definite length in its shortest form.
So the key that is read here is the one whose possession OpenSSL verified in the handshake, whatever was crafted.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

INTEGER, SEQUENCE, UTC_TIME, GENERALIZED_TIME, VERSION = 0x02, 0x30, 0x17, 0x18, 0xA0
"""Tags; the version is the only optional element before the key."""

LONG_FORM = 0x80
"""A length byte below it is the length; from it on, the rest of the byte is how many bytes of the length follow."""

MAX_LENGTH_BYTES = 3
"""Of the length of an element; OpenSSL reads no chain of more than 100 kB."""

TIME_PATTERN = re.compile(rb"([0-9]{2})?" + rb"([0-9]{2})" * 6 + rb"Z")
"""Century, where the tag allows one, year, month, day, hour, minute, second (RFC 5280, section 4.1.2.5)."""

FIRST_YEAR_OF_1900S = 50
"""Two digits of a year mean 20xx below it (RFC 5280, section 4.1.2.5.1)."""


class InvalidCertificate(ValueError):
    """A certificate is not strict DER with the elements that RFC 5280 requires."""


@dataclass(slots=True)
class _Elements:
    """The elements of a part of a certificate, read one after the other."""

    der: bytes
    at: int
    end: int

    def enter(self, *tags: int) -> "_Elements":
        """Read an element with one of the tags, and return what it contains."""
        if self.at + 2 > self.end or self.der[self.at] not in tags:
            raise InvalidCertificate("an element is missing")
        start, length = self.at + 2, self.der[self.at + 1]
        if length >= LONG_FORM:
            start, length = self._long_length(start, length - LONG_FORM)
        self.at = start + length
        if self.at > self.end:
            raise InvalidCertificate("an element is cut short")
        return _Elements(self.der, start, self.at)

    def _long_length(self, at: int, count: int) -> tuple[int, int]:
        """Return where the length in so many bytes ends, and the length."""
        if not 1 <= count <= MAX_LENGTH_BYTES:
            raise InvalidCertificate("a length is indefinite or too large")
        length = int.from_bytes(self.der[at : at + count])
        if length < LONG_FORM or length >> 8 * (count - 1) == 0:
            raise InvalidCertificate("a length is not in its shortest form")
        return at + count, length

    def take(self, *tags: int) -> bytes:
        """Return the next element as a whole."""
        start = self.at
        self.enter(*tags)
        return self.der[start : self.at]

    @property
    def content(self) -> bytes:
        """What has not been read."""
        return self.der[self.at : self.end]


def parse_certificate(der: bytes) -> tuple[bytes, int]:
    """Return the public key of a certificate, as its whole SubjectPublicKeyInfo, and when it expires, epoch seconds.

    Raises:
        InvalidCertificate: it is not strict DER.
    """
    outer = _Elements(der, 0, len(der))
    body = outer.enter(SEQUENCE).enter(SEQUENCE)
    if outer.content:
        raise InvalidCertificate("bytes follow the certificate")
    if body.content[:1] == bytes([VERSION]):
        body.take(VERSION)
    body.take(INTEGER)  # serial number
    body.take(SEQUENCE)  # signature algorithm
    body.take(SEQUENCE)  # issuer
    validity = body.enter(SEQUENCE)
    body.take(SEQUENCE)  # subject
    public_key = body.take(SEQUENCE)
    validity.take(UTC_TIME, GENERALIZED_TIME)
    return public_key, _epoch(validity.enter(UTC_TIME, GENERALIZED_TIME).content)


def _epoch(text: bytes) -> int:
    if (match := TIME_PATTERN.fullmatch(text)) is None:
        raise InvalidCertificate("a time is not in UTC with seconds")
    century, year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
    if not match[1]:
        century = 20 if year < FIRST_YEAR_OF_1900S else 19
    try:
        return int(datetime(century * 100 + year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
    except ValueError:
        raise InvalidCertificate("a time does not exist") from None
