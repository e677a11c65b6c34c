"""What was really served, so that a test can hold what arrived elsewhere against it."""

import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass

_ANSWERS_KEPT = 5000
_BYTES_KEPT = 16_000_000


@dataclass(frozen=True)
class Served:
    """One answer: when (in real epoch seconds, and as the gateway's clock showed), where, and what."""

    at: float
    clock: float
    server: str
    method: str
    path: str
    status: int
    body: str
    fault: str | None


class Ledger:
    """The last few thousand answers, and counts of all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._served: deque[Served] = deque()
        self._bytes = 0
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._events: Counter[str] = Counter()

    def record(self, served: Served) -> None:
        """Add one answer, and let the oldest go where there are too many."""
        with self._lock:
            self._requests[served.server, served.path, served.status] += 1
            self._served.append(served)
            self._bytes += len(served.body)
            while len(self._served) > _ANSWERS_KEPT or self._bytes > _BYTES_KEPT:
                self._bytes -= len(self._served.popleft().body)

    def count(self, event: str) -> None:
        """Count something that happened, such as a log-in."""
        with self._lock:
            self._events[event] += 1

    def served(self, server: str | None = None, path: str | None = None) -> list[dict[str, object]]:
        """Return the answers, oldest first; `path` is compared with and without the query."""
        with self._lock:
            chosen = list(self._served)
        return [
            asdict(answer)
            for answer in chosen
            if (server is None or answer.server == server)
            and (path is None or path in (answer.path, answer.path.partition("?")[0]))
        ]

    def counters(self) -> dict[str, object]:
        """Return all counts since the start."""
        with self._lock:
            requests = [
                {"server": server, "path": path, "status": status, "count": count}
                for (server, path, status), count in sorted(self._requests.items())
            ]
            events = {
                name: self._events[name] for name in ("logins", "logins_refused", "exchanges", "exchanges_refused")
            }
        return {"requests": requests, **events}
