"""Converts readings to points: a path, a value and a time for each number of a reading."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from shared.payload import InvalidPayload
from shared.readings import Reading
from shared.topics import ReadingTopic

PATH_PATTERN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")

MAX_AHEAD_S = 60
"""Whisper stores its slots in a ring, so a point of the far future would overwrite one of the past."""

MAX_AGE_S = 3653 * 86_400
"""Ten years, the coarsest archive in deploy/graphite/storage-schemas.conf; Carbon drops older points."""


class TimestampOutOfRange(InvalidPayload):
    """A reading cannot be stored at its time now; it can be later if the clock of this machine is wrong."""


class Point(NamedTuple):
    """One value of one series."""

    path: str
    value: float
    timestamp: int


def is_carbon_path(path: str) -> bool:
    """Return whether Carbon stores a path unchanged."""
    return PATH_PATTERN.fullmatch(path) is not None


def check_timestamp(timestamp: int, now: float) -> None:
    """Return if a point of that time can be stored now.

    Raises:
        TimestampOutOfRange: it is too far in the future or in the past.
    """
    if timestamp - now > MAX_AHEAD_S:
        raise TimestampOutOfRange(
            "timestamp: more than a minute in the future; check the clocks of the gateway and of this machine"
        )
    if now - timestamp > MAX_AGE_S:
        raise TimestampOutOfRange("timestamp: more than ten years ago")


def points_of(topic: ReadingTopic, reading: Reading, prefix: str, aliases: Mapping[str, str]) -> list[Point]:
    """Return the points of a reading, the same for ``readings/`` and for ``history/``.

    Args:
        topic: where it was published.
        reading: its numbers and its time.
        prefix: the beginning of every path.
        aliases: additional paths, by ``<kind with dots>.<field>``.
    """
    points = []
    for field, value in reading.numbers().items():
        name, path = _name_and_path(prefix, topic.source, topic.kind, field)
        points.append(Point(path, value, reading.timestamp))
        if name in aliases:
            points.append(Point(aliases[name], value, reading.timestamp))
    return points


@lru_cache(maxsize=20_000)
def _name_and_path(prefix: str, source: str, kind: str, field: str) -> tuple[str, str]:
    """Return a field's name for aliases and its path; the same objects each time, because many points hold them."""
    name = f"{_dotted(kind)}.{field}"
    return name, f"{prefix}.{_dotted(source)}.{name}"


def _dotted(levels: str) -> str:
    return ".".join(re.sub(r"[^A-Za-z0-9_-]", "_", level) for level in levels.split("/"))
