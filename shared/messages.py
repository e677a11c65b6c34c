"""The messages of the MQTT contract that are not readings: what a gateway is, the state of its token, receipts."""

from typing import Annotated, Literal

from pydantic import Field

from shared.payload import Payload
from shared.readings import Serial, Timestamp

ONLINE = b"online"
OFFLINE = b"offline"

RowNumber = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""SQLite has 64 bits for it."""

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
    """A request for a token, from a poller."""

    reason: Literal["missing", "rejected", "expiring"]
    requested_at: Timestamp


class TokenStatus(Payload):
    """The state of a gateway's token, without the token."""

    state: TokenState
    message: str
    expires_at: Timestamp | None = None
    days_left: float | None = None


class Receipt(Payload):
    """Confirms, from a sink, that readings are stored durably or can never be stored."""

    journal: str
    sequences: tuple[tuple[RowNumber, RowNumber], ...]
    """Ranges of rows of that journal, first and last included."""
