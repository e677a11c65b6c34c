"""A TCP proxy with faults: connections that are reset, cut, half-open, slow, idle for too long, or malformed."""

import contextlib
import select
import socket
import struct
import threading
import time
from typing import Self

from tests.programs import HOST

CHUNK_BYTES = 100
CHECK_INTERVAL_S = 0.02
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Carries connections to a port of this machine and counts them."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self.accepted = 0
        self.cuts = 0
        self.received: list[bytes] = []
        """What clients sent first while the responses were malformed."""
        self._resets = 0
        self._max_bytes: int | None = None
        self._bytes_per_s: float | None = None
        self._max_idle_s: float | None = None
        self._malformed: bytes | None = None
        self._half_opened = 0
        self._is_silent = False

    def cut_after(self, max_bytes: int | None) -> None:
        """Reset connections that carry more bytes than this to the target; None carries all."""
        self._max_bytes = max_bytes

    def reset_all(self) -> None:
        """Reset every open connection at once."""
        self._resets += 1

    def drop_responses(self) -> None:
        """Drop from now on what the target sends on the open connections; new ones are carried whole."""
        self._half_opened += 1

    def accept_only(self) -> None:
        """Accept new connections and carry nothing on them, ever."""
        self._is_silent = True

    def limit_rate(self, bytes_per_s: float | None) -> None:
        """Carry no more than this on each connection in either direction; None does not limit."""
        self._bytes_per_s = bytes_per_s

    def close_idle_after(self, seconds: float | None) -> None:
        """Close connections that were idle for so long, as go-carbon does; None closes none."""
        self._max_idle_s = seconds

    def respond_with(self, malformed: bytes) -> None:
        """Respond to the first packet of each new connection with this, and close it."""
        self._malformed = malformed

    def end_faults(self) -> None:
        """Carry new connections whole from now on."""
        self._max_bytes = self._bytes_per_s = self._malformed = None
        self._is_silent = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.close()
        self.reset_all()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                self.accepted += 1
                work = self._carry if self._malformed is None else self._respond
                threading.Thread(target=work, args=(client,), daemon=True).start()

    def _respond(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(5)
            self.received.append(client.recv(65_536))
            client.sendall(self._malformed or b"")
            client.shutdown(socket.SHUT_WR)
            client.recv(65_536)

    def _carry(self, client: socket.socket) -> None:
        resets, half_opened, is_silent = self._resets, self._half_opened, self._is_silent
        with client, contextlib.suppress(OSError), socket.create_connection((HOST, self._target_port)) as target:
            other_end = {client: target, target: client}
            open_ends = [client, target]
            carried, active_at = 0, time.monotonic()
            while open_ends:
                if self._max_idle_s is not None and time.monotonic() - active_at > self._max_idle_s:
                    self.cuts += 1
                    return
                if resets != self._resets or (self._max_bytes is not None and carried > self._max_bytes):
                    self.cuts += 1
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                    return
                for end in select.select([] if is_silent else open_ends, [], [], CHECK_INTERVAL_S)[0]:
                    active_at = time.monotonic()
                    data = end.recv(CHUNK_BYTES if self._max_bytes or self._bytes_per_s else 65_536)
                    if not data:
                        open_ends.remove(end)
                        if end is target:
                            return
                        target.shutdown(socket.SHUT_WR)
                        continue
                    if end is client:
                        carried += len(data)
                    if end is client or half_opened == self._half_opened:
                        other_end[end].sendall(data)
                    if self._bytes_per_s is not None:
                        time.sleep(len(data) / self._bytes_per_s)
