"""What one HTTP exchange guarantees, with real sockets."""

import gzip
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import requests

from shared.http import BoundedSession, ConnectionLost, ExchangeFailed, Response, exchange
from tests.programs import HOST

DRIP_INTERVAL_S = 0.02
MAX_DRIP_S = 10.0
"""Far longer than any deadline here; a client that is still there then was not aborted."""

ENDLESS_TLS_RECORD = b"\x16\x03\x03\x40\x00"


class Server(threading.Thread):
    """Sends each connection in turn the next of its responses, and drips bytes after one that requires it."""

    def __init__(self, responses: list[bytes], drip: bytes) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server((HOST, 0))
        self._responses = responses
        self._drip = drip
        self.port = int(self._listener.getsockname()[1])
        self.requests: list[bytes] = []
        self.client_left = False
        """Whether the client closed the last connection while it was still being served."""

    def run(self) -> None:
        """Serve as many connections as there are responses."""
        for response in self._responses:
            connection, _address = self._listener.accept()
            with connection, suppress(OSError):
                connection.settimeout(MAX_DRIP_S)
                self.requests.append(connection.recv(65_536))
                connection.sendall(response)
                self._serve_on(connection)

    def _serve_on(self, connection: socket.socket) -> None:
        ends_at = time.monotonic() + MAX_DRIP_S
        try:
            while time.monotonic() < ends_at and self._drip is not CLOSE:
                if select.select([connection], [], [], DRIP_INTERVAL_S)[0] and not connection.recv(65_536):
                    self.client_left = True
                    return
                connection.sendall(self._drip)
        except OSError:
            self.client_left = True

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


CLOSE = b"close the connection after the response"


@contextmanager
def serving(*responses: bytes, drip: bytes = CLOSE) -> Iterator[Server]:
    """Yield a server that sends these responses, one for each connection."""
    server = Server(list(responses), drip)
    server.start()
    try:
        yield server
        server.join(2 * MAX_DRIP_S)
    finally:
        server.close()


def session() -> BoundedSession:
    """Return a session that ignores the proxies of this machine."""
    bounded = BoundedSession()
    bounded.trust_env = False
    return bounded


def url(server: Server, scheme: str = "http") -> str:
    """Return the address of a server."""
    return f"{scheme}://{HOST}:{server.port}/"


@pytest.mark.parametrize(
    ("start", "drip", "scheme"),
    [
        (b"", b"", "http"),
        (b"HTTP/1.1 200 OK\r\n", b"x", "http"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x", "http"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nx", b"", "http"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", "http"),
        (b"", b"", "https"),
        (ENDLESS_TLS_RECORD, b"x", "https"),
    ],
    ids=["silent", "headers", "body", "silent in the body", "chunks", "silent in TLS", "TLS handshake"],
)
def test_a_server_that_never_finishes_is_disconnected_at_the_deadline(start: bytes, drip: bytes, scheme: str) -> None:
    """Whatever it drips, the exchange fails and the connection is closed."""
    with serving(start, drip=drip) as server, pytest.raises(ExchangeFailed, match=r"in full within 0\.3 s"):
        exchange(session(), "GET", url(server, scheme), deadline_s=0.3)

    assert server.client_left


@pytest.mark.parametrize("target", ["http://gateway.invalid/", "https://gateway.invalid/"])
def test_a_proxy_that_never_finishes_is_disconnected_at_the_deadline(target: str) -> None:
    """A proxy that drips its response, to CONNECT too, does not hold a log-in."""
    with serving(b"HTTP/1.1 200 OK\r\n", drip=b"x") as proxy:
        proxies = {"http": url(proxy), "https": url(proxy)}
        with pytest.raises(ExchangeFailed, match=r"within 0\.3 s"):
            exchange(session(), "GET", target, deadline_s=0.3, proxies=proxies)

    assert proxy.client_left
    assert proxy.requests[0].startswith((b"GET http://gateway.invalid/", b"CONNECT gateway.invalid:443"))


def test_a_connection_established_after_the_deadline_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow DNS response cannot be interrupted, but what follows it is."""
    resolve = socket.getaddrinfo
    deadline_passed = threading.Event()

    class Session(BoundedSession):
        def abort(self) -> None:
            super().abort()
            deadline_passed.set()

    def resolve_late(*arguments: object, **keywords: object) -> object:
        assert deadline_passed.wait(MAX_DRIP_S)
        return resolve(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve_late)
    late = Session()
    late.trust_env = False
    with serving(b"HTTP/1.1 200 OK\r\n", drip=b"x") as server, pytest.raises(ExchangeFailed, match=r"within 0\.3 s"):
        exchange(late, "GET", url(server), deadline_s=0.3)

    assert server.client_left


def test_a_session_continues_after_a_deadline() -> None:
    """The next exchange gets a connection of its own and its response."""
    bounded = session()
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with serving(b"", drip=b"") as server, pytest.raises(ExchangeFailed):
        exchange(bounded, "GET", url(server), deadline_s=0.1)

    with serving(whole) as server:
        assert exchange(bounded, "GET", url(server), deadline_s=10).body == b"ok"


def test_an_exchange_can_be_aborted_from_another_thread() -> None:
    """A service that stops does not wait for a deadline."""
    bounded = session()
    with serving(b"", drip=b"") as server:

        def abort() -> None:
            while not server.client_left:
                bounded.abort()

        aborting = threading.Thread(target=abort)
        aborting.start()
        with pytest.raises(ExchangeFailed):
            exchange(bounded, "GET", url(server), deadline_s=MAX_DRIP_S)
        aborting.join()


@pytest.mark.parametrize("status", [200, 302, 401, 500])
def test_a_complete_response_is_returned_whatever_its_status(status: int) -> None:
    """A redirect is not followed, and an error is no exception."""
    head = f"HTTP/1.1 {status} Status\r\nLocation: http://elsewhere.invalid/\r\nContent-Length: 4\r\n\r\n"
    with serving(head.encode() + b"body") as server:
        response = exchange(session(), "GET", url(server), deadline_s=10)

    assert (response.status, response.body) == (status, b"body")


def test_a_response_larger_than_allowed_is_an_error() -> None:
    """It is not read to its end."""
    with serving(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000) as server, pytest.raises(ExchangeFailed, match="more than"):
        exchange(session(), "GET", url(server), deadline_s=10, max_bytes=1000)


def test_a_compressed_response_counts_with_its_uncompressed_size() -> None:
    """A small response that unpacks to a large one is an error."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    with (
        serving(head + gzip.compress(bytes(1_000_000))) as server,
        pytest.raises(ExchangeFailed, match="more than 100000 bytes"),
    ):
        exchange(session(), "GET", url(server), deadline_s=10, max_bytes=100_000)


@pytest.mark.parametrize("response", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b"\xff\xfe\r\n\r\n"])
def test_a_response_that_is_cut_short_or_is_not_http_is_an_error(response: bytes) -> None:
    """Half a response is none."""
    with serving(response) as server, pytest.raises(ExchangeFailed):
        exchange(session(), "GET", url(server), deadline_s=10)


def test_a_server_that_does_not_listen_is_reported_in_a_few_words() -> None:
    """The message holds the reason without addresses of objects."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(ConnectionLost, match=r"^connection refused$"):
        exchange(session(), "GET", f"http://{HOST}:{port}/", deadline_s=10)


@pytest.mark.parametrize("value", ["sesame\nopen", "sesame\udcff"])
def test_a_header_that_http_cannot_carry_is_not_quoted(value: str) -> None:
    """It holds a password or a token."""

    class Token(requests.auth.AuthBase):
        def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["Authorization"] = value
            return request

    for arguments in ({"auth": Token()}, {"headers": {"Authorization": value}}):
        with socket.create_server((HOST, 0)) as listener, pytest.raises(ExchangeFailed) as failed:
            exchange(session(), "GET", f"http://{HOST}:{listener.getsockname()[1]}/", deadline_s=10, **arguments)
        assert "cannot carry" in str(failed.value)
        assert "sesame" not in repr(failed.value)


def test_the_body_of_a_redirect_counts_too() -> None:
    """Requests would read it whole."""
    head = b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.invalid/\r\n\r\n"
    with serving(head + b"x" * 2000) as server, pytest.raises(ExchangeFailed, match="more than 1000 bytes"):
        exchange(session(), "GET", url(server), deadline_s=10, max_bytes=1000)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("999999999", 999_999_999.0),
        ("9999999999", None),
        ("1.5", None),
        ("-1", None),
        ("٣", None),
        ("", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_read_as_whole_seconds_only(header: str, seconds: float | None) -> None:
    """A date would need both clocks to agree."""
    assert Response(503, {"Retry-After": header}, b"").retry_after_s == seconds


def test_a_response_without_retry_after_requires_no_wait() -> None:
    """None is no requirement."""
    assert Response(503, {}, b"").retry_after_s is None
