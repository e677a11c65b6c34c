"""Carbon's pickle protocol, with the proof of receipt that it has none of.

Carbon acknowledges nothing: what the kernel took may never be read, and the first write to a Carbon that has restarted
succeeds and is lost. So every batch goes over a connection of its own, whose sending half is then closed; Carbon reads
to the end before it closes its half, so the end of file that comes back proves that it has read everything. What it has
read it keeps in memory for a while before it writes; a second connection, held open beside, ends when Carbon does, and
so tells that what was read lately may be lost (both measured with carbon 1.1.10).

Errors::

    CarbonUnavailable   the batch may not have been read: send it again
"""

import contextlib
import logging
import pickle
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from services.carbon_sink.points import Point

logger = logging.getLogger(__name__)

POINTS_A_FRAME = 500
"""Carbon drops frames over 1 MiB unsaid (graphite-project/carbon, lib/carbon/conf.py); 500 points are about 30 kB."""

DEADLINE_S = 10.0
RENEW_AFTER_S = 60.0
"""go-carbon and carbon-relay-ng close connections on which nothing is said for two minutes (receiver/tcp/tcp.go,
cfg/cfg.go)."""

KEEPALIVE_S = 1
"""A machine that vanishes sends no end of file: the held connection is probed, three times a second apart."""


class CarbonUnavailable(Exception):
    """Carbon did not read a batch to its end; writing a point twice is harmless, so send it again."""


class Store(Protocol):
    """Something that takes points, and tells when it may have forgotten some."""

    def write(self, points: Sequence[Point]) -> None:
        """Return once all points have been read; raise CarbonUnavailable if they may not have been."""

    def uninterrupted(self) -> bool:
        """Return whether it is the same one, without a break, as at the first write since this last said False."""

    def close(self) -> None:
        """Let go of it."""


class Carbon:
    """The first of several Carbons that answers; the next one is tried only when that one is lost."""

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        self._addresses = deque(addresses)
        self._held: socket.socket | None = None
        self._renew_at = 0.0

    def write(self, points: Sequence[Point]) -> None:
        """Send points and return once Carbon has read them all; without any, once it has shown that it reads.

        Raises:
            CarbonUnavailable: it may not have.
        """
        host, port = self._hold()
        try:
            with socket.create_connection((host, port), timeout=DEADLINE_S) as connection:
                for frame in frames(points):
                    connection.sendall(frame)
                connection.shutdown(socket.SHUT_WR)
                if connection.recv(1):
                    raise ConnectionError("it answers, so it is no Carbon")
        except OSError as error:
            self.close()
            self._addresses.rotate(-1)
            raise CarbonUnavailable(f"Carbon at {host}:{port}: {error}") from error

    def uninterrupted(self) -> bool:
        """Return whether the held connection still stands."""
        if self._held is not None and _has_ended(self._held):
            self.close()
        if self._held is not None and time.monotonic() >= self._renew_at:
            self._renew(self._held)
        return self._held is not None

    def _renew(self, old: socket.socket) -> None:
        """Hold another connection; nothing was broken if the old one still stands once the new one does."""
        try:
            with old:
                self._held = self._open()
                if _has_ended(old):
                    self.close()
        except OSError:
            self._held = None

    def close(self) -> None:
        """Let go of the held connection."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def _hold(self) -> tuple[str, int]:
        """Return the address whose connection is held, after opening one if there is none."""
        failures = []
        for _address in range(len(self._addresses)):
            host, port = self._addresses[0]
            if self._held is not None:
                return host, port
            try:
                self._held = self._open()
                logger.info("Carbon at %s:%d answers", host, port)
            except OSError as error:
                failures.append(f"Carbon at {host}:{port}: {error}")
                self._addresses.rotate(-1)
        if self._held is None:
            raise CarbonUnavailable("; ".join(failures))
        return self._addresses[0]

    def _open(self) -> socket.socket:
        self._renew_at = time.monotonic() + RENEW_AFTER_S
        return _open_and_probed(*self._addresses[0])


def _has_ended(connection: socket.socket) -> bool:
    # Carbon says nothing of itself: what can be read is the end.
    return bool(select.select([connection], [], [], 0)[0])


def _open_and_probed(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=DEADLINE_S)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with contextlib.suppress(AttributeError):  # macOS names them otherwise
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return connection


def frames(points: Sequence[Point]) -> Iterator[bytes]:
    """Yield what Carbon's pickle receiver reads: a length of four bytes, then a list of (path, (time, value))."""
    for start in range(0, len(points), POINTS_A_FRAME):
        batch = [(path, (timestamp, value)) for path, value, timestamp in points[start : start + POINTS_A_FRAME]]
        body = pickle.dumps(batch, protocol=2)
        yield struct.pack("!I", len(body)) + body
