"""The simulator's own address: faults, clock, what was served. JSON over HTTP, errors as `{"error": ...}`."""

import json
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import parse_qs

from services.simulator.answer import Answer, Request, json_answer
from services.simulator.clock import Clock
from services.simulator.faults import KINDS, BadFault, Faults
from services.simulator.ledger import Ledger
from services.simulator.tokens import LIFETIME_S, TokenMint


class BadRequest(ValueError):
    """A request that cannot be understood; the message says what is wrong."""


class Control:
    """Answers what a test or a person asks of the simulator."""

    def __init__(self, faults: Faults, ledger: Ledger, clock: Clock, mint: TokenMint, serial: str) -> None:
        self._faults = faults
        self._ledger = ledger
        self._clock = clock
        self._mint = mint
        self._serial = serial
        self._steps = {
            ("GET", "/faults"): self._list_faults,
            ("POST", "/faults"): self._add_fault,
            ("DELETE", "/faults"): self._remove_faults,
            ("GET", "/served"): self._served,
            ("GET", "/counters"): self._counters,
            ("GET", "/clock"): self._tell_clock,
            ("POST", "/clock"): self._set_clock,
            ("POST", "/tokens"): self._issue_token,
        }

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request."""
        step = self._steps.get((request.method, request.path))
        if step is None:
            known = ", ".join(f"{method} {path}" for method, path in self._steps)
            return json_answer({"error": f"there are {known}"}, HTTPStatus.NOT_FOUND)
        try:
            return json_answer(step(request))
        except (BadRequest, BadFault) as error:
            return json_answer({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    def _list_faults(self, _: Request) -> object:
        return {
            "faults": [fault.described() for fault in self._faults.all()],
            "known": {
                name: {"summary": kind.summary, "server": kind.server, "path": kind.path, **kind.parameters}
                for name, kind in KINDS.items()
            },
        }

    def _add_fault(self, request: Request) -> object:
        return self._faults.add(_object(request)).described()

    def _remove_faults(self, request: Request) -> object:
        wanted = _query(request).get("id")
        if wanted is None:
            return {"removed": self._faults.remove()}
        if not wanted.isdecimal():
            raise BadRequest("id must be a number")
        removed = self._faults.remove(int(wanted))
        if not removed:
            raise BadRequest(f"no fault {wanted} is in force")
        return {"removed": removed}

    def _served(self, request: Request) -> object:
        query = _query(request)
        return {"served": self._ledger.served(query.get("server"), query.get("path"))}

    def _counters(self, _: Request) -> object:
        return self._ledger.counters()

    def _tell_clock(self, _: Request) -> object:
        now, shown = self._clock.now(), self._clock.shown()
        return {
            "now": now,
            "shown": shown,
            "iso": datetime.fromtimestamp(now, UTC).isoformat(),
            "offset_s": self._clock.wrong_by_s,
            "speed": self._clock.speed,
        }

    def _set_clock(self, request: Request) -> object:
        wanted = _object(request)
        numbers = {"offset_s", "advance_s"}
        if not wanted or set(wanted) - numbers or not all(isinstance(value, int | float) for value in wanted.values()):
            raise BadRequest(
                "give offset_s (how wrong the gateway's clock is) or advance_s (time that passes), in seconds"
            )
        if "offset_s" in wanted:
            self._clock.wrong_by_s = float(str(wanted["offset_s"]))
        if "advance_s" in wanted:
            advance_s = float(str(wanted["advance_s"]))
            if advance_s < 0:
                raise BadRequest("advance_s must not be negative: time passes forward")
            self._clock.advance(advance_s)
        return self._tell_clock(request)

    def _issue_token(self, request: Request) -> object:
        wanted = {"serial": self._serial, "kind": "owner", "lifetime_s": None, "username": "control"} | _object(request)
        kind, lifetime_s = str(wanted["kind"]), wanted["lifetime_s"]
        if kind not in LIFETIME_S:
            raise BadRequest(f"kind must be one of {', '.join(LIFETIME_S)}")
        if lifetime_s is not None and not isinstance(lifetime_s, int | float):
            raise BadRequest("lifetime_s must be a number of seconds")
        return {"token": self._mint.issue(str(wanted["serial"]), kind, str(wanted["username"]), lifetime_s)}


def _query(request: Request) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(request.query).items()}


def _object(request: Request) -> dict[str, object]:
    try:
        value = json.loads(request.body or b"{}")
    except ValueError as error:
        raise BadRequest("the body is not JSON") from error
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object")
    return value
