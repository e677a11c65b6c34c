"""What escape() and the log guarantee about text from outside."""

import json
import logging
import sys

import pytest

from shared.escape import escape
from shared.logs import JsonFormatter, TextFormatter

HOSTILE = "a\x1b[31m\n2026-01-01 00:00:00 ERROR forged\r\x9b\u202e\u2028\ud800"


def test_printable_text_is_unchanged() -> None:
    """Letters of any language, quotes, backslashes and blanks stay as they are."""
    text = "Zähler „Süd“ \\ 家 ½ 😀"

    assert escape(text) == text


def test_each_unsafe_character_is_escaped() -> None:
    """The escape names the character."""
    assert escape(HOSTILE) == (r"a\x1b[31m\n2026-01-01 00:00:00 ERROR forged\r\x9b\u202e\u2028\ud800")


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_record_is_one_line(formatter: logging.Formatter) -> None:
    """In the message and in its arguments."""
    record = logging.LogRecord("x", logging.INFO, "x", 1, "%s of a gateway", (HOSTILE,), None)
    line = formatter.format(record)

    assert line.isprintable()
    assert "ERROR forged" in line


def test_a_traceback_forges_no_line() -> None:
    """The message of an exception may come from outside, too."""
    try:
        int(HOSTILE)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "unexpected", (), sys.exc_info())
    first, *rest = TextFormatter().format(record).split("\n")

    assert first.isprintable()
    assert rest
    assert all(line.isprintable() and line.startswith("    ") for line in rest)


def test_a_json_line_is_still_json() -> None:
    """Escapes of what JSON does not escape itself keep the line readable for programs."""
    record = logging.LogRecord("x", logging.INFO, "x", 1, "%s", ("\x9b\u202e\u2028\x7f\x1b\n",), None)

    json.loads(JsonFormatter().format(record))
