"""One HTTP exchange that ends: a total deadline, a size limit, no redirect followed.

requests' own timeout is for each read, so a server that drips a byte a second holds it for ever, and one that never
stops sending fills the memory (both measured with requests 2.34).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from urllib3.exceptions import HTTPError

MOST_BYTES = 2_000_000
READ_BYTES = 65_536


class ExchangeFailed(Exception):  # noqa: N818 - what happened
    """No whole answer came: nobody there, too slow, cut short, or too large."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def exchange(
    session: requests.Session, method: str, url: str, *, deadline_s: float, most_bytes: int = MOST_BYTES, **request: Any
) -> Answer:
    """Send a request and return the whole answer, whatever its status.

    Args:
        session: keeps connections, cookies and authentication.
        method: ``GET`` or ``POST``.
        url: where to.
        deadline_s: for all of it; the last read may outlast it by as much again.
        most_bytes: an answer longer than this is refused unread.
        request: what :meth:`requests.Session.request` takes beside.

    Raises:
        ExchangeFailed: no whole answer came; its message holds neither body nor headers.
        requests.exceptions.SSLError: the other end is not who it should be.
    """
    ends_at = time.monotonic() + deadline_s
    headers = {"Accept-Encoding": "identity"} | dict(request.pop("headers", {}))
    try:
        with session.request(
            method, url, stream=True, timeout=deadline_s, allow_redirects=False, headers=headers, **request
        ) as response:
            body = bytearray()
            while chunk := response.raw.read1(READ_BYTES, decode_content=True):
                body += chunk
                if len(body) > most_bytes:
                    raise ExchangeFailed(f"answered with more than {most_bytes} bytes")
                if time.monotonic() > ends_at:
                    raise ExchangeFailed(f"did not finish its answer within {deadline_s:g} s")
            return Answer(response.status_code, response.headers, bytes(body))
    except requests.exceptions.SSLError:
        raise
    except requests.exceptions.Timeout as error:
        raise ExchangeFailed(f"did not answer within {deadline_s:g} s") from error
    except (requests.exceptions.RequestException, HTTPError, OSError) as error:
        raise ExchangeFailed(_why(error)) from error


def _why(error: BaseException) -> str:
    """Return the innermost reason in few words: the outer ones quote URLs and object addresses."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]  # the loop's condition holds one
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__}: {error}"
