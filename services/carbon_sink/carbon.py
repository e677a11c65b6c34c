"""Carbon's pickle protocol, with the proof of receipt that the protocol lacks.

Carbon acknowledges nothing: bytes that the kernel accepted may never be read, and the first write to a restarted Carbon
succeeds although its data is lost. So each batch has a connection of its own, whose sending half is then closed. Carbon
closes its half only after it has read to the end, so the end of file proves that it has read the whole batch.

Carbon keeps what it has read in memory for a while. A second connection, the :class:`Sentinel`, ends when Carbon does;
what was read shortly before may then be lost. Both measured with carbon 1.1.10.

Errors::

    CarbonUnavailable   Carbon may not have read the batch: send it again
"""

import logging
import pickle
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from services.carbon_sink.points import Point
from services.carbon_sink.sentinel import Sentinel

logger = logging.getLogger(__name__)

MAX_POINTS_PER_FRAME = 500
"""About 30 kB. Carbon silently drops frames over 1 MiB (graphite-project/carbon, lib/carbon/conf.py)."""

WRITE_TIMEOUT_S = 10.0
"""For each step: to connect, to send, and to receive the end of file."""


class CarbonUnavailable(Exception):
    """Carbon may not have read a batch; sending it again is safe, because a path and a time name one point."""


class Store(Protocol):
    """Where points are written, and whether it may have lost some of them since."""

    @property
    def uninterrupted(self) -> bool:
        """True while nothing written since the last interruption can be lost; false before the first write."""

    def write(self, points: Sequence[Point]) -> None:
        """Return once all points are read; without points, once the store has proved that it reads.

        It ends an interruption if it succeeds, and begins one if it fails.

        Raises:
            CarbonUnavailable: they may not have been read.
        """

    def maintain_sentinel(self) -> None:
        """Detect an interruption, and keep the connection that detects it open; call it about every second."""

    def close(self) -> None:
        """Close all connections."""


class Carbon:
    """The first of several Carbons that accepts a connection; the next one is tried only when that one fails."""

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        self._addresses = deque(addresses)
        """The first one is in use, or is tried next."""
        self._sentinel: Sentinel | None = None

    @property
    def uninterrupted(self) -> bool:
        """True while the sentinel connection is open, as far as :meth:`maintain_sentinel` has seen."""
        return self._sentinel is not None

    def write(self, points: Sequence[Point]) -> None:
        """Send points and return once Carbon has read them all; without points, once it has proved that it reads.

        Raises:
            CarbonUnavailable: Carbon may not have read them.
        """
        host, port = self._connect()
        try:
            with socket.create_connection((host, port), timeout=WRITE_TIMEOUT_S) as connection:
                for frame in frames(points):
                    connection.sendall(frame)
                connection.shutdown(socket.SHUT_WR)
                if connection.recv(1):
                    raise ConnectionError("it sends data, which Carbon never does; check CARBON_HOST and CARBON_PORT")
        except OSError as error:
            self.close()
            self._addresses.rotate(-1)
            raise CarbonUnavailable(_failure(host, port, error)) from error

    def maintain_sentinel(self) -> None:
        """Close the sentinel connection if Carbon has ended it, and replace it by a new one if it is old."""
        if self._sentinel is None:
            return
        if self._sentinel.has_ended():
            self.close()
        elif time.monotonic() >= self._sentinel.renew_at:
            self._replace(self._sentinel)

    def close(self) -> None:
        """Close the sentinel connection."""
        if self._sentinel is not None:
            self._sentinel.close()
            self._sentinel = None

    def _connect(self) -> tuple[str, int]:
        """Return the address of the Carbon in use; if none is, of the first that accepts a sentinel connection."""
        if self._sentinel is not None:
            return self._addresses[0]
        failures = []
        for _attempt in range(len(self._addresses)):
            host, port = self._addresses[0]
            try:
                self._sentinel = Sentinel(host, port)
            except OSError as error:
                failures.append(_failure(host, port, error))
                self._addresses.rotate(-1)
            else:
                logger.info("connected to Carbon at %s:%d", host, port)
                return host, port
        raise CarbonUnavailable("; ".join(failures))

    def _replace(self, old: Sentinel) -> None:
        """Open a new sentinel; Carbon was not interrupted if the old one is still open after that."""
        self._sentinel = None
        with suppress(OSError):
            self._sentinel = Sentinel(*self._addresses[0])
            if old.has_ended():
                self.close()
        old.close()


def frames(points: Sequence[Point]) -> Iterator[bytes]:
    """Yield the frames for Carbon's pickle receiver: a length of four bytes, then a list of (path, (time, value))."""
    for start in range(0, len(points), MAX_POINTS_PER_FRAME):
        batch = [(path, (timestamp, value)) for path, value, timestamp in points[start : start + MAX_POINTS_PER_FRAME]]
        body = pickle.dumps(batch, protocol=2)
        yield struct.pack("!I", len(body)) + body


def _failure(host: str, port: int, error: OSError) -> str:
    return f"Carbon at {host}:{port}: {(error.strerror or str(error)).lower()}"
