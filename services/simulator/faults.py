"""Faults on demand: what can go wrong between a client and Enphase, where, and how often.

A fault replaces the response (``html``, ``401``, …), changes how it is delivered (``slow``, ``truncated``, …), or
happens to the whole gateway (``reboot``, …).
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from http import HTTPStatus
from itertools import count as count_from

from services.simulator.response import HTML, TEXT, Response, html_response, json_response

SERVERS = ("envoy", "enlighten", "any")
LOGIN_PATH, TOKENS_PATH = "/login/login.json", "/tokens"

Parameters = Mapping[str, float]


class InvalidFault(ValueError):
    """The request for a fault is invalid; the message names the mistake."""


@dataclass(frozen=True)
class FaultType:
    """What a fault of this name does, where it happens by default, and its own parameters with their defaults."""

    summary: str
    server: str = "envoy"
    path: str = ""
    parameters: Parameters = field(default_factory=dict)
    respond: Callable[[Parameters], Response] | None = None
    """Builds the response that replaces the gateway's."""


@dataclass(frozen=True)
class Fault:
    """An active fault."""

    id: int
    name: str
    server: str
    path: str
    count: int | None
    """How many more requests it hits; None until it is removed."""
    parameters: Parameters
    started_at: float
    """On the monotonic clock."""

    def matches(self, server: str, path: str) -> bool:
        """Return whether it hits a request; a path with ``*``, ``?`` or ``[`` is a pattern, any other a prefix."""
        if self.server not in (server, "any"):
            return False
        if any(wildcard in self.path for wildcard in "*?["):
            return fnmatchcase(path, self.path)
        return path.startswith(self.path)

    def respond(self) -> Response | None:
        """Return the response that replaces the gateway's, or None if it replaces none."""
        if self.name == "reboot" and time.monotonic() - self.started_at >= self.parameters["down_s"]:
            return None
        respond = FAULT_TYPES[self.name].respond
        return respond(self.parameters) if respond else None

    def as_json(self) -> dict[str, object]:
        """Return its fields for the control endpoint."""
        return {
            "id": self.id,
            "name": self.name,
            "server": self.server,
            "path": self.path,
            "count": self.count,
            **self.parameters,
        }


def _busy(parameters: Parameters) -> Response:
    """Return the response of a gateway that has just started."""
    delay_s = int(parameters["retry_after_s"])
    text = f"Resource busy, please retry after {delay_s} seconds\n"
    return Response(HTTPStatus.SERVICE_UNAVAILABLE, text.encode(), TEXT, (("Retry-After", str(delay_s)),))


def _rate_limited(parameters: Parameters) -> Response:
    """Return the response to too many requests."""
    retry_after = ("Retry-After", str(int(parameters["retry_after_s"])))
    return json_response({"message": "Too many requests"}, HTTPStatus.TOO_MANY_REQUESTS, headers=(retry_after,))


def _second_factor(_: Parameters) -> Response:
    """Return the response to a log-in that needs a second factor."""
    cookie = ("Set-Cookie", "login_otp_nonce=51a001; Path=/; HttpOnly")
    return json_response({"success": True, "isBlocked": False}, headers=(cookie,))


FAULT_TYPES: dict[str, FaultType] = {
    "html": FaultType("an HTML page with status 200", respond=lambda _: html_response(HTTPStatus.OK, "Log in")),
    "401": FaultType(
        "unauthorized", respond=lambda _: html_response(HTTPStatus.UNAUTHORIZED, "401 Authorization Required")
    ),
    "403": FaultType("forbidden", respond=lambda _: html_response(HTTPStatus.FORBIDDEN, "403 Forbidden")),
    "429": FaultType("too many requests", parameters={"retry_after_s": 60}, respond=_rate_limited),
    "503": FaultType("resource busy", parameters={"retry_after_s": 30}, respond=_busy),
    "queue-full": FaultType(
        "an HTML page about a full queue, with status 200",
        respond=lambda _: html_response(HTTPStatus.OK, "Queue full"),
    ),
    "queue-full-503": FaultType(
        "an HTML page about a full queue, with status 503",
        respond=lambda _: html_response(HTTPStatus.SERVICE_UNAVAILABLE, "Queue full"),
    ),
    "mfa": FaultType("a second factor is required: no session_id", "enlighten", LOGIN_PATH, respond=_second_factor),
    "mfa-required": FaultType(
        "a second factor is required: requires_mfa",
        "enlighten",
        LOGIN_PATH,
        respond=lambda _: json_response({"requires_mfa": True}),
    ),
    "blocked": FaultType(
        "the account is blocked",
        "enlighten",
        LOGIN_PATH,
        respond=lambda _: json_response({"success": False, "isBlocked": True}),
    ),
    "too-many-sessions": FaultType(
        "the account has too many active sessions",
        "enlighten",
        LOGIN_PATH,
        respond=lambda _: json_response({"message": "Too many active sessions"}),
    ),
    "not-a-jwt": FaultType(
        "the token exchange returns a text that is no token, with status 200",
        "enlighten",
        TOKENS_PATH,
        respond=lambda _: Response(HTTPStatus.OK, b"Error: please try again later", HTML),
    ),
    "slow": FaultType("the response is delayed", parameters={"delay_s": 5}),
    "drip": FaultType("the body arrives a few bytes at a time", parameters={"chunk_bytes": 16, "pause_s": 0.2}),
    "truncated": FaultType("the body is shorter than its Content-Length", parameters={"share": 0.5}),
    "endless": FaultType("the body never ends"),
    "reset": FaultType("the connection is reset"),
    "new-certificate": FaultType("the gateway has a new certificate, which it keeps when the fault is removed"),
    "reboot": FaultType(
        "503 for some seconds, then counters from zero; their values return when the fault is removed",
        parameters={"down_s": 10, "retry_after_s": 30},
        respond=_busy,
    ),
    "wrong-clock": FaultType("the gateway's clock is wrong", parameters={"offset_s": 3600}),
}

DELIVERY_FAULTS = ("reset", "truncated", "endless", "drip")
"""Faults of the delivery; only the first that matches takes effect."""
GATEWAY_FAULTS = ("new-certificate", "reboot", "wrong-clock")
"""Faults of the whole gateway, without server, path or count."""


class Faults:
    """The active faults."""

    def __init__(self, on_added: Callable[[Fault], None], on_removed: Callable[[Fault], None]) -> None:
        self._on_added = on_added
        self._on_removed = on_removed
        self._lock = threading.Lock()
        self._active: dict[int, Fault] = {}
        self._ids = count_from(1)

    def add(self, request: Mapping[str, object]) -> Fault:
        """Activate a fault and return it.

        Raises:
            InvalidFault: the request is invalid.
        """
        fault = _build_fault(request, next(self._ids))
        with self._lock:
            self._active[fault.id] = fault
        self._on_added(fault)
        return fault

    def remove(self, fault_id: int | None = None) -> int:
        """Remove one fault, or all, and return how many were removed."""
        with self._lock:
            removed = [fault for fault in self._active.values() if fault_id in (None, fault.id)]
            for fault in removed:
                del self._active[fault.id]
        for fault in removed:
            self._on_removed(fault)
        return len(removed)

    def active(self) -> list[Fault]:
        """Return the active faults, oldest first."""
        with self._lock:
            return list(self._active.values())

    def hit(self, server: str, path: str) -> list[Fault]:
        """Return the faults that hit a request, after decrementing their counts; the last hit removes a fault."""
        with self._lock:
            hits = [fault for fault in self._active.values() if fault.matches(server, path)]
            for fault in hits:
                if fault.count is not None and fault.count > 1:
                    self._active[fault.id] = replace(fault, count=fault.count - 1)
            last_hits = [fault for fault in hits if fault.count == 1]
            for fault in last_hits:
                del self._active[fault.id]
        for fault in last_hits:
            self._on_removed(fault)
        return hits


def parse_fault(text: str) -> dict[str, object]:
    """Return the request for a fault given as ``NAME[:key=value]...``.

    Raises:
        InvalidFault: a part is not ``key=value``.
    """
    name, *pairs = text.split(":")
    request: dict[str, object] = {"name": name}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidFault(f"{pair!r} in {text!r} is not key=value")
        request[key] = value
    return request


def check_fault(text: str) -> str:
    """Return the text of a fault unchanged.

    Raises:
        InvalidFault: the text is invalid.
    """
    _build_fault(parse_fault(text), 0)
    return text


def _build_fault(request: Mapping[str, object], fault_id: int) -> Fault:
    """Return the requested fault.

    Raises:
        InvalidFault: the request is invalid.
    """
    fields = dict(request)
    name = str(fields.pop("name", ""))
    fault_type = FAULT_TYPES.get(name)
    if fault_type is None:
        raise InvalidFault(f"unknown fault {name!r}; known: {', '.join(FAULT_TYPES)}")
    if name in GATEWAY_FAULTS and (not_applicable := {"server", "path", "count"} & fields.keys()):
        raise InvalidFault(f"{name} happens to the whole gateway and has no {', '.join(sorted(not_applicable))}")
    server = fields.pop("server", fault_type.server)
    if server not in SERVERS:
        raise InvalidFault(f"server is {server!r}, but must be one of {', '.join(SERVERS)}")
    path = fields.pop("path", fault_type.path)
    if not isinstance(path, str):
        raise InvalidFault("path must be text")
    count = fields.pop("count", None)
    max_hits = None if count is None else int(_parse_number("count", count))
    if max_hits is not None and max_hits < 1:
        raise InvalidFault("count must be 1 or more")
    parameters = {key: _parse_number(key, fields.pop(key, default)) for key, default in fault_type.parameters.items()}
    if fields:
        known = ", ".join(("server", "path", "count", *fault_type.parameters))
        raise InvalidFault(f"unknown key {', '.join(map(repr, fields))} of fault {name}; known: {known}")
    return Fault(fault_id, name, str(server), path, max_hits, parameters, time.monotonic())


def _parse_number(key: str, value: object) -> float:
    """Return a value as a finite number.

    Raises:
        InvalidFault: it is none.
    """
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidFault(f"{key} is {value!r}, but must be a number")
    return number
