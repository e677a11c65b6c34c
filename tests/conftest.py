"""A real broker and a real Carbon for every test that wants one, and the promise that CI skips nothing."""

import os
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from deploy.local.broker import find_mosquitto
from services.simulator.simulator import Simulator
from shared.mqtt import Connection, Subscription
from shared.settings import MqttSettings
from tests.programs import HOST, Program, free_port, listening, simulator, wait_until

SERIAL = "122012345678"


class TogetherByModule(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Lets one process run all tests of a module, and one all those that share the compose stack."""

    def _split_scope(self, nodeid: str) -> str:
        return "the compose stack" if nodeid.startswith("tests/docker/") else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Let xdist hand out the tests like that."""
    return TogetherByModule(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a skip a failure in CI, which promises to run everything, but for Docker where it does not require it."""
    report = yield
    promised = os.environ.get("CI") and ("docker" not in item.path.parts or os.environ.get("REQUIRE_DOCKER"))
    if report.skipped and promised and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"CI promises to run {item.nodeid}, but it was skipped: {report.longrepr}"
    return report


class Server(Program):
    """A program that serves a port."""

    port: int

    def start(self) -> None:
        """Start it and wait until it serves."""
        super().start()
        wait_until(lambda: listening(self.port), f"port {self.port} serves; it said: {self.output}")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Server]:
    """Yield a mosquitto with the configuration of ``make run``, on a port of its own."""
    if find_mosquitto() is None:
        pytest.skip("needs mosquitto (apt install mosquitto)")
    yield from _server("deploy.local.broker", "MQTT_PORT", tmp_path)


@pytest.fixture
def carbon(tmp_path: Path) -> Iterator[Server]:
    """Yield a carbon-cache with the configuration of ``make run``, on a port of its own."""
    yield from _server("deploy.local.carbon", "CARBON_PORT", tmp_path)


def _server(module: str, port_setting: str, state: Path) -> Iterator[Server]:
    port = free_port()
    log = state / f"{module}.log"
    server = Server.python(module, log=log, environment={port_setting: str(port), "STATE_DIR": str(state)})
    server.port = port
    with server:
        yield server


@pytest.fixture
def roof(tmp_path: Path) -> Iterator[Simulator]:
    """Yield a simulated gateway and Enlighten, metered on one phase, on ports of their own."""
    with simulator(tmp_path) as simulated:
        yield simulated


@pytest.fixture
def mqtt(broker: Server) -> Callable[[str], MqttSettings]:
    """Return what makes the settings to reach the broker under a client id."""

    def settings(client_id: str) -> MqttSettings:
        return MqttSettings(host=HOST, port=broker.port, client_id=client_id)

    return settings


@pytest.fixture
def sink(broker: Server, carbon: Server, tmp_path: Path) -> Iterator[Program]:
    """Yield a running carbon_sink between the broker and Carbon, which settles after two seconds."""
    environment = {
        "MQTT_PORT": str(broker.port),
        "CARBON_HOST": HOST,
        "CARBON_PORT": str(carbon.port),
        "CARBON_ALIASES": '{"production.power_w": "stats.gauges.solar.production"}',
        "CARBON_SETTLE_S": "2",
        "STATE_DIR": str(tmp_path),
    }
    with Program.python("services.carbon_sink", log=tmp_path / "sink.log", environment=environment) as sink:
        yield sink


@pytest.fixture
def publisher(mqtt: Callable[[str], MqttSettings], sink: Program) -> Iterator[Connection]:
    """Yield a connection to publish with, once the sink listens: a broker keeps nothing for whom it never met."""
    filters = [Subscription("enphase/services/carbon-sink/status"), Subscription("enphase/services/+/receipts")]
    with Connection(mqtt("publisher"), stop=threading.Event(), subscriptions=filters) as connection:
        wait_until(lambda: getattr(connection.receive(0.1), "payload", b"") == b"online", "the sink is online")
        yield connection
