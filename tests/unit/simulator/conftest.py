"""Fixtures of the simulator's tests: a running simulator, and clients that authenticate."""

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
    """Starts a simulator that stops at the end of the test."""

    def __call__(self, **settings: object) -> Simulator:
        """Return a running simulator with these settings."""
        ...


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one state folder for all tests, so that past days are computed once."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def start(state_dir: Path) -> Iterator[Start]:
    """Yield what starts simulators on free ports, at noon of a day in June."""
    with ExitStack() as stack:

        def start(**settings: object) -> Simulator:
            defaults: dict[str, object] = {
                "envoy_port": 0,
                "enlighten_port": 0,
                "control_port": 0,
                "slow_answers_s": 0,
                "state_dir": state_dir,
                "commissioned": "2026-06-01",
                "start": "2026-06-21T12:00",
            }
            return stack.enter_context(Simulator(SimulatorSettings.model_validate(defaults | settings)))

        yield start


class Read(Protocol):
    """Sends a request to the simulated gateway."""

    def __call__(
        self, simulator: Simulator, path: str, *, token: str | None = "", **details: object
    ) -> requests.Response:
        """Return the response; the token is a valid one by default, and None sends none."""
        ...


@pytest.fixture
def read(state_dir: Path) -> Iterator[Read]:
    """Yield a client that trusts the gateway's own certificate and keeps no cookies."""
    with requests.Session() as session:
        session.trust_env = False  # REQUESTS_CA_BUNDLE would take precedence over `verify`

        def read(simulator: Simulator, path: str, *, token: str | None = "", **details: object) -> requests.Response:
            headers: dict[str, str] = {}
            if token is not None:
                headers["Authorization"] = f"Bearer {token or simulator.token()}"
            session.cookies.clear()
            session.verify = str(state_dir / f"gateway-{simulator.serial}.pem")
            request: dict[str, Any] = {"method": "GET", "timeout": 5, "headers": headers} | details
            return session.request(url=simulator.envoy_url + path, **request)

        yield read


@pytest.fixture
def control() -> Callable[[Simulator], ControlClient]:
    """Return what makes a client of a simulator's control endpoint."""
    return lambda simulator: ControlClient(simulator.control_url)
