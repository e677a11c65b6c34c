"""Carbon's pickle protocol, with the proof of receipt that it has none of.

Carbon acknowledges nothing: what the kernel took may never be read, and the first write to a Carbon that has restarted
succeeds and is lost. So every batch goes over a connection of its own, whose sending half is then closed; Carbon reads
to the end before it closes its half, so the end of file that comes back proves that it has read everything (measured
with carbon 1.1.10). What it has read it keeps in memory for up to a second before it is on disk.

Errors::

    CarbonUnavailable   the batch may not have been read: send it again
"""

import pickle
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.carbon_sink.points import Point

POINTS_A_FRAME = 500
"""Carbon drops frames over 1 MiB unsaid (graphite-project/carbon, lib/carbon/conf.py); 500 points are about 30 kB."""

DEADLINE_S = 10.0


class CarbonUnavailable(Exception):  # noqa: N818 - what happened
    """Carbon did not read a batch to its end; writing a point twice is harmless, so send it again."""


@dataclass(frozen=True, slots=True)
class Carbon:
    """A Carbon that takes pickles."""

    host: str
    port: int

    def write(self, points: Sequence[Point]) -> None:
        """Send points and return once Carbon has read them all.

        Raises:
            CarbonUnavailable: it may not have.
        """
        try:
            with socket.create_connection((self.host, self.port), timeout=DEADLINE_S) as connection:
                for frame in frames(points):
                    connection.sendall(frame)
                connection.shutdown(socket.SHUT_WR)
                if connection.recv(1):
                    raise CarbonUnavailable(f"what listens at {self.host}:{self.port} answers, so it is no Carbon")
        except OSError as error:
            raise CarbonUnavailable(f"Carbon at {self.host}:{self.port}: {error}") from error


def frames(points: Sequence[Point]) -> Iterator[bytes]:
    """Yield what Carbon's pickle receiver reads: a length of four bytes, then a list of (path, (time, value))."""
    for start in range(0, len(points), POINTS_A_FRAME):
        batch = [(path, (timestamp, value)) for path, value, timestamp in points[start : start + POINTS_A_FRAME]]
        body = pickle.dumps(batch, protocol=2)
        yield struct.pack("!I", len(body)) + body
