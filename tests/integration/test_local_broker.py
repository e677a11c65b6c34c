from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from deploy.local.broker import IOTCORE_MAX_PAYLOAD_BYTES, iotcore_configuration
from tests.integration.local_programs import local_settings
from tests.programs import HOST, Program, listening, wait_until

DEADLINE_S = 10


@pytest.fixture(params=[pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("mosquitto", "iotcore")])
def any_broker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Yield the port of each broker that ``make run`` can use."""
    settings = local_settings(tmp_path)
    port = int(settings["MQTT_PORT"])
    program = Program.python("deploy.local.broker", log=tmp_path / "log", environment=settings)
    if request.param == "iotcore":
        # As deploy.local.broker starts it where Mosquitto is not installed, which a test cannot uninstall.
        configuration = tmp_path / "iotcore.toml"
        configuration.write_text(iotcore_configuration(port))
        # Under coverage a signal is handled when Python code runs, and iotcore runs none.
        environment = {"COVERAGE_PROCESS_CONFIG": ""}
        program = Program.python(
            *("iotcore", "--config", str(configuration), "--log-level", "CRITICAL"),
            log=tmp_path / "log",
            environment=environment,
        )
    with program:
        wait_until(lambda: listening(port), f"the broker listens; {program.output}")
        yield port


class Client:
    """A connection of an MQTT 5 client with a persistent session, and the messages that it received."""

    def __init__(self, port: int, client_id: str) -> None:
        self.received: SimpleQueue[tuple[str, bytes, bool]] = SimpleQueue()
        connected: SimpleQueue[bool] = SimpleQueue()
        self._subscribed: SimpleQueue[int] = SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_connect = lambda _client, _data, flags, _reason, _properties: connected.put(
            flags.session_present
        )
        self._client.on_subscribe = lambda _client, _data, number, _reasons, _properties: self._subscribed.put(number)
        self._client.on_message = lambda _client, _data, message: self.received.put(
            (message.topic, bytes(message.payload), message.retain)
        )
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        self._client.connect(HOST, port, clean_start=False, properties=properties)
        self._client.loop_start()
        self.session_present = connected.get(timeout=DEADLINE_S)

    def subscribe(self, topic: str) -> None:
        """Subscribe and wait for the broker's acknowledgement."""
        self._client.subscribe(topic, qos=1)
        self._subscribed.get(timeout=DEADLINE_S)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish and wait for the broker's acknowledgement."""
        message = self._client.publish(topic, payload, qos=1, retain=retain)
        message.wait_for_publish(DEADLINE_S)
        assert message.is_published()

    def disconnect(self) -> None:
        """Disconnect; the session persists."""
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def connect(any_broker: int) -> Iterator[Callable[[str], Client]]:
    """Yield a function that connects a client to the broker."""
    clients: list[Client] = []

    def new(client_id: str) -> Client:
        clients.append(Client(any_broker, client_id))
        return clients[-1]

    yield new
    for client in clients:
        client.disconnect()


def test_a_message_for_a_disconnected_subscriber_is_queued(connect: Callable[[str], Client]) -> None:
    """A session persists without a connection, and queues QoS 1 messages."""
    sink = connect("sink")
    sink.subscribe("enphase/#")
    sink.disconnect()
    connect("poller").publish("enphase/1/readings/grid", b"one")
    returned = connect("sink")
    assert (sink.session_present, returned.session_present) == (False, True)
    assert returned.received.get(timeout=DEADLINE_S) == ("enphase/1/readings/grid", b"one", False)


def test_a_retained_message_is_sent_to_a_later_subscriber(connect: Callable[[str], Client]) -> None:
    """A dashboard that starts later shows the newest reading immediately."""
    connect("poller").publish("enphase/1/info", b"{}", retain=True)
    dashboard = connect("dashboard")
    dashboard.subscribe("enphase/+/info")
    assert dashboard.received.get(timeout=DEADLINE_S) == ("enphase/1/info", b"{}", True)


def test_the_readings_of_a_large_system_are_accepted(connect: Callable[[str], Client]) -> None:
    """A payload of 200 kB passes; the default maximum of iotcore is 20 kB."""
    payload = b"x" * 200_000
    assert len(payload) < IOTCORE_MAX_PAYLOAD_BYTES
    client = connect("roof")
    client.subscribe("enphase/1/#")
    client.publish("enphase/1/readings/production", payload)
    assert client.received.get(timeout=DEADLINE_S) == ("enphase/1/readings/production", payload, False)
