"""A small HTTP server that can also misbehave: it speaks keep-alive HTTP/1.1 on raw sockets, with or without TLS."""

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

from services.simulator.answer import Answer, Request, html_answer

logger = logging.getLogger(__name__)

_IDLE_S = 75
_POLL_S = 0.02
"""How often the listening thread looks whether it shall stop; the stop of every test waits for it."""
_MOST_BODY_BYTES = 1_000_000
_TLS_HANDSHAKE = 0x16


@dataclass(frozen=True)
class Delivery:
    """An answer, and how it is to be sent: after a delay, and spoiled by a fault."""

    answer: Answer
    delay_s: float = 0.0
    fault: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)


class WebServer:
    """One listening port. `respond` is called for each request, on that connection's thread."""

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        respond: Callable[[Request], Delivery],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.stopping = threading.Event()
        self._tls = tls
        self._listener = _Listener(address, self, respond)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(_POLL_S,), name=name, daemon=True)

    @property
    def port(self) -> int:
        """Return the port it listens on, also where it was asked for port 0."""
        return int(self._listener.server_address[1])

    @property
    def url(self) -> str:
        """Return the address for a client on this machine."""
        host = str(self._listener.server_address[0])
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not bound to
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection."""
        self.stopping.set()
        if self._thread.is_alive():
            self._listener.shutdown()
            self._thread.join()
        self._listener.server_close()
        self._listener.end_connections()

    def show_certificate(self, tls: ssl.SSLContext) -> None:
        """Use another certificate from now on; open connections are cut, so that every client sees it."""
        self._tls = tls
        self._listener.cut_connections()

    def secured(self, connection: socket.socket) -> socket.socket:
        """Return the connection as the handler shall use it. Raises OSError where the handshake fails."""
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
        """Bind without asking a name server for this machine's name, as the base class would."""
        TCPServer.server_bind(self)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base's types
        """Answer one connection, and remember it while it is open."""
        request.settimeout(_IDLE_S)
        with self._connections_lock:
            self._connections[request] = threading.current_thread()
        connection = request
        try:
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self.web.secured(request)
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

    def cut_connections(self) -> None:
        """Cut every open connection; whoever waits on one notices at once."""
        with self._connections_lock:
            for connection in self._connections:
                with suppress(OSError):
                    # Of the plain socket: a TLS goodbye would wait for the other side.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def end_connections(self) -> None:
        """Cut every open connection, and wait for their threads."""
        self.cut_connections()
        with self._connections_lock:
            threads = list(self._connections.values())
        for thread in threads:
            thread.join(timeout=2)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def setup(self) -> None:
        self.connection = self.request
        self.rfile = self.connection.makefile("rb", 65536)
        self.wfile = self.connection.makefile("wb", 0)

    def handle_one_request(self) -> None:
        if not isinstance(self.connection, ssl.SSLSocket) and self._speaks_tls():
            self.close_connection = True
            return
        try:
            super().handle_one_request()
        except (ConnectionError, ssl.SSLError, ValueError, OSError) as error:
            self.close_connection = True
            logger.debug("%s: connection lost: %s", self.server.web.name, error)

    def _speaks_tls(self) -> bool:
        """Return whether a client tries HTTPS on a plain port: it must be turned away, not waited for."""
        first = self.rfile.peek(1)[:1]  # type: ignore[attr-defined]
        return bool(first) and first[0] == _TLS_HANDSHAKE

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= _MOST_BODY_BYTES or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self._send(Delivery(html_answer(HTTPStatus.LENGTH_REQUIRED, "411 Length Required")))
            return
        body = self.rfile.read(length) if length else b""
        request = Request(self.command, self.path, self.headers, body)
        try:
            delivery = self.server.respond(request)
        except Exception:
            # A mistake of the simulator's own must not look like a network that fails.
            logger.exception("%s: cannot answer %s", self.server.web.name, self.path)
            delivery = Delivery(html_answer(HTTPStatus.INTERNAL_SERVER_ERROR, "500 Internal Server Error"))
        self._send(delivery)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815 - the base class calls these

    def _send(self, delivery: Delivery) -> None:
        answer, stopping = delivery.answer, self.server.web.stopping
        if stopping.wait(delivery.delay_s):
            self.close_connection = True
            return
        match delivery.fault:
            case "reset":
                self._reset()
            case "truncated":
                whole = len(answer.body)
                kept = min(whole - 1, int(whole * delivery.parameters["share"]))
                self.wfile.write(self._head(answer, whole) + answer.body[: max(0, kept)])
                self.close_connection = True
            case "endless":
                self.close_connection = True
                self.wfile.write(self._head(answer, None))
                while not stopping.is_set():
                    self.wfile.write(answer.body or b" ")
            case "drip":
                self.wfile.write(self._head(answer, len(answer.body)))
                step = max(1, int(delivery.parameters["chunk_bytes"]))
                for start in range(0, len(answer.body), step):
                    if stopping.wait(delivery.parameters["pause_s"]):
                        self.close_connection = True
                        return
                    self.wfile.write(answer.body[start : start + step])
            case _:
                body = b"" if self.command == "HEAD" else answer.body
                self.wfile.write(self._head(answer, len(answer.body)) + body)

    def _head(self, answer: Answer, length: int | None) -> bytes:
        try:
            phrase = HTTPStatus(answer.status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {answer.status} {phrase}", f"Date: {self.date_time_string()}"]
        if answer.content_type:
            lines.append(f"Content-Type: {answer.content_type}")
        lines.append("Connection: close" if length is None else f"Content-Length: {length}")
        lines += [f"{name}: {value}" for name, value in answer.headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _reset(self) -> None:
        """Close without the goodbyes of TLS and TCP: the client sees its connection reset."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        logger.debug("%s: %s", self.server.web.name, format % args)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Log nothing here: what was served stands in the ledger."""
