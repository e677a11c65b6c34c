"""Names, messages, comments and documents use the terms of the field, by which a reader searches."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import ROOT

AVOIDED = {
    r"tells?|told|says?|said|hears?|heard": "report, print, log, publish, receive, contain, mean",
    r"stands? in": "replace, is in",
    r"beside": "next to, also, compared with",
    r"by hand": "manual, manually",
    r"all the same": "nevertheless, anyway",
    r"be it": "whether",
    r"whoever": "the client, the user, every",
    r"as long as": "while",
    r"lets? (\w+ )?in": "accept, authenticate",
    r"make room": "free space",
    r"(put|set) aside": "quarantine",
    r"pass(ed)? over": "skip, reject",
    r"is known by": "identify",
    r"on its way": "in flight, in progress",
    r"trying on": "retrying",
    r"giv(es?|en|ing) up": "expire, time out",
    r"looks? after": "housekeeping",
    r"in doubt": "needs_resend",
    r"unbroken": "uninterrupted",
    r"spoil(t|ed)?": "corrupt",
    r"hurts?": "fault",
    r"(most|longest|least)_[a-z0-9_]+": "max_, min_",
    r"tally": "stats",
    r"unjournalled": "not_journaled",
}
"""What is avoided, and what the field says instead; case does not matter."""

PATTERN = re.compile(rf"(?<![A-Za-z])({'|'.join(AVOIDED)})(?![A-Za-z])", re.IGNORECASE)
SUFFIXES = {".py", ".md", ".yml", ".yaml", ".sh", ".toml", ".conf"}
SKIPPED_FOLDERS = {".git", ".venv", "node_modules", "state", "__pycache__"}
QUOTED = {"tests/unit/test_vocabulary.py"}
"""Files that name what is avoided."""

NOT_YET = {
    ".env.example",
    "CHANGELOG.md",
    "Dockerfile",
    "README.md",
    "deploy/compose",
    "deploy/grafana",
    "deploy/graphite",
    "deploy/local",
    "deploy/mosquitto",
    "docker-compose.yml",
    "docs/asyncapi.yaml",
    "docs/compose.md",
    "docs/dashboards.md",
    "docs/delivery.md",
    "docs/security.md",
    "docs/simulator.md",
    "docs/token.md",
    "services/carbon_sink",
    "services/simulator",
    "services/token_broker",
    "shared/settings.py",
    "tests/docker",
    "tests/faults",
    "tests/integration",
    "tests/unit",
}
"""Folders and files that are still to be rewritten; each goes from here when it is."""


def places() -> dict[str, list[str]]:
    """Return each avoided word with its line, by a service, a part of deploy or tests, or a single file."""
    found: dict[str, list[str]] = {}
    for file in files(ROOT):
        name = str(file.relative_to(ROOT))
        if name in QUOTED:
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            for match in PATTERN.finditer(line):
                found.setdefault("/".join(name.split("/")[:2]), []).append(f"{name}:{number}: {match[0]}")
    return found


def files(folder: Path) -> Iterator[Path]:
    """Yield the files that people read."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in SKIPPED_FOLDERS and not path.name.endswith("_cache"):
                yield from files(path)
        elif path.suffix in SUFFIXES or path.name in ("Makefile", "Dockerfile", "Procfile", ".env.example"):
            yield path


PLACES = places()


@pytest.mark.parametrize("place", sorted(PLACES.keys() | NOT_YET))
def test_only_terms_of_the_field_are_used(place: str) -> None:
    """A word of the list has a term that says more exactly what happens."""
    if place in NOT_YET:
        assert PLACES.get(place), f"{place} is rewritten: take it from NOT_YET"
    else:
        assert PLACES[place] == []
