"""Fixtures of many tests: a real broker, a real Carbon, a simulated gateway, and what connects them."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from services.simulator.simulator import Simulator
from shared.mqtt import Connection, Subscription
from shared.settings import MqttSettings
from tests.leftovers import LeftoversPlugin
from tests.needs import NeedsPlugin
from tests.programs import HOST, Program, free_port, listening, simulator, wait_until

SERIAL = "122012345678"


class ScheduleByModule(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Runs all tests of a module in one process, and all tests of the compose stack in one."""

    def _split_scope(self, nodeid: str) -> str:
        return "the compose stack" if nodeid.startswith("tests/docker/") else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Return how xdist distributes the tests."""
    return ScheduleByModule(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Select tests by what this machine has, and check that they leave nothing behind."""
    config.pluginmanager.register(NeedsPlugin(config))
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(LeftoversPlugin())


class Server(Program):
    """A program that serves a port."""

    port: int

    def start(self) -> None:
        """Start it and wait until it serves."""
        super().start()
        wait_until(lambda: listening(self.port), f"port {self.port} accepts connections; {self.output}")


@pytest.fixture(autouse=True)
def _without_the_recordings_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENVOY_RECORDINGS is read when the tests are collected; to a service it would be an unknown setting."""
    monkeypatch.delenv("ENVOY_RECORDINGS", raising=False)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Server]:
    """Yield the broker of ``make run``, on a free port: Mosquitto, or iotcore where that is not installed."""
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
