"""A gateway whose responses are in memory: recorded from a gateway, or served once by the simulator."""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from services.poller.agenda import Agenda
from services.poller.clock import GatewayClock
from services.poller.envoy import Envoy
from services.poller.identity import parse_info
from services.poller.reader import GatewayReader
from services.poller.settings import PollSettings
from services.simulator.envoy_responses import envoy_response
from services.simulator.recording import read_recording
from services.simulator.response import Request
from services.simulator.simulator import Simulator
from shared.http import Response

Responses = dict[str, tuple[int, bytes]]
"""Status and body by path."""

METER_TIME = re.compile(rb'("(?:timestamp|readingTime)":\s*)([1-9]\d{0,9})\b')

PATHS = (
    "/info",
    "/api/v1/production",
    "/api/v1/production/inverters",
    "/production.json",
    "/production",
    "/ivp/meters",
    "/ivp/meters/readings",
    "/ivp/pdm/energy",
    "/ivp/pdm/device_data",
    "/ivp/ensemble/inventory",
    "/ivp/ensemble/power",
    "/ivp/ensemble/secctrl",
)


class RecordedEnvoy(Envoy):
    """An Envoy without a network; what it does with a response is the real one's."""

    def __init__(self, responses: Mapping[str, tuple[int, bytes]]) -> None:
        super().__init__()
        self.base_url = "http://recorded"
        self.responses = dict(responses)
        self.requested: list[str] = []

    def pass_time(self, seconds: int = 10) -> None:
        """Let the times of the meters be later; those of the inverters' reports stay."""
        self.responses = {
            path: (status, METER_TIME.sub(lambda time: time[1] + str(int(time[2]) + seconds).encode(), body))
            for path, (status, body) in self.responses.items()
        }

    def _get(self, path: str, timeout_s: float, max_bytes: int, *, authenticated: bool = True) -> Response:  # noqa: ARG002 - memory has no connection
        self.requested.append(path)
        status, body = self.responses.get(path, (404, b""))
        response = Response(status, {}, body)
        self._raise_for_status(path, response)
        return response


def new_reader(envoy: RecordedEnvoy, clock: Callable[[], float] = time.time) -> GatewayReader:
    """Return a reader of a gateway, which has read nothing yet."""
    identity = parse_info(envoy.responses["/info"][1], clock()).identity
    return GatewayReader(envoy, identity, Agenda(PollSettings(), clock), GatewayClock(clock))


def recorded_responses(folder: Path) -> Responses:
    """Return what a recorded gateway responds to each path that a poller may fetch."""
    recording = read_recording(folder)
    responses: Responses = {}
    for path in PATHS:
        response = recording.respond(Request("GET", path))
        responses[path] = (response.status, response.body)
    return responses


def simulated_responses(roof: Simulator) -> Responses:
    """Return the same of a simulated gateway, as it would respond now."""
    assert roof.gateway is not None
    model, state = roof.gateway.model, roof.gateway.state()
    served = {path: envoy_response(model, state, path, "") for path in PATHS}
    return {path: (int(response.status), response.body) for path, response in served.items()}
