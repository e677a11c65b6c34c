"""The messages of the MQTT contract that are no readings: what a gateway is, tokens, receipts."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, field_serializer

from shared.payload import Payload
from shared.readings import Timestamp
from shared.topics import SERIAL_PATTERN

ONLINE = b"online"
OFFLINE = b"offline"


def _for_a_header(token: SecretStr) -> SecretStr:
    """Return a token that an HTTP header can carry, without the newline that a file ends with."""
    text = token.get_secret_value().strip()
    if not text or not all("!" <= letter <= "~" for letter in text):
        raise ValueError("must be a token: letters, digits, dots and dashes in one piece")
    return SecretStr(text)


TokenText = Annotated[SecretStr, AfterValidator(_for_a_header), Field(json_schema_extra={"format": "password"})]
Serial = Annotated[str, Field(pattern=f"^{SERIAL_PATTERN.pattern}$")]
TokenKind = Literal["owner", "installer", "manual"]
TokenState = Literal["ok", "expiring", "bad_credentials", "mfa_required", "locked_out", "cloud_unreachable"]


class GatewayInfo(Payload):
    """What a gateway is and what it measures."""

    serial: Serial
    part_number: str | None = None
    firmware: str
    metered: bool
    phases: Annotated[int, Field(ge=1, le=3)] | None = None
    sources: tuple[str, ...] = ()
    """Where the numbers come from, such as ``production=meter``."""
    clock_offset_s: int | None = None
    """How far the gateway's clock is ahead of the poller's; only where it is wrong."""


class TokenMessage(Payload):
    """A token for one gateway; secret."""

    token: TokenText
    serial: Serial
    kind: TokenKind
    issued_at: Timestamp
    expires_at: Timestamp

    @field_serializer("token", when_used="json")
    def _reveal(self, token: SecretStr) -> str:
        return token.get_secret_value()


class TokenRequest(Payload):
    """A poller's wish for a token."""

    reason: Literal["missing", "rejected", "expiring"]
    requested_at: Timestamp


class TokenStatus(Payload):
    """How the token of a gateway is, without the token."""

    state: TokenState
    message: str
    expires_at: Timestamp | None = None
    days_left: float | None = None


class Receipt(Payload):
    """A sink's word that readings are stored for good."""

    journal: str
    sequences: tuple[tuple[int, int], ...]
    """Ranges of rows of that journal, first and last, both included."""
