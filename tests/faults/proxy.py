"""A TCP proxy that can be told to hurt what it carries: reset, cut, swallow, slow down, say nothing, talk rubbish."""

import contextlib
import select
import socket
import struct
import threading
import time
from typing import Self

from tests.programs import HOST

CHUNK_BYTES = 100
LOOK_S = 0.02
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Carries connections to a port of this machine, and remembers how many there were."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self.accepted = 0
        self.cuts = 0
        self.heard: list[bytes] = []
        """What clients said first while they were answered with rubbish."""
        self._resets = 0
        self._limit: int | None = None
        self._bytes_per_s: float | None = None
        self._max_idle_s: float | None = None
        self._rubbish: bytes | None = None
        self._deafened = 0
        self._is_silent = False

    def cut_after(self, limit: int | None) -> None:
        """Reset connections that carry more bytes than this to the target; None lets all pass."""
        self._limit = limit

    def reset_all(self) -> None:
        """Reset every connection there is, at once."""
        self._resets += 1

    def swallow_answers(self) -> None:
        """Drop from now on what the target says on the connections there are; new ones are carried whole."""
        self._deafened += 1

    def be_silent(self) -> None:
        """Accept new connections, and do nothing more with them ever."""
        self._is_silent = True

    def slow_to(self, bytes_per_s: float | None) -> None:
        """Carry no more than this on each connection, either way; None is as fast as it goes."""
        self._bytes_per_s = bytes_per_s

    def close_idle_after(self, seconds: float | None) -> None:
        """Close connections on which nothing was said for so long, as go-carbon does; None closes none."""
        self._max_idle_s = seconds

    def answer_with(self, rubbish: bytes) -> None:
        """Answer each new connection's first words with this, and close it."""
        self._rubbish = rubbish

    def behave(self) -> None:
        """Carry new connections whole from now on."""
        self._limit = self._bytes_per_s = self._rubbish = None
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
                work = self._talk_rubbish if self._rubbish is not None else self._carry
                threading.Thread(target=work, args=(client,), daemon=True).start()

    def _talk_rubbish(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(5)
            self.heard.append(client.recv(65_536))
            client.sendall(self._rubbish or b"")
            client.shutdown(socket.SHUT_WR)
            client.recv(65_536)

    def _carry(self, client: socket.socket) -> None:
        resets, deafened, silent = self._resets, self._deafened, self._is_silent
        with client, contextlib.suppress(OSError), socket.create_connection((HOST, self._target_port)) as target:
            other_end = {client: target, target: client}
            open_ends = [client, target]
            carried, spoke_at = 0, time.monotonic()
            while open_ends:
                if self._max_idle_s is not None and time.monotonic() - spoke_at > self._max_idle_s:
                    self.cuts += 1
                    return
                if resets != self._resets or (self._limit is not None and carried > self._limit):
                    self.cuts += 1
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                    return
                for end in select.select([] if silent else open_ends, [], [], LOOK_S)[0]:
                    spoke_at = time.monotonic()
                    data = end.recv(CHUNK_BYTES if self._limit or self._bytes_per_s else 65_536)
                    if not data:
                        open_ends.remove(end)
                        if end is target:
                            return
                        target.shutdown(socket.SHUT_WR)
                        continue
                    if end is client:
                        carried += len(data)
                    if end is client or deafened == self._deafened:
                        other_end[end].sendall(data)
                    if self._bytes_per_s is not None:
                        threading.Event().wait(len(data) / self._bytes_per_s)
