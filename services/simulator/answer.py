"""An HTTP answer before it is sent, and a request after it was read."""

import json
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from urllib.parse import urlsplit

JSON = "application/json"
HTML = "text/html"
XML = "text/xml"
TEXT = "text/plain"


@dataclass(frozen=True)
class Request:
    """An HTTP request; `target` is path and query as they came."""

    method: str
    target: str
    headers: Message = field(default_factory=Message)
    body: bytes = b""

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        """Return what follows the question mark."""
        return urlsplit(self.target).query


@dataclass(frozen=True)
class Answer:
    """An HTTP answer before it is sent."""

    status: int
    body: bytes
    content_type: str | None = JSON
    headers: tuple[tuple[str, str], ...] = ()


def json_answer(value: object, status: int = HTTPStatus.OK) -> Answer:
    """Return a value as JSON."""
    return Answer(status, json.dumps(value, separators=(",", ":")).encode())


def html_answer(status: int, title: str, *, script: str = "") -> Answer:
    """Return a small HTML page."""
    page = f"<!DOCTYPE html>\n<html><head><title>{title}</title>{script}</head><body><h1>{title}</h1></body></html>\n"
    return Answer(status, page.encode(), HTML)
