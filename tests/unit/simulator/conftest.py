"""What the simulator's tests share: a running simulator, and clients that know its log-in."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
import requests

from services.simulator.control_client import ControlClient
from services.simulator.settings import SimulatorSettings
from services.simulator.simulator import Simulator


class Start(Protocol):
    """Starts a simulator with some settings; it stops with the test."""

    def __call__(self, **wanted: object) -> Simulator:
        """Return it running."""
        ...


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder for all tests, so that days are added up once."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def start(state_dir: Path) -> Iterator[Start]:
    """Start simulators on free ports, at noon of a June day."""
    with ExitStack() as stack:

        def start(**wanted: object) -> Simulator:
            defaults: dict[str, object] = {
                "envoy_port": 0,
                "enlighten_port": 0,
                "control_port": 0,
                "slow_answers_s": 0,
                "state_dir": state_dir,
                "commissioned": "2026-06-01",
                "start": "2026-06-21T12:00",
            }
            return stack.enter_context(Simulator(SimulatorSettings.model_validate(defaults | wanted)))

        yield start


class Read(Protocol):
    """Reads an address of the simulated gateway."""

    def __call__(
        self, simulator: Simulator, path: str, *, token: str | None = "", **details: object
    ) -> requests.Response:
        """Return the answer; a good token is shown unless another, or None, is given."""
        ...


@pytest.fixture
def read(state_dir: Path) -> Iterator[Read]:
    """Read as a client that trusts the gateway's own certificate and keeps no cookies."""
    with requests.Session() as session:
        session.trust_env = False  # a REQUESTS_CA_BUNDLE would win over `verify`

        def read(simulator: Simulator, path: str, *, token: str | None = "", **details: object) -> requests.Response:
            headers: dict[str, str] = {}
            if token is not None:
                headers["Authorization"] = f"Bearer {token or simulator.token()}"
            session.cookies.clear()
            session.verify = str(state_dir / f"gateway-{simulator.serial}.pem")
            wanted: dict[str, Any] = {"method": "GET", "timeout": 5, "headers": headers} | details
            return session.request(url=simulator.envoy_url + path, **wanted)

        yield read


@pytest.fixture
def control() -> Callable[[Simulator], ControlClient]:
    """Talk to a simulator's control address."""
    return lambda simulator: ControlClient(simulator.control_url)
