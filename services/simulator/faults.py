"""Faults on demand: what can go wrong between a client and Enphase, each with its effect, place and duration.

A fault either puts an answer in the place of the real one (`html`, `401`, ...), spoils how the real one is delivered
(`slow`, `truncated`, ...), or is something that happens to the gateway (`reboot`, ...).
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from http import HTTPStatus
from itertools import count as counting

from services.simulator.answer import HTML, TEXT, Answer, html_answer, json_answer

SERVERS = ("envoy", "enlighten", "any")
_LOGIN, _TOKENS = "/login/login.json", "/tokens"


class BadFault(ValueError):
    """A fault that was asked for in a way that cannot be understood; the message says what is wrong."""


@dataclass(frozen=True)
class Kind:
    """A sort of fault: where it happens unless told otherwise, and its own parameters with their defaults."""

    summary: str
    server: str = "envoy"
    path: str = ""
    parameters: Mapping[str, float] = field(default_factory=dict)
    answer: Callable[[Mapping[str, float]], Answer] | None = None


@dataclass(frozen=True)
class Fault:
    """A fault that was asked for."""

    id: int
    name: str
    server: str
    path: str
    count: int | None
    """How often it still happens; None until it is removed."""
    parameters: Mapping[str, float]
    since: float
    """When it began, on the monotonic clock."""

    def concerns(self, server: str, path: str) -> bool:
        """Return whether it hits a request; a path with *, ? or [ is a pattern, any other a prefix."""
        if self.server not in (server, "any"):
            return False
        if any(sign in self.path for sign in "*?["):
            return fnmatchcase(path, self.path)
        return path.startswith(self.path)

    def answer(self) -> Answer | None:
        """Return the answer to give instead of the real one, or None where the real one is given."""
        if self.name == "reboot" and time.monotonic() - self.since >= self.parameters["down_s"]:
            return None
        build = KINDS[self.name].answer
        return build(self.parameters) if build else None

    def described(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "id": self.id,
            "name": self.name,
            "server": self.server,
            "path": self.path,
            "count": self.count,
            **self.parameters,
        }


def _busy(parameters: Mapping[str, float]) -> Answer:
    wait_s = int(parameters["retry_after_s"])
    text = f"Resource busy, please retry after {wait_s} seconds\n"
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, text.encode(), TEXT, (("Retry-After", str(wait_s)),))


def _rate_limited(parameters: Mapping[str, float]) -> Answer:
    answer = json_answer({"message": "Too many requests"}, HTTPStatus.TOO_MANY_REQUESTS)
    return Answer(answer.status, answer.body, headers=(("Retry-After", str(int(parameters["retry_after_s"]))),))


def _mfa(_: Mapping[str, float]) -> Answer:
    answer = json_answer({"success": True, "isBlocked": False})
    return Answer(answer.status, answer.body, headers=(("Set-Cookie", "login_otp_nonce=51a001; Path=/; HttpOnly"),))


KINDS: dict[str, Kind] = {
    "html": Kind("an HTML page with status 200", answer=lambda _: html_answer(HTTPStatus.OK, "Log in")),
    "401": Kind("unauthorized", answer=lambda _: html_answer(HTTPStatus.UNAUTHORIZED, "401 Authorization Required")),
    "403": Kind("forbidden", answer=lambda _: html_answer(HTTPStatus.FORBIDDEN, "403 Forbidden")),
    "429": Kind("too many requests", parameters={"retry_after_s": 60}, answer=_rate_limited),
    "503": Kind("resource busy", parameters={"retry_after_s": 30}, answer=_busy),
    "queue-full": Kind(
        "an HTML page that says the queue is full, status 200",
        answer=lambda _: html_answer(HTTPStatus.OK, "Queue full"),
    ),
    "queue-full-503": Kind(
        "the same with status 503", answer=lambda _: html_answer(HTTPStatus.SERVICE_UNAVAILABLE, "Queue full")
    ),
    "mfa": Kind("log-in wants a second factor: no session_id", "enlighten", _LOGIN, answer=_mfa),
    "mfa-required": Kind(
        "the same, told as requires_mfa", "enlighten", _LOGIN, answer=lambda _: json_answer({"requires_mfa": True})
    ),
    "blocked": Kind(
        "the account is blocked",
        "enlighten",
        _LOGIN,
        answer=lambda _: json_answer({"success": False, "isBlocked": True}),
    ),
    "too-many-sessions": Kind(
        "log-in finds too many active sessions",
        "enlighten",
        _LOGIN,
        answer=lambda _: json_answer({"message": "Too many active sessions"}),
    ),
    "not-a-jwt": Kind(
        "the token exchange gives some text with status 200",
        "enlighten",
        _TOKENS,
        answer=lambda _: Answer(HTTPStatus.OK, b"Error: please try again later", HTML),
    ),
    "slow": Kind("the answer comes late", parameters={"delay_s": 5}),
    "drip": Kind("the body comes a few bytes at a time", parameters={"chunk_bytes": 16, "pause_s": 0.2}),
    "truncated": Kind("the body ends before its Content-Length", parameters={"share": 0.5}),
    "endless": Kind("the body never ends"),
    "reset": Kind("the connection is reset instead of an answer"),
    "new-certificate": Kind("the gateway shows a new certificate; removing the fault does not bring back the old one"),
    "reboot": Kind(
        "503 for a while, then counters from zero; removing the fault brings the counters back",
        parameters={"down_s": 10, "retry_after_s": 30},
        answer=_busy,
    ),
    "wrong-clock": Kind("the gateway's clock is wrong", parameters={"offset_s": 3600}),
}


SPOILING = ("reset", "truncated", "endless", "drip")
"""Faults of the delivery, of which one at a time takes effect."""
HAPPENING = ("new-certificate", "reboot", "wrong-clock")
"""Faults that happen to the gateway as a whole: they have no server, path or count."""


class Faults:
    """The faults that are in force."""

    def __init__(self, began: Callable[[Fault], None], ended: Callable[[Fault], None]) -> None:
        self._began = began
        self._ended = ended
        self._lock = threading.Lock()
        self._faults: dict[int, Fault] = {}
        self._numbers = counting(1)

    def add(self, wanted: Mapping[str, object]) -> Fault:
        """Put a fault in force. Raises BadFault."""
        fault = _understand(wanted, next(self._numbers))
        with self._lock:
            self._faults[fault.id] = fault
        self._began(fault)
        return fault

    def remove(self, fault_id: int | None = None) -> int:
        """Take one fault or all out of force, and return how many there were."""
        with self._lock:
            chosen = [fault for fault in self._faults.values() if fault_id in (None, fault.id)]
            for fault in chosen:
                del self._faults[fault.id]
        for fault in chosen:
            self._ended(fault)
        return len(chosen)

    def all(self) -> list[Fault]:
        """Return what is in force, oldest first."""
        with self._lock:
            return list(self._faults.values())

    def take(self, server: str, path: str) -> list[Fault]:
        """Return the faults that hit a request, and count them down."""
        with self._lock:
            hits = [fault for fault in self._faults.values() if fault.concerns(server, path)]
            for fault in hits:
                if fault.count is not None and fault.count > 1:
                    self._faults[fault.id] = replace(fault, count=fault.count - 1)
            last = [fault for fault in hits if fault.count == 1]
            for fault in last:
                del self._faults[fault.id]
        for fault in last:
            self._ended(fault)
        return hits


def parse_fault(text: str) -> dict[str, object]:
    """Return what a command line means: `NAME[:key=value]...`. Raises BadFault."""
    name, *pairs = text.split(":")
    wanted: dict[str, object] = {"name": name}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise BadFault(f"{pair!r} in {text!r} is not key=value")
        wanted[key] = value
    return wanted


def check_fault(text: str) -> str:
    """Return the text of a fault as it came. Raises BadFault where it cannot be understood."""
    _understand(parse_fault(text), 0)
    return text


def _understand(wanted: Mapping[str, object], number: int) -> Fault:
    rest = dict(wanted)
    name = str(rest.pop("name", ""))
    kind = KINDS.get(name)
    if kind is None:
        raise BadFault(f"there is no fault {name!r}; there are {', '.join(KINDS)}")
    if name in HAPPENING and (misplaced := {"server", "path", "count"} & set(rest)):
        raise BadFault(f"{name} happens to the whole gateway: it knows no {', '.join(sorted(misplaced))}")
    server = rest.pop("server", kind.server)
    if server not in SERVERS:
        raise BadFault(f"server is {server!r}, but must be one of {', '.join(SERVERS)}")
    path = rest.pop("path", kind.path)
    if not isinstance(path, str):
        raise BadFault("path must be text")
    count = rest.pop("count", None)
    parameters = {key: _number(key, rest.pop(key, default)) for key, default in kind.parameters.items()}
    if rest:
        known = ", ".join(("server", "path", "count", *kind.parameters))
        raise BadFault(f"fault {name} knows no {', '.join(map(repr, rest))}; it knows {known}")
    times = None if count is None else int(_number("count", count))
    if times is not None and times < 1:
        raise BadFault("count must be 1 or more")
    return Fault(number, name, str(server), path, times, parameters, time.monotonic())


def _number(key: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadFault(f"{key} is {value!r}, but must be a number")
    return number
