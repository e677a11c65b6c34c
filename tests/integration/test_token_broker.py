"""What token_broker promises, with a real Mosquitto and a simulated Enlighten."""

import json
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.simulator.faults import parse_fault as parse
from services.simulator.simulator import Simulator
from shared.messages import TokenMessage, TokenRequest, TokenStatus
from shared.mqtt import Connection, Message, Subscription
from shared.settings import MqttSettings
from tests.conftest import Server
from tests.programs import ROOT, Program, clean_environment, wait_until

Settings = Callable[[str], MqttSettings]


def account(roof: Simulator, state: Path, **more: str) -> dict[str, str]:
    """Return the environment with the simulated account."""
    return {
        "ENLIGHTEN_EMAIL": "owner@example.com",
        "ENLIGHTEN_PASSWORD": "sunshine",
        "ENLIGHTEN_LOGIN_URL": f"{roof.enlighten_url}/login/login.json",
        "ENLIGHTEN_TOKENS_URL": f"{roof.enlighten_url}/tokens",
        "STATE_DIR": str(state),
    } | more


def once(roof: Simulator, state: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``token_broker --once``."""
    environment = clean_environment() | account(roof, state, ENVOY_SERIAL=roof.serial) | more
    command = [sys.executable, "-m", "services.token_broker", "--once"]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def exchanges(roof: Simulator) -> int:
    """Return how many tokens Enlighten has handed out."""
    return int(str(roof.ledger.counters()["exchanges"]))


@pytest.fixture
def token_broker(broker: Server, roof: Simulator, tmp_path: Path) -> Program:
    """Return a token_broker with an account, not started; it knows no serial number until a poller asks."""
    environment = account(roof, tmp_path, MQTT_PORT=str(broker.port))
    return Program.python("services.token_broker", log=tmp_path / "token_broker.log", environment=environment)


class Listener:
    """A poller's side of the token topics: asks, and remembers what was heard."""

    def __init__(self, connection: Connection, serial: str) -> None:
        self._connection = connection
        self._serial = serial
        self.heard: dict[str, Message] = {}

    def ask(self, reason: str) -> None:
        """Ask for a token."""
        request = TokenRequest.model_validate({"reason": reason, "requested_at": 1})
        self._connection.publish(self._connection.topics.token_request(self._serial), request.to_json())

    def hear(self, topic: str) -> Message:
        """Return the newest message on a topic below the gateway's, waiting for the first."""

        def heard() -> Message | None:
            if isinstance(message := self._connection.receive(0.05), Message):
                self.heard[message.topic] = message
            return self.heard.get(f"enphase/{self._serial}/{topic}")

        return wait_until(heard, topic)


@pytest.fixture
def listener(mqtt: Settings, roof: Simulator) -> Iterator[Listener]:
    """Yield a poller's side of the token topics."""
    filters = [Subscription("enphase/+/token"), Subscription("enphase/+/token/status")]
    with Connection(mqtt("listener"), stop=threading.Event(), subscriptions=filters) as connection:
        assert connection.wait_until_connected(10)
        yield Listener(connection, roof.serial)


def test_a_token_asked_for_is_published_for_that_gateway(
    token_broker: Program, listener: Listener, roof: Simulator
) -> None:
    """A request makes the token appear, retained, expiring with the token, and a status without it."""
    with token_broker:
        wait_until(lambda: "connected" in token_broker.output, "connected")
        listener.ask("missing")
        token = TokenMessage.from_json(listener.hear("token").payload)
        status = TokenStatus.from_json(listener.hear("token/status").payload)

    assert token.serial == roof.serial
    assert token.kind == "owner"
    assert token.expires_at - token.issued_at == 31_536_000
    assert status.state == "ok"
    assert status.days_left == pytest.approx(365, abs=0.1)
    assert token.token.get_secret_value() not in token_broker.output


def test_a_restarted_token_broker_publishes_its_token_without_asking_enphase(
    token_broker: Program, listener: Listener, roof: Simulator
) -> None:
    """The cache on disk answers; a killed process costs no second exchange."""
    with token_broker:
        wait_until(lambda: "connected" in token_broker.output, "connected")
        listener.ask("missing")
        first = listener.hear("token")
        token_broker.kill()
        listener.heard.clear()

        token_broker.start()
        wait_until(lambda: token_broker.output.count("connected") == 2, "connected again")
        listener.ask("missing")

        assert listener.hear("token").payload == first.payload
    assert exchanges(roof) == 1


def test_a_broker_that_forgot_the_token_gets_it_again(
    broker: Server, token_broker: Program, listener: Listener, tmp_path: Path
) -> None:
    """After a broker lost its memory the token is published at once, unasked."""
    with token_broker:
        wait_until(lambda: "connected" in token_broker.output, "connected")
        listener.ask("missing")
        first = listener.hear("token")
        broker.kill()
        for remembered in tmp_path.rglob("mosquitto.db"):
            remembered.unlink()
        listener.heard.clear()

        broker.start()

        assert listener.hear("token").payload == first.payload


def test_enphase_down_is_told_and_asked_again_later(token_broker: Program, listener: Listener, roof: Simulator) -> None:
    """A page instead of JSON is a status, and the next attempt succeeds by itself."""
    roof.faults.add(parse("html:server=enlighten:count=1"))
    with token_broker:
        wait_until(lambda: "connected" in token_broker.output, "connected")
        listener.ask("missing")
        status = TokenStatus.from_json(listener.hear("token/status").payload)
        listener.hear("token")

    assert status.state == "cloud_unreachable"


def test_a_token_by_hand_is_published_and_never_exchanged(
    broker: Server, roof: Simulator, listener: Listener, tmp_path: Path
) -> None:
    """ENVOY_TOKEN reaches the pollers as kind manual; Enphase hears nothing."""
    environment = {"MQTT_PORT": str(broker.port), "ENVOY_TOKEN": roof.token(), "STATE_DIR": str(tmp_path)}
    log = tmp_path / "token_broker.log"
    with Program.python("services.token_broker", log=log, environment=environment):
        token = TokenMessage.from_json(listener.hear("token").payload)

    assert (token.kind, token.serial) == ("manual", roof.serial)
    assert exchanges(roof) == 0


def test_once_fetches_a_token_and_the_second_time_takes_it_from_the_cache(roof: Simulator, tmp_path: Path) -> None:
    """--once tells how it went, without the secret, and asks Enphase only where the cache has none."""
    first, second = once(roof, tmp_path), once(roof, tmp_path)

    kept = tmp_path / "token_broker" / f"{roof.serial}.json"
    assert (first.returncode, second.returncode) == (0, 0)
    assert "fetched" in first.stdout
    assert "from the cache" in second.stdout
    assert exchanges(roof) == 1
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert json.loads(kept.read_text())["text"] not in first.stdout + first.stderr + second.stdout + second.stderr


def test_a_cache_that_holds_no_token_is_put_aside_and_not_obeyed(roof: Simulator, tmp_path: Path) -> None:
    """A corrupt file is kept for a person to look at; a new token is fetched."""
    kept = tmp_path / "token_broker" / f"{roof.serial}.json"
    kept.parent.mkdir()
    kept.write_text("<html>")

    ended = once(roof, tmp_path)

    assert "fetched" in ended.stdout
    assert kept.with_suffix(".unusable").read_text() == "<html>"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("mfa", "second factor"),
        ("blocked", "blocked"),
        ("429:server=enlighten", "too often"),
        ("503:server=enlighten", "status 503"),
        ("html:server=enlighten", "page instead of JSON"),
        ("truncated:server=enlighten", "cannot be reached"),
        ("not-a-jwt", "not the token"),
    ],
)
def test_each_way_to_get_no_token_has_its_own_words(fault: str, told: str, roof: Simulator, tmp_path: Path) -> None:
    """--once ends with 1 and one line that says what happened."""
    roof.faults.add(parse(fault))

    ended = once(roof, tmp_path)

    assert ended.returncode == 1
    assert told in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_a_wrong_password_is_told_without_being_shown(roof: Simulator, tmp_path: Path) -> None:
    """The message names the settings to correct and holds neither."""
    ended = once(roof, tmp_path, ENLIGHTEN_PASSWORD="sesame", LOG_LEVEL="DEBUG")

    assert ended.returncode == 1
    assert "correct ENLIGHTEN_EMAIL and ENLIGHTEN_PASSWORD" in ended.stderr
    assert "sesame" not in ended.stdout + ended.stderr
    assert "owner@example.com" not in ended.stdout + ended.stderr
