"""Each row of docs/security.md, tried on the running stack."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from paho.mqtt.client import Client, ConnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import SecretStr

from shared.mqtt import Connected, Connection, Message, Subscription
from shared.settings import MqttSettings
from tests.docker.stack import RUNNING, Stack
from tests.programs import HOST, wait_until

SERIAL = "999999999999"
"""A gateway that does not exist."""

NOT_AUTHORIZED = 0x87
TOKEN = f"enphase/{SERIAL}/token"
REQUEST = f"enphase/{SERIAL}/token/request"
TOKEN_STATUS = f"enphase/{SERIAL}/token/status"
INFO = f"enphase/{SERIAL}/info"
STATUS = f"enphase/{SERIAL}/status"
READINGS = f"enphase/{SERIAL}/readings/production"
HISTORY = f"enphase/{SERIAL}/history/production"
RECEIPTS = "enphase/services/carbon-sink/receipts"
SINK_STATUS = "enphase/services/carbon-sink/status"
SINK_METRICS = "enphase/services/carbon-sink/metrics"

MAY_WRITE = {
    "token-broker": {TOKEN, TOKEN_STATUS},
    "poller": {REQUEST, INFO, STATUS, READINGS, HISTORY},
    "carbon-sink": {RECEIPTS, SINK_STATUS, SINK_METRICS},
    "viewer": set(),
    "health": set(),
}
MAY_READ = {
    "token-broker": {REQUEST},
    "poller": {TOKEN, RECEIPTS, SINK_STATUS},
    "carbon-sink": {READINGS, HISTORY, SINK_METRICS},
    "viewer": {INFO, STATUS, READINGS, HISTORY, TOKEN_STATUS, SINK_STATUS, SINK_METRICS},
    "health": set(),
}
TOPICS = sorted(set().union(*MAY_WRITE.values()))
WRITER = {topic: account for account, topics in MAY_WRITE.items() for topic in topics}


@pytest.fixture(scope="module")
def writers(stack: Stack) -> Iterator[dict[str, Connection]]:
    """Yield a connection with each account."""
    with ExitStack() as until_the_end:
        yield {
            account: until_the_end.enter_context(probe(stack.mqtt(account), subscribes=False)) for account in MAY_WRITE
        }


def probe(settings: MqttSettings, *, subscribes: bool) -> Connection:
    """Return a connection without a persistent session, subscribed to everything or to nothing."""
    subscriptions = [Subscription("#")] if subscribes else []
    return Connection(settings, stop=threading.Event(), subscriptions=subscriptions, persistent_session=False)


def mark(topic: str) -> bytes:
    """Return a payload for a topic, which the running services accept or skip, and which no other topic has."""
    return b"online" if topic == SINK_STATUS else b'{"timestamp": 1, "power_w": %d}' % TOPICS.index(topic)


def received_by(connection: Connection, expected: set[str]) -> set[str]:
    """Return the topics of all marks that are received until there are the expected ones and then none for a second."""
    found: set[str] = set()

    def is_silent() -> bool:
        message = connection.receive(1.0)
        if isinstance(message, Message):
            connection.acknowledge(message)
            if message.topic in TOPICS and message.payload == mark(message.topic):
                found.add(message.topic)
        return message is None and expected <= found

    wait_until(is_silent, f"{expected} and then nothing; received {found}")
    return found


@pytest.mark.parametrize("topic", TOPICS)
def test_only_its_writer_may_publish_to_a_topic(writers: dict[str, Connection], topic: str) -> None:
    """The broker accepts it from one account, and refuses it from all others."""
    publications = {account: writer.publish(topic, mark(topic)).result(10) for account, writer in writers.items()}

    assert {account for account, publication in publications.items() if publication.accepted} == {WRITER[topic]}
    assert {each.reason_code for each in publications.values() if not each.accepted} == {NOT_AUTHORIZED}


@pytest.mark.parametrize("account", MAY_READ)
def test_an_account_receives_its_topics_and_no_others(
    stack: Stack, writers: dict[str, Connection], account: str
) -> None:
    """It subscribes to everything, and receives what it may read."""
    with probe(stack.mqtt(account), subscribes=True) as reader:
        received_by(reader, set())
        for topic in TOPICS:
            assert writers[WRITER[topic]].publish(topic, mark(topic)).result(10).accepted

        assert received_by(reader, MAY_READ[account]) == MAY_READ[account]


def test_the_viewer_gets_no_retained_token(stack: Stack) -> None:
    """The poller's account receives the token of the simulated gateway when it subscribes, the viewer the status."""

    def retained(account: str) -> set[str]:
        topics = set()
        with probe(stack.mqtt(account), subscribes=True) as reader:
            while isinstance(message := reader.receive(2.0), Message | Connected):
                if isinstance(message, Message):
                    reader.acknowledge(message)
                    if message.retained:
                        topics.add(message.topic)
                    else:
                        break
        return topics

    assert "enphase/122098765432/token" in retained("poller")
    assert "enphase/122098765432/token/status" in (seen := retained("viewer"))
    assert "enphase/122098765432/token" not in seen


@pytest.mark.parametrize("account", [None, "viewer", "poller", "unknown"])
def test_a_wrong_or_missing_password_is_refused(stack: Stack, account: str | None) -> None:
    """For an anonymous client, an account and an unknown name."""
    password = SecretStr("guessed") if account else None
    settings = MqttSettings(host=HOST, port=stack.port("mosquitto", 1883), username=account, password=password)

    assert connect_code(settings) == NOT_AUTHORIZED


def connect_code(settings: MqttSettings) -> int:
    """Return the reason code of the broker's response."""
    codes: list[int] = []

    def connected(
        _client: Client, _userdata: object, _flags: ConnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        codes.append(code.value)

    client = Client(CallbackAPIVersion.VERSION2, "unknown", protocol=MQTTProtocolVersion.MQTTv5)
    client.on_connect = connected
    if settings.password:
        client.username_pw_set(settings.username, settings.password.get_secret_value())
    client.connect(settings.host, settings.port)
    while not codes:
        client.loop(1.0)
    client.disconnect()
    return codes[0]


@pytest.mark.parametrize("service", RUNNING)
def test_a_container_is_hardened(stack: Stack, service: str) -> None:
    """No process is root's, has a capability, can get one, or can write the image's files."""
    host = stack.container(service)["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] == 100
    assert host["Init"] is True
    status = dict(
        line.split(":\t", 1) for line in stack.inside(service, "cat", "/proc/1/status").splitlines() if ":\t" in line
    )
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    refused = stack.inside(service, "sh", "-c", "touch /usr/bin/mine 2>/dev/null || echo refused")
    assert refused.strip() == "refused"


@pytest.mark.parametrize("service", RUNNING)
def test_a_port_is_reached_from_this_machine_only(stack: Stack, service: str) -> None:
    """Ports are published on loopback."""
    bindings = stack.container(service)["HostConfig"]["PortBindings"] or {}

    assert {binding["HostIp"] for published in bindings.values() for binding in published} <= {HOST}


@pytest.mark.parametrize("service", ["mosquitto", "token_broker", "poller", "node_red", "carbon_sink"])
def test_carbon_is_reached_from_its_own_network_only(stack: Stack, service: str) -> None:
    """Carbon has no authentication: only the sink is in its network."""
    networks = stack.container(service)["NetworkSettings"]["Networks"]

    assert any(name.endswith("_storage") for name in networks) == (service == "carbon_sink")
    assert not any(name.endswith("_bus") for name in stack.container("graphite")["NetworkSettings"]["Networks"])


@pytest.mark.parametrize("service", RUNNING)
def test_a_service_has_its_own_secrets_and_no_others(stack: Stack, service: str) -> None:
    """Only its own volume of secrets is mounted, read-only."""
    own = {"node_red": "viewer_secrets", "graphite": None, "simulator": None}.get(service, f"{service}_secrets")
    mounts = [mount for mount in stack.container(service)["Mounts"] if str(mount.get("Name")).endswith("_secrets")]

    assert [mount["Name"].split("_", 1)[1] for mount in mounts] == ([own] if own else [])
    assert not any(mount["RW"] for mount in mounts)


def test_only_token_broker_has_the_password_of_the_account(stack: Stack) -> None:
    """It is in no other container's environment or secrets."""
    holders = {
        service
        for service in RUNNING
        if "sunshine" in stack.inside(service, "sh", "-c", "env; cat /run/secrets/* 2>/dev/null; true")
        and service != "simulator"
    }

    assert holders == {"token_broker"}


def test_secrets_are_in_no_log_and_no_environment(stack: Stack) -> None:
    """No generated password and no token is in a container's log or environment; setup alone prints them, once."""
    token_file = stack.inside("token_broker", "sh", "-c", "cat /state/token_broker/tokens/*.json")
    all_secrets = {*stack.secrets.values(), json.loads(token_file)["text"]}
    assert len(all_secrets) == len(stack.secrets) + 1
    for service in RUNNING:
        visible = stack.compose("logs", service) + str(stack.container(service)["Config"]["Env"])
        assert not [secret for secret in all_secrets if secret in visible], service


def test_the_editor_of_node_red_requires_a_password(stack: Stack) -> None:
    """Without a password the flows are not readable; with the generated one they are."""
    base = f"http://{HOST}:{stack.port('node_red', 1880)}"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{base}/flows", timeout=10)
    form = "client_id=node-red-admin&grant_type=password&scope=*&username=admin&password="
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{base}/auth/token", data=f"{form}guessed".encode(), timeout=10)
    right = f"{form}{stack.secrets['viewer/editor_password']}".encode()
    with urllib.request.urlopen(f"{base}/auth/token", data=right, timeout=10) as response:
        assert b"access_token" in response.read()


def test_passwords_are_generated_once(stack: Stack) -> None:
    """Another ``up`` keeps them, and prints none again."""
    output = stack.compose("run", "--rm", "--no-deps", "-T", "setup")
    again = stack.compose("run", "--rm", "--no-deps", "-T", "setup", "cat", "/volumes/viewer/mqtt_password")

    assert "password" not in output
    assert again == stack.secrets["viewer/mqtt_password"]
