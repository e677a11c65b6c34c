"""A client for the simulator's control address, for tests that run it as a program."""

from collections.abc import Mapping
from typing import Any

import requests

_TIMEOUT_S = 10


class ControlClient:
    """Asks and tells a simulator. Raises requests.HTTPError with the simulator's own words where it refuses."""

    def __init__(self, url: str) -> None:
        self._url = url

    def begin_fault(self, name: str, **details: object) -> int:
        """Put a fault in force and return its id; details are server, path, count and the fault's parameters."""
        return int(self._ask("POST", "/faults", json={"name": name, **details})["id"])

    def end_faults(self, fault_id: int | None = None) -> None:
        """Take one fault, or all, out of force."""
        self._ask("DELETE", "/faults", params={} if fault_id is None else {"id": fault_id})

    def served(self, server: str | None = None, path: str | None = None) -> list[dict[str, Any]]:
        """Return what was served, oldest first: at, clock, server, method, path, status, body, fault."""
        wanted = {"server": server, "path": path}
        answers: list[dict[str, Any]] = self._ask("GET", "/served", params=wanted)["served"]
        return answers

    def counters(self) -> dict[str, Any]:
        """Return the counts of requests, log-ins and exchanges."""
        return self._ask("GET", "/counters")

    def clock(self, **changes: float) -> dict[str, Any]:
        """Return the clock; `advance_s` lets time pass, `offset_s` sets the gateway's clock wrong."""
        return self._ask("POST", "/clock", json=changes) if changes else self._ask("GET", "/clock")

    def token(self, **details: object) -> str:
        """Return a token without a log-in; details are serial, kind, lifetime_s and username."""
        return str(self._ask("POST", "/tokens", json=details)["token"])

    def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int | None] | None = None,
        json: Mapping[str, object] | None = None,
    ) -> dict[str, Any]:
        with requests.Session() as session:
            session.trust_env = False  # no proxy stands between a test and its simulator
            answer = session.request(method, self._url + path, params=params, json=json, timeout=_TIMEOUT_S)
        if not answer.ok:
            raise requests.HTTPError(f"{method} {path}: {answer.text}", response=answer)
        told: dict[str, Any] = answer.json()
        return told
