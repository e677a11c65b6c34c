"""A connection to Carbon that carries no data and ends when Carbon does.

Carbon loses what it holds in memory when it ends, so the end of this connection means that points may be lost.
"""

import contextlib
import select
import socket
import time

CONNECT_TIMEOUT_S = 10.0

RENEW_INTERVAL_S = 60.0
"""go-carbon and carbon-relay-ng close connections that are idle for two minutes (receiver/tcp/tcp.go, cfg/cfg.go)."""

KEEPALIVE_INTERVAL_S = 1
KEEPALIVE_PROBES = 3
"""A machine that vanishes sends no end of file; TCP keepalive notices it after these probes."""


class Sentinel:
    """An open sentinel connection."""

    def __init__(self, host: str, port: int) -> None:
        """Open the connection. Raises OSError."""
        self.renew_at = time.monotonic() + RENEW_INTERVAL_S
        """When to replace it by a new one, on the monotonic clock."""
        self._socket = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with contextlib.suppress(AttributeError):  # macOS has other names for these options
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_INTERVAL_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)

    def has_ended(self) -> bool:
        """Return whether the other side has closed or lost the connection."""
        # Carbon never sends anything, so a readable socket is at its end.
        return bool(select.select([self._socket], [], [], 0)[0])

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
