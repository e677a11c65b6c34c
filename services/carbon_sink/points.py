"""Readings to points: a path, a value and a time for each number of a reading."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from shared.readings import Reading
from shared.topics import ReadingTopic

PATH_PATTERN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Point(NamedTuple):
    """One value of one series."""

    path: str
    value: float
    timestamp: int


def is_carbon_path(path: str) -> bool:
    """Return whether a path is made of the characters that Carbon stores as they are."""
    return PATH_PATTERN.fullmatch(path) is not None


def points_of(topic: ReadingTopic, reading: Reading, prefix: str, aliases: Mapping[str, str]) -> list[Point]:
    """Return the points of a reading; a late one gives the same as one in time.

    Args:
        topic: where it was published.
        reading: what was.
        prefix: what every path begins with.
        aliases: further paths, by ``<kind with dots>.<field>``.
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
    """Return a field's name for aliases and its path; the same string each time, as thousands of points hold it."""
    name = f"{_dotted(kind)}.{field}"
    return name, f"{prefix}.{_dotted(source)}.{name}"


def _dotted(levels: str) -> str:
    return ".".join(re.sub(r"[^A-Za-z0-9_-]", "_", level) for level in levels.split("/"))
