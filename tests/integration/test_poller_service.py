"""What poller promises while it runs, with a real Mosquitto and a simulated gateway."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.simulator.faults import parse_fault
from services.simulator.simulator import Simulator
from shared.messages import TokenMessage, TokenRequest
from shared.mqtt import Connection, Message, Subscription
from shared.settings import MqttSettings
from tests.conftest import Server
from tests.programs import Program, wait_until

Settings = Callable[[str], MqttSettings]


class House:
    """Somebody in the house who hears everything, and can play the token broker."""

    def __init__(self, connection: Connection, roof: Simulator) -> None:
        self._connection = connection
        self._roof = roof
        self.heard: list[Message] = []

    def listen(self) -> None:
        """Take in what has arrived."""
        while (message := self._connection.receive(0.02)) is not None:
            if isinstance(message, Message):
                self._connection.acknowledge(message)
                self.heard.append(message)

    def on(self, topic: str) -> list[Message]:
        """Return what was heard on a topic below the gateway's."""
        self.listen()
        return [message for message in self.heard if message.topic == f"enphase/{self._roof.serial}/{topic}"]

    def hear(self, topic: str, payload: bytes | None = None) -> Message:
        """Return the newest message on a topic, or the newest with a payload, waiting for it."""
        wanted = lambda: [m for m in self.on(topic) if payload in (None, m.payload)]  # noqa: E731
        return wait_until(wanted, f"{payload!r} on {topic}")[-1]

    def give_token(self, text: str) -> None:
        """Publish a token for the gateway."""
        now = int(time.time())
        message = TokenMessage.model_validate_json(
            json.dumps(
                {
                    "token": text,
                    "serial": self._roof.serial,
                    "kind": "owner",
                    "issued_at": now,
                    "expires_at": now + 10_000,
                }
            )
        )
        topic = self._connection.topics.token(self._roof.serial)
        self._connection.publish(topic, message.to_json(), retain=True)


@pytest.fixture
def house(mqtt: Settings, roof: Simulator) -> Iterator[House]:
    """Yield somebody in the house."""
    with Connection(
        mqtt("house"), stop=threading.Event(), subscriptions=[Subscription("enphase/#")], persistent_session=False
    ) as connection:
        assert connection.wait_until_connected(10)
        yield House(connection, roof)


@pytest.fixture
def poller(broker: Server, roof: Simulator, tmp_path: Path) -> Iterator[Program]:
    """Yield a running poller that asks every second."""
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


def test_a_poller_without_a_token_asks_for_one_and_then_reads(house: House, poller: Program, roof: Simulator) -> None:
    """It says what it waits for; with the token, info, status and every kind of reading appear, retained."""
    request = TokenRequest.from_json(house.hear("token/request").payload)

    house.give_token(roof.token())

    for topic in ("readings/production", "readings/consumption", "readings/grid", "readings/meter/production"):
        house.hear(topic)
    house.hear("status", b"online")
    info = json.loads(house.hear("info").payload)
    assert request.reason == "missing"
    assert "waiting for a token" in poller.output
    assert info["serial"] == roof.serial
    assert info["sources"] == ["production=meter", "consumption=meter", "grid=meter"]
    assert sum("/readings/inverter/" in message.topic for message in house.heard) == 12


def test_readings_move_forward_in_time_and_inverters_are_told_once(
    house: House, poller: Program, roof: Simulator
) -> None:
    """Each kind's timestamps only grow, and an inverter that has not reported again is not repeated."""
    house.give_token(roof.token())

    wait_until(lambda: len(house.on("readings/grid")) >= 4, "four readings of the grid")

    by_topic: dict[str, list[int]] = {}
    for message in house.heard:
        if "/readings/" in message.topic:
            by_topic.setdefault(message.topic, []).append(json.loads(message.payload)["timestamp"])
    assert all(times == sorted(set(times)) for times in by_topic.values())
    assert {len(times) for topic, times in by_topic.items() if "/inverter/" in topic} == {1}


def test_what_is_published_is_what_the_gateway_served(house: House, poller: Program, roof: Simulator) -> None:
    """Power and energy of the grid arrive as the net-consumption meter gave them, at its time."""
    house.give_token(roof.token())
    wait_until(lambda: len(house.on("readings/grid")) >= 3, "three readings of the grid")

    served = {}
    for answer in roof.ledger.served(server="envoy", path="/ivp/meters/readings"):
        _production, net = json.loads(str(answer["body"]))[:2]
        served[net["timestamp"]] = (net["activePower"], net["actEnergyDlvd"], net["actEnergyRcvd"])
    for message in house.on("readings/grid"):
        grid = json.loads(message.payload)
        told = (grid["power_w"], grid["import_lifetime_wh"], grid["export_lifetime_wh"])
        assert told == served[grid["timestamp"]]


def test_a_rejected_token_is_told_once_and_a_new_one_is_taken_up(
    house: House, poller: Program, roof: Simulator
) -> None:
    """The poller does not hammer with a token that was refused; it asks for another and goes on with that."""
    house.give_token("refused")
    wait_until(lambda: "rejected" in str([m.payload for m in house.on("token/request")]), "the request")
    asked_before = len(roof.ledger.served(server="envoy"))

    house.give_token(roof.token())

    house.hear("readings/grid")
    requests = [TokenRequest.from_json(message.payload).reason for message in house.on("token/request")]
    refused = [answer for answer in roof.ledger.served(server="envoy")[:asked_before] if answer["status"] == 401]
    assert requests.count("rejected") == 1
    assert len(refused) <= 4


def test_a_rejected_token_by_hand_gives_way_to_the_brokers(
    house: House, broker: Server, roof: Simulator, tmp_path: Path
) -> None:
    """ENVOY_TOKEN is refused, which is told once; the broker's opens, and stays the one that is shown."""
    environment = {
        "MQTT_PORT": str(broker.port),
        "ENVOY_HOST": roof.envoy_url,
        "ENVOY_TOKEN": "refused",
        "STATE_DIR": str(tmp_path),
        "POLL_INTERVAL_S": "1",
    }
    with Program.python("services.poller", log=tmp_path / "poller.log", environment=environment) as poller:
        wait_until(lambda: "rejected" in str([m.payload for m in house.on("token/request")]), "the request")
        house.give_token(roof.token())
        house.hear("readings/grid")
        roof.faults.add(parse_fault("reset:server=envoy:count=2"))
        wait_until(lambda: not roof.faults.all(), "the fault is over")
        house.listen()
        house.heard.clear()
        house.hear("readings/grid")

    assert poller.output.count("does not accept ENVOY_TOKEN") == 1
    assert "rejected" not in str([message.payload for message in house.on("token/request")])


def test_a_rejected_token_that_is_given_again_is_not_shown_again(
    house: House, poller: Program, roof: Simulator
) -> None:
    """A broker that answers each request with the token that was refused makes no storm."""
    house.give_token("refused")
    for again in range(3):
        wait_until(lambda: "rejected" in str([m.payload for m in house.on("token/request")]), "the request")
        house.give_token("refused")
        wait_until(lambda seen=again: len(house.on("token")) >= seen + 2, "the token once more")  # type: ignore[misc]
    house.give_token(roof.token())

    house.hear("readings/grid")
    requests = [TokenRequest.from_json(message.payload).reason for message in house.on("token/request")]
    refused = [answer for answer in roof.ledger.served(server="envoy") if answer["status"] == 401]
    assert requests.count("rejected") == 1
    assert len(refused) <= 4


def test_what_is_no_token_does_not_replace_a_good_one(house: House, poller: Program, roof: Simulator) -> None:
    """Garbage, a signature by nobody, another gateway's token: the good one goes on, and no other is asked for."""
    house.give_token(roof.token())
    house.hear("readings/grid")
    before = len(house.on("token"))
    header, claims, signature = roof.token().split(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    others = base64.urlsafe_b64encode(b'{"aud":"122000000099"}').decode().rstrip("=")
    for text in ("garbage", "a.b.c", f"{unsigned}.{claims}.", f"{header}.{others}.{signature}"):
        house.give_token(text)
    wait_until(lambda: len(house.on("token")) >= before + 4, "the tokens")
    seen = len(house.on("readings/grid"))

    wait_until(lambda: len(house.on("readings/grid")) >= seen + 3, "readings as before")

    assert not [m for m in house.on("token/request") if b"rejected" in m.payload]
    assert not [answer for answer in roof.ledger.served(server="envoy") if answer["status"] == 401]


@pytest.mark.parametrize("fault", ["html", "truncated", "503:retry_after_s=1", "reset", "endless"])
def test_bad_answers_are_survived_without_a_stack_trace(
    fault: str, house: House, poller: Program, roof: Simulator
) -> None:
    """Whatever the gateway answers for a while, readings go on afterwards by themselves."""
    house.give_token(roof.token())
    house.hear("readings/grid")

    roof.faults.add(parse_fault(f"{fault}:server=envoy:count=2"))
    wait_until(lambda: not roof.faults.all(), "the fault is over")
    house.listen()
    house.heard.clear()

    house.hear("readings/grid")
    assert "Traceback" not in poller.output


def test_a_gateway_that_goes_away_is_told_offline_and_online_again(
    house: House, poller: Program, roof: Simulator
) -> None:
    """The status follows the gateway, each way told once."""
    house.give_token(roof.token())
    house.hear("status", b"online")

    roof.faults.add(parse_fault("503:server=envoy:retry_after_s=1:count=2"))

    house.hear("status", b"offline")
    wait_until(lambda: house.on("status")[-1].payload == b"online", "online again")
    assert [message.payload for message in house.on("status")] == [b"online", b"offline", b"online"]


def test_a_broker_that_restarts_hears_everything_taken_meanwhile(
    broker: Server, mqtt: Settings, poller: Program, roof: Simulator, house: House
) -> None:
    """Polls go on while the broker is dead, and their readings arrive when it lives."""
    house.give_token(roof.token())
    house.hear("readings/grid")
    broker.kill()
    polls = len(roof.ledger.served(server="envoy", path="/ivp/meters/readings"))
    wait_until(lambda: len(roof.ledger.served(server="envoy", path="/ivp/meters/readings")) > polls + 2, "polls go on")
    killed_at = json.loads(house.on("readings/grid")[-1].payload)["timestamp"]

    broker.start()

    newest = wait_until(
        lambda: [m for m in house.on("readings/grid") if json.loads(m.payload)["timestamp"] > killed_at + 2], "readings"
    )
    assert newest


def test_told_to_stop_the_poller_says_offline_and_ends_with_0(house: House, poller: Program, roof: Simulator) -> None:
    """SIGTERM ends it cleanly."""
    house.give_token(roof.token())
    house.hear("readings/grid")

    assert poller.stop(deadline_s=10) == 0

    def said_offline() -> bool:
        house.listen()
        return house.heard[-1].topic == "enphase/services/poller/status" and house.heard[-1].payload == b"offline"

    wait_until(said_offline, "offline")
