"""HTTP requests as received, and responses before they are sent."""

import json
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from urllib.parse import urlsplit

JSON = "application/json"
HTML = "text/html"
XML = "text/xml"
TEXT = "text/plain"

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Request:
    """An HTTP request."""

    method: str
    target: str
    """Path and query, as received."""
    headers: Message = field(default_factory=Message)
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        """The target after the question mark."""
        return urlsplit(self.target).query


@dataclass(frozen=True)
class Response:
    """An HTTP response; the server adds date, length and connection."""

    status: int
    body: bytes
    content_type: str | None = JSON
    headers: Headers = ()


def json_response(
    value: object, status: int = HTTPStatus.OK, *, content_type: str = JSON, headers: Headers = ()
) -> Response:
    """Return a response with a value as JSON."""
    return Response(status, json.dumps(value, separators=(",", ":")).encode(), content_type, headers)


def html_response(status: int, title: str, *, script: str = "", headers: Headers = ()) -> Response:
    """Return a response with a small HTML page."""
    page = f"<!DOCTYPE html>\n<html><head><title>{title}</title>{script}</head><body><h1>{title}</h1></body></html>\n"
    return Response(status, page.encode(), HTML, headers)
