"""A small HTTP server that can also fail on demand: keep-alive HTTP/1.1 on raw sockets, with or without TLS."""

import logging
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from services.simulator.response import Request, Response, html_response

logger = logging.getLogger(__name__)

IDLE_TIMEOUT_S = 75
SHUTDOWN_POLL_INTERVAL_S = 0.02
"""How often the listening thread checks for a stop, which every test waits for."""
THREAD_JOIN_TIMEOUT_S = 2
MAX_REQUEST_BYTES = 1_000_000
TLS_HANDSHAKE = 0x16
"""The first byte of a TLS connection (RFC 8446, section 5.1)."""


@dataclass(frozen=True)
class Delivery:
    """A response and how to send it."""

    response: Response
    delay_s: float = 0.0
    fault: str | None = None
    """One of the faults of the delivery."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """Of the fault."""


class WebServer:
    """One listening port; ``respond`` is called for each request, in the thread of its connection."""

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        respond: Callable[[Request], Delivery],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Bind the port.

        Raises:
            OSError: the port is in use, or the address is not this machine's.
        """
        self.name = name
        self.stopping = threading.Event()
        self._tls = tls
        self._listener = _Listener(address, self, respond)
        serve = self._listener.serve_forever
        self._thread = threading.Thread(target=serve, args=(SHUTDOWN_POLL_INTERVAL_S,), name=name, daemon=True)

    @property
    def port(self) -> int:
        """The port; a free one if port 0 was requested."""
        return int(self._listener.server_address[1])

    @property
    def url(self) -> str:
        """The URL for clients on this machine."""
        host = str(self._listener.server_address[0])
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not bound to
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def start(self) -> None:
        """Accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections."""
        self.stopping.set()
        if self._thread.is_alive():
            self._listener.shutdown()
            self._thread.join()
        self._listener.server_close()
        self._listener.end_connections()

    def replace_certificate(self, tls: ssl.SSLContext) -> None:
        """Use another certificate; open connections are closed, so that every client receives it."""
        self._tls = tls
        self._listener.close_connections()

    def wrap(self, connection: socket.socket) -> socket.socket:
        """Return the connection after a TLS handshake, or unchanged without TLS.

        Raises:
            OSError: the handshake failed.
        """
        if self._tls is None:
            return connection
        return self._tls.wrap_socket(connection, server_side=True)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], web: WebServer, respond: Callable[[Request], Delivery]) -> None:
        self.web = web
        self.respond = respond
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._connections_lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without the reverse DNS lookup of the base class."""
        TCPServer.server_bind(self)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base's types
        """Serve one connection, which is registered while it is open."""
        request.settimeout(IDLE_TIMEOUT_S)
        with self._connections_lock:
            self._connections[request] = threading.current_thread()
        connection = request
        try:
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self.web.wrap(request)
            with self._connections_lock:
                self._connections[connection] = self._connections.pop(request)
            self.finish_request(connection, client_address)
        except OSError as error:
            logger.debug("%s: connection lost: %s", self.web.name, error)
        finally:
            with self._connections_lock:
                self._connections.pop(request, None)
                self._connections.pop(connection, None)
            with suppress(OSError):
                self.shutdown_request(connection)

    def close_connections(self) -> None:
        """Close every open connection; a thread that waits for one notices at once."""
        with self._connections_lock:
            for connection in self._connections:
                with suppress(OSError):
                    # SSLSocket.shutdown would wait for the other side.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def end_connections(self) -> None:
        """Close every open connection, and wait for their threads."""
        self.close_connections()
        with self._connections_lock:
            threads = list(self._connections.values())
        for thread in threads:
            thread.join(timeout=THREAD_JOIN_TIMEOUT_S)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def setup(self) -> None:
        self.connection = self.request
        self.rfile = self.connection.makefile("rb", 65536)
        self.wfile = self.connection.makefile("wb", 0)

    def handle_one_request(self) -> None:
        if not isinstance(self.connection, ssl.SSLSocket) and self._is_tls():
            self.close_connection = True
            return
        try:
            super().handle_one_request()
        except (ConnectionError, ssl.SSLError, ValueError, OSError) as error:
            self.close_connection = True
            logger.debug("%s: connection lost: %s", self.server.web.name, error)

    def _is_tls(self) -> bool:
        """Return whether the client uses HTTPS on a plain port; it would wait for a handshake until its timeout."""
        first = self.rfile.peek(1)[:1]  # type: ignore[attr-defined]
        return bool(first) and first[0] == TLS_HANDSHAKE

    def _respond(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= MAX_REQUEST_BYTES or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self._send(Delivery(html_response(HTTPStatus.LENGTH_REQUIRED, "411 Length Required")))
            return
        body = self.rfile.read(length) if length else b""
        try:
            delivery = self.server.respond(Request(self.command, self.path, self.headers, body))
        except Exception:
            # A bug of the simulator must not look like a network failure.
            logger.exception("%s: no response to %s", self.server.web.name, self.path)
            delivery = Delivery(html_response(HTTPStatus.INTERNAL_SERVER_ERROR, "500 Internal Server Error"))
        self._send(delivery)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _respond  # noqa: N815 - the base class calls these

    def _send(self, delivery: Delivery) -> None:
        response, stopping = delivery.response, self.server.web.stopping
        if stopping.wait(delivery.delay_s):
            self.close_connection = True
            return
        match delivery.fault:
            case "reset":
                self._reset()
            case "truncated":
                length = len(response.body)
                sent = max(0, min(length - 1, int(length * delivery.parameters["share"])))
                self.wfile.write(self._head(response, length) + response.body[:sent])
                self.close_connection = True
            case "endless":
                self.close_connection = True
                self.wfile.write(self._head(response, None))
                while not stopping.is_set():
                    self.wfile.write(response.body or b" ")
            case "drip":
                self.wfile.write(self._head(response, len(response.body)))
                step = max(1, int(delivery.parameters["chunk_bytes"]))
                for start in range(0, len(response.body), step):
                    if stopping.wait(delivery.parameters["pause_s"]):
                        self.close_connection = True
                        return
                    self.wfile.write(response.body[start : start + step])
            case _:
                body = b"" if self.command == "HEAD" else response.body
                self.wfile.write(self._head(response, len(response.body)) + body)

    def _head(self, response: Response, length: int | None) -> bytes:
        try:
            phrase = HTTPStatus(response.status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {response.status} {phrase}", f"Date: {self.date_time_string()}"]
        if response.content_type:
            lines.append(f"Content-Type: {response.content_type}")
        lines.append("Connection: close" if length is None else f"Content-Length: {length}")
        lines += [f"{name}: {value}" for name, value in response.headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _reset(self) -> None:
        """Close without the shutdown of TLS and TCP, so that the client's connection is reset."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        logger.debug("%s: %s", self.server.web.name, format % args)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Log nothing: the request log has it."""
