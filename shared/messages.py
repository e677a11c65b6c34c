"""The messages of the MQTT contract that are no readings: what a gateway is, tokens, receipts."""

from typing import Annotated, Literal

from pydantic import Field

from shared.payload import Payload
from shared.readings import Serial, Timestamp
from shared.tokens import Token

ONLINE = b"online"
OFFLINE = b"offline"


TokenMessage = Token
"""Until the services import :class:`shared.tokens.Token`."""

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
