"""What poller guarantees while it runs, with a real Mosquitto and a simulated gateway."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.simulator.faults import parse_fault
from services.simulator.simulator import Simulator
from shared.messages import TokenRequest
from shared.mqtt import Connection, Message, Subscription
from shared.settings import MqttSettings
from shared.tokens import Token
from tests.conftest import Server
from tests.programs import Program, wait_until
from tests.tokens import unsigned_token, with_wrong_signature

Settings = Callable[[str], MqttSettings]


class Subscriber:
    """Receives every message, and publishes tokens as token_broker does."""

    def __init__(self, connection: Connection, roof: Simulator) -> None:
        self._connection = connection
        self._roof = roof
        self.received: list[Message] = []

    def receive(self) -> None:
        """Take what has arrived."""
        while (message := self._connection.receive(0.02)) is not None:
            if isinstance(message, Message):
                self._connection.acknowledge(message)
                self.received.append(message)

    def on(self, topic: str) -> list[Message]:
        """Return what was received on a topic of the gateway."""
        self.receive()
        return [message for message in self.received if message.topic == f"enphase/{self._roof.serial}/{topic}"]

    def below(self, topic: str) -> list[Message]:
        """Return what was received on all topics of the gateway that begin so."""
        self.receive()
        return [message for message in self.received if f"/{topic}" in message.topic]

    def wait_for(self, topic: str, payload: bytes | None = None) -> Message:
        """Return the newest message on a topic, or the newest with a payload, waiting for it."""
        wanted = lambda: [m for m in self.on(topic) if payload in (None, m.payload)]  # noqa: E731
        return wait_until(wanted, f"{payload!r} on {topic}")[-1]

    def wait_for_rejection(self) -> None:
        """Wait until the poller requests another token."""
        wait_until(lambda: any(b"rejected" in m.payload for m in self.on("token/request")), "the request")

    def publish_token(self, text: str) -> None:
        """Publish a token for the gateway."""
        now = int(time.time())
        fields = {"token": text, "serial": self._roof.serial, "kind": "owner", "issued_at": now}
        token = Token.model_validate_json(json.dumps(fields | {"expires_at": now + 10_000}))
        topic = self._connection.topics.token(self._roof.serial)
        self._connection.publish(topic, token.to_json(), retain=True)


@pytest.fixture
def subscriber(mqtt: Settings, roof: Simulator) -> Iterator[Subscriber]:
    """Yield a subscriber to everything."""
    with Connection(
        mqtt("subscriber"), stop=threading.Event(), subscriptions=[Subscription("enphase/#")], persistent_session=False
    ) as connection:
        assert connection.wait_until_connected(10)
        yield Subscriber(connection, roof)


@pytest.fixture
def poller(broker: Server, roof: Simulator, tmp_path: Path) -> Iterator[Program]:
    """Yield a running poller that polls every second."""
    environment = {
        "MQTT_PORT": str(broker.port),
        "ENVOY_HOST": roof.envoy_url,
        "STATE_DIR": str(tmp_path),
        "POLL_INTERVAL_S": "1",
        "POLL_INVERTERS_INTERVAL_S": "1",
        "POLL_SLOW_INTERVAL_S": "1",
    }
    with Program.python("services.poller", log=tmp_path / "poller.log", environment=environment) as poller:
        yield poller


def requests_of(roof: Simulator, path: str | None = None, status: int | None = None) -> list[dict[str, object]]:
    """Return what the gateway was requested, with its responses."""
    served = roof.request_log.served("envoy", path)
    return [response for response in served if status in (None, response["status"])]


def test_a_poller_without_a_token_requests_one_and_then_reads(
    subscriber: Subscriber, poller: Program, roof: Simulator
) -> None:
    """The log names what it waits for; with the token, info, status and every kind of reading are published."""
    request = TokenRequest.from_json(subscriber.wait_for("token/request").payload)

    subscriber.publish_token(roof.token())

    for topic in ("readings/production", "readings/consumption", "readings/grid", "readings/meter/production"):
        subscriber.wait_for(topic)
    subscriber.wait_for("status", b"online")
    info = json.loads(subscriber.wait_for("info").payload)
    assert request.reason == "missing"
    assert "waiting for a token" in poller.output
    assert info["serial"] == roof.serial
    sources = ["production=meter", "consumption=meter", "grid=meter"]
    wait_until(lambda: json.loads(subscriber.wait_for("info").payload)["sources"] == sources, "the sources in info")
    wait_until(lambda: len(subscriber.below("readings/inverter/")) == 12, "each inverter once")


def test_times_move_forward_and_an_inverters_report_is_published_once(
    subscriber: Subscriber, poller: Program, roof: Simulator
) -> None:
    """Each kind's timestamps only grow, and an inverter that has not reported again is not repeated."""
    subscriber.publish_token(roof.token())

    wait_until(lambda: len(subscriber.on("readings/grid")) >= 4, "four readings of the grid")

    by_topic: dict[str, list[int]] = {}
    for message in subscriber.received:
        if "/readings/" in message.topic:
            by_topic.setdefault(message.topic, []).append(json.loads(message.payload)["timestamp"])
    assert all(times == sorted(set(times)) for times in by_topic.values())
    assert {len(times) for topic, times in by_topic.items() if "/inverter/" in topic} == {1}


def test_the_published_numbers_are_those_that_the_gateway_served(
    subscriber: Subscriber, poller: Program, roof: Simulator
) -> None:
    """Power and energy of the grid are the net-consumption meter's, at its time."""
    subscriber.publish_token(roof.token())
    wait_until(lambda: len(subscriber.on("readings/grid")) >= 3, "three readings of the grid")

    served = {}
    for response in requests_of(roof, "/ivp/meters/readings"):
        _production, net = json.loads(str(response["body"]))[:2]
        served[net["timestamp"]] = (net["activePower"], net["actEnergyDlvd"], net["actEnergyRcvd"])
    for message in subscriber.on("readings/grid"):
        grid = json.loads(message.payload)
        published = (grid["power_w"], grid["import_lifetime_wh"], grid["export_lifetime_wh"])
        assert published == served[grid["timestamp"]]


def test_a_rejected_token_is_requested_once_and_a_new_one_is_used(
    subscriber: Subscriber, poller: Program, roof: Simulator
) -> None:
    """A token that was rejected is not sent again and again."""
    subscriber.publish_token(with_wrong_signature(roof.token()))
    subscriber.wait_for_rejection()

    subscriber.publish_token(roof.token())

    subscriber.wait_for("readings/grid")
    reasons = [TokenRequest.from_json(message.payload).reason for message in subscriber.on("token/request")]
    assert reasons.count("rejected") == 1
    assert len(requests_of(roof, status=401)) <= 4


def test_a_rejected_envoy_token_gives_way_to_the_brokers(
    subscriber: Subscriber, broker: Server, roof: Simulator, tmp_path: Path
) -> None:
    """The rejection is logged once; the broker's token is accepted and stays in use."""
    environment = {
        "MQTT_PORT": str(broker.port),
        "ENVOY_HOST": roof.envoy_url,
        "ENVOY_TOKEN": with_wrong_signature(roof.token()),
        "STATE_DIR": str(tmp_path),
        "POLL_INTERVAL_S": "1",
    }
    with Program.python("services.poller", log=tmp_path / "poller.log", environment=environment) as poller:
        subscriber.wait_for_rejection()
        subscriber.publish_token(roof.token())
        subscriber.wait_for("readings/grid")
        roof.faults.add(parse_fault("reset:server=envoy:count=2"))
        wait_until(lambda: not roof.faults.active(), "the end of the fault")
        subscriber.receive()
        subscriber.received.clear()
        subscriber.wait_for("readings/grid")

    assert poller.output.count("rejected ENVOY_TOKEN") == 1
    assert "rejected" not in str([message.payload for message in subscriber.on("token/request")])


def test_an_envoy_token_for_another_gateway_is_never_sent(
    subscriber: Subscriber, broker: Server, roof: Simulator, tmp_path: Path
) -> None:
    """The log has the reason, a token is requested, and the broker's is used."""
    environment = {
        "MQTT_PORT": str(broker.port),
        "ENVOY_HOST": roof.envoy_url,
        "ENVOY_TOKEN": unsigned_token("122000000099"),
        "STATE_DIR": str(tmp_path),
        "POLL_INTERVAL_S": "1",
    }
    with Program.python("services.poller", log=tmp_path / "poller.log", environment=environment) as poller:
        request = TokenRequest.from_json(subscriber.wait_for("token/request").payload)
        subscriber.publish_token(roof.token())
        subscriber.wait_for("readings/grid")

    assert request.reason == "missing"
    assert "ENVOY_TOKEN cannot be used for it" in poller.output
    assert requests_of(roof, status=401) == []


def test_a_rejected_token_that_is_published_again_is_not_retried_at_once(
    subscriber: Subscriber, poller: Program, roof: Simulator
) -> None:
    """A broker that responds to each request with the rejected token makes no storm."""
    rejected = with_wrong_signature(roof.token())
    subscriber.publish_token(rejected)
    for again in range(3):
        subscriber.wait_for_rejection()
        subscriber.publish_token(rejected)
        wait_until(lambda seen=again: len(subscriber.on("token")) >= seen + 2, "the token once more")  # type: ignore[misc]
    subscriber.publish_token(roof.token())

    subscriber.wait_for("readings/grid")
    reasons = [TokenRequest.from_json(message.payload).reason for message in subscriber.on("token/request")]
    assert reasons.count("rejected") == 1
    assert len(requests_of(roof, status=401)) <= 4


def test_an_invalid_token_does_not_replace_a_good_one(subscriber: Subscriber, poller: Program, roof: Simulator) -> None:
    """Garbage, no signature, another gateway's token: the good one stays in use, and none is requested."""
    subscriber.publish_token(roof.token())
    subscriber.wait_for("readings/grid")
    before = len(subscriber.on("token"))
    header, claims, signature = roof.token().split(".")
    unsigned = unsigned_token(roof.serial).split(".")[0]
    others = unsigned_token("122000000099").split(".")[1]
    for text in ("garbage", "a.b.c", f"{signature}.{claims}.{signature}", f"{header}.{others}.{unsigned}"):
        subscriber.publish_token(text)
    wait_until(lambda: len(subscriber.on("token")) >= before + 4, "the tokens")
    seen = len(subscriber.on("readings/grid"))

    wait_until(lambda: len(subscriber.on("readings/grid")) >= seen + 3, "readings as before")

    assert not [m for m in subscriber.on("token/request") if b"rejected" in m.payload]
    assert requests_of(roof, status=401) == []


@pytest.mark.parametrize("fault", ["html", "truncated", "503:retry_after_s=1", "reset", "endless"])
def test_readings_resume_by_themselves_after_bad_responses(
    fault: str, subscriber: Subscriber, poller: Program, roof: Simulator
) -> None:
    """Whatever the gateway sends for a while, without a stack trace."""
    subscriber.publish_token(roof.token())
    subscriber.wait_for("readings/grid")

    roof.faults.add(parse_fault(f"{fault}:server=envoy:count=2"))
    wait_until(lambda: not roof.faults.active(), "the end of the fault")
    subscriber.receive()
    subscriber.received.clear()

    subscriber.wait_for("readings/grid")
    assert "Traceback" not in poller.output


def test_the_status_follows_the_gateway(subscriber: Subscriber, poller: Program, roof: Simulator) -> None:
    """Offline once when it is busy, online once when it responds again."""
    subscriber.publish_token(roof.token())
    subscriber.wait_for("status", b"online")

    roof.faults.add(parse_fault("503:server=envoy:retry_after_s=1:count=2"))

    subscriber.wait_for("status", b"offline")
    wait_until(lambda: subscriber.on("status")[-1].payload == b"online", "online again")
    assert [message.payload for message in subscriber.on("status")] == [b"online", b"offline", b"online"]


def test_readings_taken_while_the_broker_is_down_are_published_when_it_is_back(
    broker: Server, mqtt: Settings, poller: Program, roof: Simulator, subscriber: Subscriber
) -> None:
    """Polls continue."""
    subscriber.publish_token(roof.token())
    subscriber.wait_for("readings/grid")
    broker.kill()
    polls = len(requests_of(roof, "/ivp/meters/readings"))
    wait_until(lambda: len(requests_of(roof, "/ivp/meters/readings")) > polls + 2, "polls continue")
    killed_at = json.loads(subscriber.on("readings/grid")[-1].payload)["timestamp"]

    broker.start()

    newest = wait_until(
        lambda: [m for m in subscriber.on("readings/grid") if json.loads(m.payload)["timestamp"] > killed_at + 2],
        "readings",
    )
    assert newest


def test_a_stopped_poller_publishes_offline_and_exits_with_0(
    subscriber: Subscriber, poller: Program, roof: Simulator
) -> None:
    """SIGTERM is enough."""
    subscriber.publish_token(roof.token())
    subscriber.wait_for("readings/grid")

    assert poller.stop(deadline_s=10) == 0

    def is_offline() -> bool:
        subscriber.receive()
        newest = subscriber.received[-1]
        return newest.topic == "enphase/services/poller/status" and newest.payload == b"offline"

    wait_until(is_offline, "offline")
