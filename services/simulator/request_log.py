"""A log of the responses that were sent, with which tests compare what arrived elsewhere."""

import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass

MAX_RESPONSES = 5000
MAX_BYTES = 16_000_000
EVENTS = ("logins", "logins_refused", "exchanges", "exchanges_refused")


@dataclass(frozen=True)
class Served:
    """One response that was sent."""

    at: float
    """Real time, epoch seconds."""
    clock: float
    """Time of the gateway's clock, epoch seconds."""
    server: str
    method: str
    path: str
    """With the query."""
    status: int
    body: str
    fault: str | None
    """The names of the faults that changed it, comma-separated."""


class RequestLog:
    """The last responses, up to MAX_RESPONSES and MAX_BYTES, and counters since the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._served: deque[Served] = deque()
        self._bytes = 0
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._events: Counter[str] = Counter()

    def add(self, served: Served) -> None:
        """Add a response, and drop the oldest beyond the limits."""
        with self._lock:
            self._requests[served.server, served.path, served.status] += 1
            self._served.append(served)
            self._bytes += len(served.body)
            while len(self._served) > MAX_RESPONSES or self._bytes > MAX_BYTES:
                self._bytes -= len(self._served.popleft().body)

    def count(self, event: str) -> None:
        """Increment the counter of one of the EVENTS."""
        with self._lock:
            self._events[event] += 1

    def served(self, server: str | None = None, path: str | None = None) -> list[dict[str, object]]:
        """Return the logged responses, oldest first.

        Args:
            server: only those of this server.
            path: only those of this path, given with or without the query.
        """
        with self._lock:
            logged = list(self._served)
        return [
            asdict(served)
            for served in logged
            if (server is None or served.server == server)
            and (path is None or path in (served.path, served.path.partition("?")[0]))
        ]

    def counters(self) -> dict[str, object]:
        """Return the counters since the start."""
        with self._lock:
            requests = [
                {"server": server, "path": path, "status": status, "count": count}
                for (server, path, status), count in sorted(self._requests.items())
            ]
            return {"requests": requests} | {event: self._events[event] for event in EVENTS}
