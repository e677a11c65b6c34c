"""Names, messages, comments and documents use the terms of the field, so that a reader finds them by searching."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import ROOT

PHRASES = {
    r"tells?|telling|told": "report, print, log, show, describe",
    r"says?|said|saying": "report, print, contain, state",
    r"hears?|heard": "receive, subscribe",
    r"stands?|stood": "be, be in",
    r"beside": "next to, besides, compared with",
    r"by hand": "manually",
    r"all the same": "nevertheless",
    r"be it": "whether",
    r"whoever|nobody|somebody|everybody": "name the client or the user",
    r"as long as": "while",
    r"lets|let \w+ in": "allow, accept",
    r"ma(ke|kes|de) room": "free space",
    r"(put|puts|set|sets) (\w+ )?aside": "quarantine",
    r"pass(ed|es)? over": "skip, reject",
    r"known by": "identify",
    r"on (its|their) way": "in flight",
    r"trying on": "retrying",
    r"g[ai]v(e|es|en|ing) up": "expire, stop retrying",
    r"look(s|ed)? after": "housekeeping",
    r"in doubt": "needs_resend",
    r"unbroken": "uninterrupted",
    r"spoil(s|t|ed)?": "corrupt",
    r"hurts?": "fault, inject a fault",
    r"last words": "shutdown",
    r"passers? by": "probe connection",
    r"unforeseen": "unexpected",
    r"learnt": "discovered",
    r"anew|afresh": "again",
    r"ask(s|ed|ing)?": "request, require",
    r"(?<!slow[_-])answer(s|ed|ing)?": "response, respond",
    r"go(es|ing)? on": "continue",
    r"wish(es)?": "request",
    r"wants": "require, request",
    r"pretend(s|ed)?": "simulate",
    r"speaks?": "use",
    r"fares?": "state, result",
    r"for good": "permanently",
    r"be had": "available",
    r"reckoned": "estimated, computed",
    r"(most|longest|least|shortest)_[a-z0-9_]+": "max_, min_",
    r"tally": "stats",
    r"unjournalled": "not_journaled",
    r"given_up": "expired",
    r"sent_again": "resent",
}
"""What is avoided anywhere in a file, and the term to use instead. A space also matches a line break of a comment."""

NAMES = {
    r"questions?": "endpoint, query",
    r"findings?": "check result",
    r"hear": "handle",
    r"wants": "handles",
    r"most|longest": "max",
    r"least|shortest": "min",
    r"lasting": "persistent",
    r"opens": "is_valid, authenticates",
    r"strangers?": "unknown",
    r"troubles?": "problem",
}
"""What is avoided as a word of a name in a program. In a sentence it can be right."""

OLD_METRIC = "a metric's name before it was renamed"
ALLOWED = {
    ("CHANGELOG.md", "| `readings_given_up` | `readings_expired` | poller |"): OLD_METRIC,
    ("CHANGELOG.md", "| `readings_sent_again` | `readings_resent` | poller |"): OLD_METRIC,
    ("CHANGELOG.md", "| `readings_unjournalled` | `readings_not_journaled` | poller |"): OLD_METRIC,
    ("CHANGELOG.md", "| `points_sent_again` | `points_resent` | carbon_sink |"): OLD_METRIC,
    (
        "CHANGELOG.md",
        "whisper-fill.py readings_given_up.wsp readings_expired.wsp && rm readings_given_up.wsp",
    ): OLD_METRIC,
    (
        "CHANGELOG.md",
        '`CARBON_ALIASES={"metrics.readings_expired": "enphase.services.poller.metrics.readings_given_up"}`.',
    ): OLD_METRIC,
}
"""Lines in which a phrase is right, by file and text, each with the reason."""

SUFFIXES = {".py", ".md", ".yml", ".yaml", ".sh", ".toml", ".conf", ".js", ".html", ".css"}
OTHER_FILES = {"Makefile", "Dockerfile", "Procfile", ".env.example", "acl", "run"}
SKIPPED_FOLDERS = {".git", ".venv", "node_modules", "state", "__pycache__"}
THIS_FILE = "tests/unit/test_plain_english.py"


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files that people read."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in SKIPPED_FOLDERS and not path.name.endswith(("_cache", ".egg-info")):
                yield from files_below(path)
        elif path.suffix in SUFFIXES or path.name in OTHER_FILES:
            yield path


def pattern_of(avoided: dict[str, str]) -> re.Pattern[str]:
    """Return a pattern with one group for each entry; a word begins and ends where letters do."""
    alternatives = "|".join(f"({re.sub(r'[(](?![?])', '(?:', entry)})" for entry in avoided)
    return re.compile(rf"(?<![A-Za-z])(?:{alternatives})(?![A-Za-z])".replace(" ", r"[\s#\"_-]+"), re.IGNORECASE)


PHRASE, NAME = pattern_of(PHRASES), pattern_of(NAMES)
LOG_LINE = re.compile(r"([a-z%{]|[A-Z]{3}|(Carbon|Enphase|Graphite)\b).*[^.\s]", re.DOTALL)
HELP = re.compile(r".*[^.\s]", re.DOTALL)


def avoided_in(name: str, text: str) -> Iterator[str]:
    """Yield what a file should not contain: place, words, and what to use instead."""
    lines = text.splitlines()
    for match in PHRASE.finditer(text):
        number = text.count("\n", 0, match.start()) + 1
        if (name, lines[number - 1].strip()) not in ALLOWED:
            yield message(name, number, match, PHRASES)
    if name.endswith(".py"):
        for number, identifier in identifiers_in(text):
            for match in NAME.finditer(identifier):
                if (name, lines[number - 1].strip()) not in ALLOWED:
                    yield message(name, number, match, NAMES)


def message(name: str, number: int, match: re.Match[str], avoided: dict[str, str]) -> str:
    """Return a line of a failure."""
    instead = list(avoided.values())[(match.lastindex or 1) - 1]
    return f"{name}:{number}: {' '.join(match[0].split())!r}; instead: {instead}"


def identifiers_in(source: str) -> Iterator[tuple[int, str]]:
    """Yield each name that a program defines, with its line, as words_with_underscores."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                line = node.lineno
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                line = node.lineno
            case _:
                continue
        yield line, re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def malformed_messages_in(source: str) -> Iterator[str]:
    """Yield log lines and help texts that have a full stop, and log lines that begin with a capital."""
    for call in ast.walk(ast.parse(source)):
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="logger")), args=[first, *_]):
                messages, pattern = [first], LOG_LINE
            case ast.Call(func=ast.Attribute(attr="add_argument") | ast.Name(id="Field"), keywords=keywords):
                messages = [each.value for each in keywords if each.arg in ("help", "description")]
                pattern = HELP
            case _:
                continue
        for node in messages:
            text = ast.unparse(node).strip("f'\"")
            if not pattern.fullmatch(text):
                yield f"line {node.lineno}: {text}"


TEXTS = {
    name: path.read_text()
    for path in files_below(ROOT)
    if (name := str(path.relative_to(ROOT))) != THIS_FILE  # it lists what is avoided
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_uses_the_terms_of_the_field(name: str) -> None:
    """A phrase of the list has a term that describes more exactly what happens."""
    avoided = list(avoided_in(name, TEXTS[name]))

    assert not avoided, "\n".join(avoided)


@pytest.mark.parametrize(
    "name", [name for name in TEXTS if name.endswith(".py") and name.startswith(("services/", "shared/", "deploy/"))]
)
def test_a_message_has_no_full_stop_and_a_log_line_no_capital(name: str) -> None:
    """Log lines begin in lower case, unless with a name; help texts are noun phrases."""
    assert list(malformed_messages_in(TEXTS[name])) == []


def test_a_malformed_message_is_found() -> None:
    """A capital and a full stop are each found in a log line, a full stop in a help text."""
    source = (
        "logger.info('Started')\n"
        "logger.info(f'{name} started.')\n"
        "logger.info('ENVOY_TOKEN is set')\n"
        "Field(1, description='The port.')\n"
        "parser.add_argument('--once', help='one poll')\n"
    )

    assert list(malformed_messages_in(source)) == ["line 1: Started", "line 2: {name} started.", "line 4: The port."]


def test_a_phrase_is_found_in_prose_across_lines_and_in_a_name() -> None:
    """Line breaks, comment signs, underscores and capitals hide nothing."""
    source = "# Removed by\n# hand.\nTOLD_EVERY_S = 1\nclass HearTwice:\n    pass\n"

    assert [found.split("; ")[0] for found in avoided_in("a.py", source)] == [
        "a.py:1: 'by # hand'",
        "a.py:3: 'TOLD'",
        "a.py:4: 'hear'",
    ]


def test_a_word_that_contains_an_avoided_one_is_allowed() -> None:
    """Only whole words are found."""
    assert list(avoided_in("a.md", "A threshold, an outstanding essay, foretold.")) == []


def test_each_allowed_line_is_still_there_and_needs_to_be_allowed() -> None:
    """An exception goes when its line does."""
    for name, line in ALLOWED:
        assert line in [each.strip() for each in TEXTS[name].splitlines()], f"{name}: {line}"
        assert PHRASE.search(line) or NAME.search(line), f"{name}: {line} contains nothing to avoid"
