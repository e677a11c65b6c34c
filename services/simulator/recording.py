"""A gateway that responds from a folder of recorded responses.

The name of a file is the path with ``/`` replaced by ``_``, and ``_name_value`` for a query; status and headers are in
``<file>_log.json``, without which the status is 200. A path without a file is 404.
"""

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from services.simulator.gateway import TOKEN_FIRMWARE
from services.simulator.response import JSON, Request, Response, json_response

HEADERS_OF_THE_SERVER = {
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "date",
    "content-type",
}
"""Not taken from the recording: they describe the connection, or are set from the response."""


class InvalidRecording(ValueError):
    """A folder that is no recording of a gateway; the message gives the reason."""


@dataclass(frozen=True)
class Recording:
    """The responses of one recorded gateway, by file name."""

    serial: str
    firmware: str
    responses: dict[str, Response]

    @property
    def needs_token(self) -> bool:
        """Whether the recorded firmware uses HTTPS and requires a token."""
        return int(self.firmware.partition(".")[0]) >= TOKEN_FIRMWARE

    def respond(self, request: Request) -> Response:
        """Return the recorded response to a request, or a 404."""
        name = request.path.strip("/").replace("/", "_")
        if request.query:
            name += "_" + request.query.replace("=", "_").replace("&", "_")
        if name == "info.xml":
            name = "info"
        return self.responses.get(name) or json_response({"error": "404 - Not Found"}, HTTPStatus.NOT_FOUND)


def read_recording(folder: Path) -> Recording:
    """Return the gateway recorded in a folder.

    Raises:
        InvalidRecording: the folder cannot be read or is no recording.
    """
    try:
        names = sorted(file.name for file in folder.iterdir() if file.is_file())
        responses = {name: _read_response(folder / name) for name in names if not name.endswith("_log.json")}
    except OSError as error:
        raise InvalidRecording(f"{folder} cannot be read: {error.strerror}") from error
    if "info" not in responses:
        raise InvalidRecording(f"{folder} has no file named info")
    info = responses["info"].body.decode("utf-8", "replace")
    serial = re.search(r"<sn>\s*(\w+)\s*</sn>", info)
    firmware = re.search(r"<software>\s*[A-Z]?(\d+(?:\.\d+)*)\s*</software>", info)
    if not serial or not firmware:
        raise InvalidRecording(f"{folder}/info has no serial number or no firmware")
    return Recording(serial[1], firmware[1], responses)


def _read_response(file: Path) -> Response:
    """Return a recorded response.

    Raises:
        OSError: a file cannot be read.
        InvalidRecording: its log has no status or headers.
    """
    log_file = file.with_name(f"{file.name}_log.json")
    if not log_file.exists():
        return Response(HTTPStatus.OK, file.read_bytes(), JSON)
    try:
        log = json.loads(log_file.read_text(encoding="utf-8"))
        recorded = {str(name).lower(): str(value) for name, value in log["headers"].items()}
        status = int(log["code"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRecording(f"{log_file} has no code or headers") from error
    headers = tuple((name.title(), value) for name, value in recorded.items() if name not in HEADERS_OF_THE_SERVER)
    return Response(status, file.read_bytes(), recorded.get("content-type"), headers)
