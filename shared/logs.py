"""Log lines on standard error, as text or as JSON, with what came from outside escaped."""

import json
import logging
import sys
import textwrap
from datetime import UTC, datetime

from shared.escape import escape

TEXT_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class TextFormatter(logging.Formatter):
    """One line for each record; the lines of a traceback follow, indented, so that none looks like a record."""

    def __init__(self) -> None:
        super().__init__(TEXT_FORMAT, "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record, escaped."""
        record.message, record.asctime = record.getMessage(), self.formatTime(record, self.datefmt)
        line = escape(self.formatMessage(record))
        if record.exc_info:
            line += "\n" + textwrap.indent(_escape_lines(self.formatException(record.exc_info)), "    ")
        return line


class JsonFormatter(logging.Formatter):
    """One line of JSON for each record: ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": escape(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = _escape_lines(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def _escape_lines(text: str) -> str:
    return "\n".join(map(escape, text.split("\n")))


def configure(level: str, line_format: str) -> None:
    """Send the log to standard error; standard output is for readings.

    Args:
        level: a name that :mod:`logging` knows, such as ``INFO``.
        line_format: ``text`` or ``json``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if line_format == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # urllib3 logs every connection and retry; the adapters log what matters of that.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
