"""The control endpoint: faults, clock and request log as JSON over HTTP; errors are ``{"error": …}``."""

import json
import math
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import parse_qs

from services.simulator.clock import Clock
from services.simulator.faults import FAULT_TYPES, Faults, InvalidFault
from services.simulator.request_log import RequestLog
from services.simulator.response import Request, Response, json_response
from services.simulator.tokens import TOKEN_LIFETIME_S, TokenIssuer


class BadRequest(Exception):
    """The request is invalid; the message names the mistake."""


class Control:
    """Handles requests to the control endpoint."""

    def __init__(self, faults: Faults, request_log: RequestLog, clock: Clock, issuer: TokenIssuer, serial: str) -> None:
        self._faults = faults
        self._request_log = request_log
        self._clock = clock
        self._issuer = issuer
        self._serial = serial
        self._handlers = {
            ("GET", "/faults"): self._list_faults,
            ("POST", "/faults"): self._add_fault,
            ("DELETE", "/faults"): self._remove_faults,
            ("GET", "/served"): self._list_served,
            ("GET", "/counters"): self._list_counters,
            ("GET", "/clock"): self._describe_clock,
            ("POST", "/clock"): self._set_clock,
            ("POST", "/tokens"): self._issue_token,
        }

    def respond(self, request: Request) -> Response:
        """Handle a request and return its response."""
        handle = self._handlers.get((request.method, request.path))
        if handle is None:
            endpoints = ", ".join(f"{method} {path}" for method, path in self._handlers)
            return json_response({"error": f"the endpoints are {endpoints}"}, HTTPStatus.NOT_FOUND)
        try:
            return json_response(handle(request))
        except (BadRequest, InvalidFault) as error:
            return json_response({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    def _list_faults(self, _: Request) -> object:
        known = {
            name: {"summary": fault.summary, "server": fault.server, "path": fault.path, **fault.parameters}
            for name, fault in FAULT_TYPES.items()
        }
        return {"faults": [fault.as_json() for fault in self._faults.active()], "known": known}

    def _add_fault(self, request: Request) -> object:
        return self._faults.add(_parse_object(request)).as_json()

    def _remove_faults(self, request: Request) -> object:
        fault_id = _parse_query(request).get("id")
        if fault_id is None:
            return {"removed": self._faults.remove()}
        if not fault_id.isdecimal():
            raise BadRequest("id must be a number")
        removed = self._faults.remove(int(fault_id))
        if not removed:
            raise BadRequest(f"no fault {fault_id} is active")
        return {"removed": removed}

    def _list_served(self, request: Request) -> object:
        query = _parse_query(request)
        return {"served": self._request_log.served(query.get("server"), query.get("path"))}

    def _list_counters(self, _: Request) -> object:
        return self._request_log.counters()

    def _describe_clock(self, _: Request) -> object:
        now = self._clock.now()
        return {
            "now": now,
            "shown": now + self._clock.gateway_offset_s,
            "iso": datetime.fromtimestamp(now, UTC).isoformat(),
            "offset_s": self._clock.gateway_offset_s,
            "speed": self._clock.speed,
        }

    def _set_clock(self, request: Request) -> object:
        body = _parse_object(request)
        changes = {
            name: value
            for name, value in body.items()
            if name in ("offset_s", "advance_s") and isinstance(value, int | float) and math.isfinite(value)
        }
        if not changes or changes.keys() != body.keys():
            raise BadRequest(
                "the body must have offset_s (how wrong the gateway's clock is) or advance_s (how far to move the "
                "simulated time), in seconds"
            )
        if changes.get("advance_s", 0) < 0:
            raise BadRequest("advance_s must not be negative")
        self._clock.gateway_offset_s = float(changes.get("offset_s", self._clock.gateway_offset_s))
        self._clock.advance(changes.get("advance_s", 0))
        return self._describe_clock(request)

    def _issue_token(self, request: Request) -> object:
        defaults = {"serial": self._serial, "kind": "owner", "lifetime_s": None, "username": "control"}
        claims = defaults | _parse_object(request)
        account, lifetime_s = str(claims["kind"]), claims["lifetime_s"]
        if account not in TOKEN_LIFETIME_S:
            raise BadRequest(f"kind must be one of {', '.join(TOKEN_LIFETIME_S)}")
        if lifetime_s is not None and not isinstance(lifetime_s, int | float):
            raise BadRequest("lifetime_s must be a number of seconds")
        return {"token": self._issuer.issue(str(claims["serial"]), account, str(claims["username"]), lifetime_s)}


def _parse_query(request: Request) -> dict[str, str]:
    """Return the query's parameters; the last value of each."""
    return {name: values[-1] for name, values in parse_qs(request.query).items()}


def _parse_object(request: Request) -> dict[str, object]:
    """Return the body's JSON object; an empty one if there is no body.

    Raises:
        BadRequest: the body is anything else.
    """
    try:
        value = json.loads(request.body or b"{}")
    except ValueError as error:
        raise BadRequest("the body is not JSON") from error
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object")
    return value
