"""One HTTP exchange that ends: a total deadline, a size limit, no redirect followed.

requests' own timeout is for each read, so a server that drips a byte a second holds it for ever, and one that never
stops sending fills the memory (both measured with requests 2.34). The deadline is therefore watched from outside: the
connections of a :class:`BoundedAdapter` are cut when it is over, be it in the middle of the headers.
"""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

MAX_BYTES = 2_000_000
READ_BYTES = 65_536
MAX_REASON_LENGTH = 200


class ExchangeFailed(Exception):
    """No whole answer came: nobody there, too slow, cut short, or too large."""


class ConnectionLost(ExchangeFailed):
    """The connection was closed before anything came: one that was kept open may have been too old."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def retry_after_s(self) -> float | None:
        """The seconds that ``Retry-After`` asks to wait; None without it or where it holds no such number.

        A date there is ignored: the clocks of both ends would have to agree.
        """
        text = self.headers.get("Retry-After", "")
        return float(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


class BoundedAdapter(HTTPAdapter):
    """Keeps one connection to each server, and can cut it in the middle of an exchange."""

    def __init__(self) -> None:
        self._open: WeakSet[HTTPConnection] = WeakSet()
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool: Any) -> None:  # noqa: FBT001, FBT002 - requests' signature
        """Make the pool, with connections that are known here as soon as they are made."""
        super().init_poolmanager(connections, maxsize, block, **pool)
        known = self._open

        class Plain(HTTPConnection):
            def connect(self) -> None:
                known.add(self)
                super().connect()

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                known.add(self)
                super().connect()

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    def cut(self) -> None:
        """Shut all connections down: whoever waits on one hears the end of it."""
        for connection in list(self._open):
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)


def exchange(
    session: requests.Session, method: str, url: str, *, deadline_s: float, max_bytes: int = MAX_BYTES, **request: Any
) -> Response:
    """Send a request and return the whole answer, whatever its status.

    Args:
        session: keeps connections, cookies and authentication. Without a :class:`BoundedAdapter` only the body is held
            to the deadline, and its last read may outlast it by as much again.
        method: ``GET`` or ``POST``.
        url: where to.
        deadline_s: for all of it.
        max_bytes: an answer longer than this is refused unread.
        request: what :meth:`requests.Session.request` takes beside.

    Raises:
        ExchangeFailed: no whole answer came; its message holds neither body nor headers.
        requests.exceptions.SSLError: the other end is not who it should be.
    """
    ends_at = time.monotonic() + deadline_s
    headers = {"Accept-Encoding": "identity"} | dict(request.pop("headers", {}))
    try:
        with (
            _watch.until(ends_at, _cut_of(session, url)),
            session.request(
                method, url, stream=True, timeout=deadline_s, allow_redirects=False, headers=headers, **request
            ) as response,
        ):
            answer = Response(response.status_code, response.headers, _body(response, max_bytes, ends_at))
        if time.monotonic() > ends_at:
            # Headers that were cut pass for whole ones.
            raise ExchangeFailed(f"did not finish its answer within {deadline_s:g} s")
        return answer
    except requests.exceptions.SSLError:
        if time.monotonic() > ends_at:
            raise ExchangeFailed(f"did not finish its answer within {deadline_s:g} s") from None
        raise
    except requests.exceptions.Timeout as error:
        raise ExchangeFailed(f"did not answer within {deadline_s:g} s") from error
    except (requests.exceptions.RequestException, HTTPError, OSError) as error:
        if time.monotonic() > ends_at:
            raise ExchangeFailed(f"did not finish its answer within {deadline_s:g} s") from error
        if isinstance(error, requests.exceptions.ConnectionError):
            raise ConnectionLost(_why(error)) from error
        raise ExchangeFailed(_why(error)) from error
    except ValueError:
        # Its message quotes what no header can hold: a password or a token.
        raise ExchangeFailed("cannot be asked: user, password or token hold what HTTP cannot carry") from None


def _body(response: requests.Response, max_bytes: int, ends_at: float) -> bytes:
    """Return the body, or what of it came in time."""
    body = bytearray()
    while time.monotonic() <= ends_at and (chunk := response.raw.read1(READ_BYTES, decode_content=True)):
        body += chunk
        if len(body) > max_bytes:
            raise ExchangeFailed(f"answered with more than {max_bytes} bytes")
    return bytes(body)


def _cut_of(session: requests.Session, url: str) -> Callable[[], None]:
    adapter = session.get_adapter(url)
    return adapter.cut if isinstance(adapter, BoundedAdapter) else lambda: None


class _Watch:
    """Cuts what is not over by its time; one thread for all exchanges of the process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: dict[object, tuple[float, Callable[[], None]]] = {}
        self._looks_at = float("inf")
        self._thread: threading.Thread | None = None

    @contextmanager
    def until(self, ends_at: float, cut: Callable[[], None]) -> Iterator[None]:
        """Cut at a time of the monotonic clock, unless the block ends before."""
        key = object()
        with self._changed:
            self._watched[key] = (ends_at, cut)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            elif ends_at < self._looks_at:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._watched.pop(key, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._looks_at = min((ends_at for ends_at, _ in self._watched.values()), default=float("inf"))
                wait_s = self._looks_at - time.monotonic()
                if wait_s > 0:
                    self._changed.wait(min(wait_s, threading.TIMEOUT_MAX))
                    continue
                now = time.monotonic()
                late = [key for key, (ends_at, _) in self._watched.items() if ends_at <= now]
                cuts = [self._watched.pop(key)[1] for key in late]
            for cut in cuts:
                cut()


_watch = _Watch()


def _why(error: BaseException) -> str:
    """Return the innermost reason in few words: the outer ones quote URLs and object addresses."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]  # the loop's condition holds one
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    # It may quote what the other end sent, line breaks and all.
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON_LENGTH]
