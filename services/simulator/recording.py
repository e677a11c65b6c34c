"""A gateway out of a folder of recorded answers.

A file is named after the address it answers, with `/` as `_` and a query as `_name_value`; `<file>_log.json` beside it
holds status code and headers. A body without one was answered with 200; an address without a file is not there.
"""

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from services.simulator.answer import JSON, Answer, Request, json_answer

# Length, encoding and connection are those of this answer, not of the recorded one.
_NOT_REPEATED = {"content-length", "content-encoding", "transfer-encoding", "connection", "date", "content-type"}
_FIRMWARE_WITH_TOKENS = 7


class BadRecording(ValueError):
    """A folder that cannot stand for a gateway; the message says why."""


@dataclass(frozen=True)
class Recording:
    """All answers of one recorded gateway, by file name."""

    serial: str
    firmware: str
    answers: dict[str, Answer]

    @property
    def takes_tokens(self) -> bool:
        """Return whether the recorded firmware speaks HTTPS and wants a token."""
        return int(self.firmware.partition(".")[0]) >= _FIRMWARE_WITH_TOKENS

    def answer(self, request: Request) -> Answer:
        """Return the recorded answer to a request, or a 404."""
        name = request.path.strip("/").replace("/", "_")
        if request.query:
            name += "_" + request.query.replace("=", "_").replace("&", "_")
        if name == "info.xml":
            name = "info"
        found = self.answers.get(name)
        return found or json_answer({"error": "404 - Not Found"}, HTTPStatus.NOT_FOUND)


def read_recording(folder: Path) -> Recording:
    """Return the gateway recorded in a folder. Raises BadRecording."""
    try:
        names = sorted(file.name for file in folder.iterdir() if file.is_file())
        answers = {name: _read_answer(folder / name) for name in names if not name.endswith("_log.json")}
    except OSError as error:
        raise BadRecording(f"{folder} cannot be read: {error.strerror}") from error
    if "info" not in answers:
        raise BadRecording(f"{folder} holds no file named info")
    info = answers["info"].body.decode("utf-8", "replace")
    serial = re.search(r"<sn>\s*(\w+)\s*</sn>", info)
    firmware = re.search(r"<software>\s*[A-Z]?(\d+(?:\.\d+)*)\s*</software>", info)
    if not serial or not firmware:
        raise BadRecording(f"{folder}/info names no serial number or no firmware")
    return Recording(serial[1], firmware[1], answers)


def _read_answer(file: Path) -> Answer:
    log_file = file.with_name(f"{file.name}_log.json")
    if not log_file.exists():
        return Answer(HTTPStatus.OK, file.read_bytes(), JSON)
    try:
        log = json.loads(log_file.read_text(encoding="utf-8"))
        recorded = {str(name).lower(): str(value) for name, value in log["headers"].items()}
        status = int(log["code"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRecording(f"{log_file} holds no code and headers") from error
    headers = tuple((name.title(), value) for name, value in recorded.items() if name not in _NOT_REPEATED)
    return Answer(status, file.read_bytes(), recorded.get("content-type"), headers)
