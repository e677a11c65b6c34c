"""A gateway that answers out of memory: what was recorded of a real one, or served by the simulator once."""

from collections.abc import Mapping
from pathlib import Path

from services.poller.certificates import PinStore
from services.poller.envoy import EndpointMissing, Envoy, GatewayUnavailable, TokenRejected
from services.poller.settings import EnvoySettings
from services.simulator.answer import Request
from services.simulator.envoy_answers import envoy_answer
from services.simulator.recording import read_recording
from services.simulator.simulator import Simulator
from shared.http import Response

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


class RememberedEnvoy(Envoy):
    """An Envoy whose answers are in memory; all that is done with an answer is the real one's."""

    def __init__(self, answers: Mapping[str, tuple[int, bytes]]) -> None:
        super().__init__(EnvoySettings(host="http://remembered"), PinStore(Path("nowhere")))
        self.answers = dict(answers)
        self.asked: list[str] = []

    def _get(self, path: str, deadline_s: float) -> Response:  # noqa: ARG002 - memory is in time
        self.asked.append(path)
        status, body = self.answers.get(path, (404, b""))
        if status in (401, 403):
            raise TokenRejected(f"{path}: the gateway answers {status}")
        if status == 503:
            raise GatewayUnavailable(f"{path}: the gateway answers 503", retry_after_s=30)
        if status != 200:
            raise EndpointMissing(f"{path}: the gateway answers {status}")
        return Response(status, {}, body)


def recorded_answers(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return status and body of each path that a poller may ask, as recorded."""
    recording = read_recording(folder)
    answers: dict[str, tuple[int, bytes]] = {}
    for path in PATHS:
        answer = recording.answer(Request("GET", path))
        answers[path] = (answer.status, answer.body)
    return answers


def simulated_answers(roof: Simulator) -> dict[str, tuple[int, bytes]]:
    """Return the same of a simulated gateway, as it would answer now."""
    assert roof.gateway is not None
    model, view = roof.gateway.model, roof.gateway.view()
    given = {path: envoy_answer(model, view, path, "") for path in PATHS}
    return {path: (int(answer.status), answer.body) for path, answer in given.items()}
