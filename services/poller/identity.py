"""What a gateway reports of itself on ``/info``, which needs no credential."""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import cached_property

from services.poller.errors import BadResponse
from shared.topics import SERIAL_PATTERN

MAX_INFO_BYTES = 65_536
"""Real responses have 10 kB."""

MAX_TEXT_LENGTH = 64
"""Characters of part number and firmware; real ones have twenty at most."""

MAX_ELEMENTS = 2_000
MAX_DEPTH = 8
"""Of the elements in an ``/info`` response; real ones have about 100, four deep."""

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()/+-]*")
"""A firmware version or a part number: nothing that a terminal or a table interprets."""

TOKEN_FIRMWARE = (7,)
"""The first firmware that requires a token (pyenphase/pyenphase, src/pyenphase/const.py)."""

KEEP_ALIVE_FIRMWARE = (4,)
"""The first firmware that handles kept connections; for the old Envoy-R, which does not, Home Assistant has an option
(home-assistant/core, enphase_envoy)."""


@dataclass(frozen=True)
class Identity:
    """Which gateway it is."""

    serial: str
    part_number: str | None
    firmware: str
    """Such as ``8.3.5169``: without the letter in front, which names a class of builds."""
    metered_hardware: bool
    """Whether it can meter, with or without transformers fitted."""

    @cached_property
    def version(self) -> tuple[int, ...]:
        """The firmware as numbers, for comparisons."""
        return tuple(int(part) for part in re.findall(r"\d+", self.firmware))

    @property
    def needs_token(self) -> bool:
        """Whether it requires a token, rather than a user name and password."""
        return self.version >= TOKEN_FIRMWARE

    @property
    def keeps_connections(self) -> bool:
        """Whether several requests may use one connection."""
        return self.version >= KEEP_ALIVE_FIRMWARE


@dataclass(frozen=True, slots=True)
class Info:
    """An ``/info`` response."""

    identity: Identity
    received_at: float
    """When the gateway's clock was read, by ours: halfway between request and response."""
    time: int | None
    """The gateway's clock, epoch seconds."""
    built_at: int
    """When its firmware was built, epoch seconds; 0 where it is not given."""


def parse_info(body: bytes, received_at: float) -> Info:
    """Return what an ``/info`` response reports.

    Args:
        body: the response.
        received_at: when it was received, epoch seconds.

    Raises:
        BadResponse: it is not an Envoy's.
    """
    info = _parse_xml(body)
    device = info.find("device")
    serial, software, part_number = (
        (device.findtext(tag) or "").strip()[:MAX_TEXT_LENGTH] if device is not None else ""
        for tag in ("sn", "software", "pn")
    )
    if device is None or not NAME_PATTERN.fullmatch(software) or not SERIAL_PATTERN.fullmatch(serial):
        raise BadResponse("not an Envoy's: it has no valid serial number or no valid firmware")
    identity = Identity(
        serial=serial,
        part_number=part_number if NAME_PATTERN.fullmatch(part_number) else None,
        firmware=software.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        metered_hardware=device.findtext("imeter") == "true",
    )
    shown, built_at = (_epoch(info.findtext(tag)) for tag in ("time", "build_info/build_time_gmt"))
    return Info(identity, received_at, shown, built_at or 0)


class _BoundedTreeBuilder(ET.TreeBuilder):
    """Builds a small tree; each element takes more memory than the three bytes that can make one."""

    def __init__(self) -> None:
        super().__init__()
        self._count = self._depth = 0

    def start(self, tag: str, attributes: dict[str, str], /) -> ET.Element:
        self._count += 1
        self._depth += 1
        if self._count > MAX_ELEMENTS or self._depth > MAX_DEPTH:
            raise BadResponse("it has more elements than a gateway sends")
        return super().start(tag, attributes)

    def end(self, tag: str, /) -> ET.Element:
        self._depth -= 1
        return super().end(tag)


def _parse_xml(body: bytes) -> ET.Element:
    # Entities cannot expand: without a DOCTYPE there are none, and with one the response is rejected. In UTF-16 it
    # would go unnoticed, so zeros are rejected too, and everything is read as UTF-8, which all gateways send.
    if b"<!DOCTYPE" in body or b"\0" in body:
        raise BadResponse("not XML that a gateway sends")
    try:
        return ET.fromstring(body, ET.XMLParser(target=_BoundedTreeBuilder(), encoding="utf-8"))  # noqa: S314 - see above
    except (ET.ParseError, ValueError) as error:
        raise BadResponse(f"not XML: {error}") from None


def _epoch(text: str | None) -> int | None:
    """Return epoch seconds, or None if the text is no such number."""
    text = (text or "").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,10}", text) else None
