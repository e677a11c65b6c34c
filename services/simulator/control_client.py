"""A client of the control endpoint, for tests that run the simulator as a program."""

from collections.abc import Mapping
from typing import Any

import requests

TIMEOUT_S = 10


class ControlClient:
    """Sends requests to the control endpoint of a simulator.

    Raises:
        requests.HTTPError: the simulator rejected a request; the message has its reason.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def add_fault(self, name: str, **details: object) -> int:
        """Activate a fault and return its id; details are server, path, count and the fault's own parameters."""
        return int(self._request("POST", "/faults", json={"name": name, **details})["id"])

    def remove_faults(self, fault_id: int | None = None) -> None:
        """Remove one fault, or all."""
        self._request("DELETE", "/faults", params={} if fault_id is None else {"id": fault_id})

    def served(self, server: str | None = None, path: str | None = None) -> list[dict[str, Any]]:
        """Return the logged responses, oldest first: at, clock, server, method, path, status, body, fault."""
        served: list[dict[str, Any]] = self._request("GET", "/served", params={"server": server, "path": path})[
            "served"
        ]
        return served

    def counters(self) -> dict[str, Any]:
        """Return the numbers of requests, log-ins and token exchanges."""
        return self._request("GET", "/counters")

    def clock(self, **changes: float) -> dict[str, Any]:
        """Return the clock, after moving it by ``advance_s`` or setting the gateway's offset to ``offset_s``."""
        return self._request("POST", "/clock", json=changes) if changes else self._request("GET", "/clock")

    def token(self, **details: object) -> str:
        """Return a token without a log-in; details are serial, kind, lifetime_s and username."""
        return str(self._request("POST", "/tokens", json=details)["token"])

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int | None] | None = None,
        json: Mapping[str, object] | None = None,
    ) -> dict[str, Any]:
        with requests.Session() as session:
            session.trust_env = False  # a proxy of the environment does not reach loopback
            response = session.request(method, self._url + path, params=params, json=json, timeout=TIMEOUT_S)
        if not response.ok:
            raise requests.HTTPError(f"{method} {path}: {response.text}", response=response)
        body: dict[str, Any] = response.json()
        return body
