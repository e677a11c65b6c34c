"""One HTTP exchange with a total deadline and a size limit; redirects are not followed.

requests' own timeout is for each read, so a server that sends a byte a second holds it for ever, and one that never
stops sending fills the memory (both measured with requests 2.34). Here a timer shuts down the sockets of a
:class:`BoundedSession` at the deadline, wherever the exchange is: connecting, in the TLS handshake, in a proxy's
response to CONNECT, in the headers or in the body. Only a DNS query cannot be interrupted.

Errors::

    ExchangeFailed         no complete response: no connection, too slow, cut short, or too large
    ├── ConnectionLost     closed before anything came: a kept connection may have been too old, so a retry makes sense
    └── ResponseTooLarge   a retry would receive the same
"""

import re
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

MAX_BYTES = 2_000_000
READ_BYTES = 65_536
MAX_REASON_LENGTH = 200
ABORT_INTERVAL_S = 0.1
"""After the deadline sockets are shut down this often until the exchange ends: a slow DNS may open one late."""


class ExchangeFailed(Exception):
    """No complete response came; the message holds neither body nor headers."""


class ConnectionLost(ExchangeFailed):
    """The connection was closed before anything came."""


class ResponseTooLarge(ExchangeFailed):
    """The body is longer than the caller accepts."""


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def retry_after_s(self) -> float | None:
        """The seconds in ``Retry-After``; None without it, or if it is no number.

        A date there is ignored: it means something only if both clocks agree.
        """
        text = self.headers.get("Retry-After", "")
        return float(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


class BoundedAdapter(HTTPAdapter):
    """Keeps one connection to each server, directly or through an HTTP proxy, and can abort an exchange."""

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._sockets_lock = threading.Lock()
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *arguments: Any, **keywords: Any) -> None:
        """Make the pools, with connections whose sockets are known here."""
        super().init_poolmanager(*arguments, **keywords)
        self.poolmanager.pool_classes_by_scheme = _pool_classes(self)

    def proxy_manager_for(self, proxy: str, **keywords: Any) -> PoolManager:
        """Return the pools for a proxy, with connections whose sockets are known here."""
        manager: PoolManager = super().proxy_manager_for(proxy, **keywords)
        if isinstance(manager, ProxyManager):  # SOCKS has pool classes of its own
            manager.pool_classes_by_scheme = _pool_classes(self)
        return manager

    def add_socket(self, opened: socket.socket) -> None:
        """Remember a socket that a connection has opened, until it is garbage."""
        with self._sockets_lock:
            self._sockets.add(opened)

    def abort(self) -> None:
        """Shut down all sockets, from any thread: a read or write that waits on one fails."""
        with self._sockets_lock:
            sockets = list(self._sockets)
        for opened in sockets:
            with suppress(OSError):
                # SSLSocket.shutdown() drops the encryption first; a concurrent send() would then send plain text.
                socket.socket.shutdown(opened, socket.SHUT_RDWR)


class BoundedSession(requests.Session):
    """A session for :func:`exchange`; every adapter mounted on it is a :class:`BoundedAdapter`."""

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("https://", "http://"):
            self.mount(scheme, BoundedAdapter())

    def get_redirect_target(self, _response: requests.Response) -> None:
        """Return that no response is a redirect: requests would read the body of one without a limit."""
        return

    def abort(self) -> None:
        """Shut down all sockets, from any thread: an exchange that waits on one fails."""
        for adapter in list(self.adapters.values()):
            if isinstance(adapter, BoundedAdapter):
                adapter.abort()


def _pool_classes(adapter: BoundedAdapter) -> dict[str, type[HTTPConnectionPool]]:
    """Return the connection pools of both schemes, whose connections register each socket with the adapter."""

    class RegisteredSocket:
        """Registers a socket as soon as it is opened: before the TLS handshake and a proxy's response to CONNECT."""

        _sock: socket.socket | None = None

        @property
        def sock(self) -> socket.socket | None:
            return self._sock

        @sock.setter
        def sock(self, opened: socket.socket | None) -> None:
            self._sock = opened
            if isinstance(opened, socket.socket):
                adapter.add_socket(opened)

    class Connection(RegisteredSocket, HTTPConnection):
        pass

    class SecureConnection(RegisteredSocket, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    return {"http": Pool, "https": SecurePool}


class _Deadline(threading.Timer):
    """Calls a function after a time, and every ``ABORT_INTERVAL_S`` from then on, until the ``with`` block ends."""

    def run(self) -> None:
        while not self.finished.wait(self.interval):
            self.function()
            self.interval = ABORT_INTERVAL_S

    def __enter__(self) -> Self:
        self.daemon = True
        self.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        self.join()  # so that it does not abort the next exchange


def exchange(
    session: BoundedSession, method: str, url: str, *, deadline_s: float, max_bytes: int = MAX_BYTES, **request: Any
) -> Response:
    """Send a request and return the complete response, whatever its status.

    Args:
        session: keeps connections, cookies and authentication; for one exchange at a time.
        method: ``GET`` or ``POST``.
        url: the address.
        deadline_s: for the whole exchange.
        max_bytes: a body longer than this is an error.
        request: further arguments of :meth:`requests.Session.request`.

    Raises:
        ExchangeFailed: no complete response came in time.
        requests.exceptions.SSLError: the server's certificate is not the expected one.
    """
    ends_at = time.monotonic() + deadline_s
    headers = {"Accept-Encoding": "identity"} | dict(request.pop("headers", {}))
    error: Exception | None = None
    try:
        with (
            _Deadline(deadline_s, session.abort),
            session.request(
                method, url, stream=True, timeout=deadline_s, allow_redirects=False, headers=headers, **request
            ) as response,
        ):
            complete = Response(response.status_code, response.headers, _body(response, max_bytes))
    except (requests.exceptions.RequestException, HTTPError, OSError, ValueError) as failure:
        error = failure
    if time.monotonic() > ends_at or isinstance(error, requests.exceptions.Timeout):
        # Also without an error: headers that were cut short look complete.
        raise ExchangeFailed(f"did not respond in full within {deadline_s:g} s")
    if error is not None:
        raise _translated(error)
    return complete


def _body(response: requests.Response, max_bytes: int) -> bytes:
    body = bytearray()
    while chunk := response.raw.read1(READ_BYTES, decode_content=True):
        body += chunk
        if len(body) > max_bytes:
            raise ResponseTooLarge(f"responded with more than {max_bytes} bytes")
    return bytes(body)


def _translated(error: Exception) -> Exception:
    match error:
        case requests.exceptions.SSLError():
            return error
        case requests.exceptions.ConnectionError():
            return ConnectionLost(_innermost_reason(error))
        case requests.exceptions.InvalidHeader():
            pass
        case requests.exceptions.RequestException() | HTTPError() | OSError():
            return ExchangeFailed(_innermost_reason(error))
    # Its message quotes the header that HTTP cannot carry: a password or a token.
    return ExchangeFailed("the user, password or token contains characters that HTTP cannot carry")


def _innermost_reason(error: BaseException) -> str:
    """Return the innermost reason in a few words: the outer ones quote URLs and object addresses."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    # It may quote what the server sent, with line breaks.
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON_LENGTH]
