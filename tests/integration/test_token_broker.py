"""What token_broker promises, with a real Mosquitto and a simulated Enlighten."""

import json
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from pydantic import SecretStr

from deploy.local.broker import find_mosquitto
from services.simulator.faults import parse_fault as parse
from services.simulator.simulator import Simulator
from shared.messages import TokenMessage, TokenRequest, TokenStatus
from shared.mqtt import Connection, Message, Subscription
from shared.readings import reading_from_json
from shared.settings import MqttSettings
from tests.conftest import Server
from tests.programs import HOST, ROOT, Program, clean_environment, free_port, listening, wait_until

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


STATUS = "enphase/services/token-broker/status"


def once(roof: Simulator, state: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``token_broker --once``."""
    environment = clean_environment() | account(roof, state, ENVOY_SERIAL=roof.serial) | more
    command = [sys.executable, "-m", "services.token_broker", "--once"]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def exchanges(roof: Simulator) -> int:
    """Return how many tokens Enlighten has handed out."""
    return int(str(roof.request_log.counters()["exchanges"]))


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
        return wait_until(lambda: self._newest(f"enphase/{self._serial}/{topic}"), topic)

    def wait_until_online(self) -> None:
        """Wait until token_broker is online: only then has the broker its subscriptions, too."""
        wait_until(lambda: getattr(self._newest(STATUS), "payload", b"") == b"online", "token_broker is online")

    def _newest(self, topic: str) -> Message | None:
        if isinstance(message := self._connection.receive(0.05), Message):
            self._connection.acknowledge(message)
            self.heard[message.topic] = message
        return self.heard.get(topic)


@pytest.fixture
def listener(mqtt: Settings, roof: Simulator) -> Iterator[Listener]:
    """Yield a poller's side of the token topics."""
    filters = [Subscription("enphase/+/token"), Subscription("enphase/+/token/status"), Subscription(STATUS)]
    with Connection(mqtt("listener"), stop=threading.Event(), subscriptions=filters) as connection:
        assert connection.wait_until_connected(10)
        yield Listener(connection, roof.serial)


def test_a_token_asked_for_is_published_for_that_gateway(
    token_broker: Program, listener: Listener, roof: Simulator
) -> None:
    """A request makes the token appear, retained, expiring with the token, and a status without it."""
    with token_broker:
        listener.wait_until_online()
        listener.ask("missing")
        token = TokenMessage.from_json(listener.hear("token").payload)
        status = TokenStatus.from_json(listener.hear("token/status").payload)

    assert token.serial == roof.serial
    assert token.kind == "owner"
    assert token.expires_at - token.issued_at == 31_536_000
    assert status.state == "ok"
    assert status.days_left == pytest.approx(365, abs=0.1)
    assert token.token.get_secret_value() not in token_broker.output


def test_many_requests_at_once_make_one_exchange(token_broker: Program, listener: Listener, roof: Simulator) -> None:
    """Twenty pollers that ask in the same moment cost one log-in."""
    with token_broker:
        listener.wait_until_online()
        for _poller in range(20):
            listener.ask("missing")
        listener.hear("token")
        wait_until(lambda: token_broker.output.count("is asked for: missing") == 20, "all are heard")

    assert exchanges(roof) == 1
    assert roof.request_log.counters()["logins"] == 1


def test_the_retained_token_expires_when_the_token_does(
    broker: Server, token_broker: Program, listener: Listener
) -> None:
    """The broker forgets it by itself: its message expiry is what is left of its life."""
    with token_broker:
        listener.wait_until_online()
        listener.ask("missing")
        listener.hear("token")
        expiries: list[int] = []
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)

        def heard(_client: Client, _data: object, message: MQTTMessage) -> None:
            expiries.append(getattr(message.properties, "MessageExpiryInterval", 0))

        client.on_message = heard
        client.connect(HOST, broker.port)
        client.subscribe("enphase/+/token")
        client.loop_start()
        wait_until(lambda: expiries, "the retained token")
        client.disconnect()
        client.loop_stop()

    assert 31_536_000 - 120 < expiries[0] <= 31_536_000


def test_a_restarted_token_broker_publishes_its_token_without_asking_enphase(
    token_broker: Program, listener: Listener, roof: Simulator
) -> None:
    """The cache on disk answers; a killed process costs no second exchange."""
    with token_broker:
        listener.wait_until_online()
        listener.ask("missing")
        first = listener.hear("token")
        token_broker.kill()
        listener.heard.clear()

        token_broker.start()
        listener.wait_until_online()
        listener.ask("missing")

        assert listener.hear("token").payload == first.payload
    assert exchanges(roof) == 1


def test_a_broker_that_forgot_the_token_gets_it_again(
    broker: Server, token_broker: Program, listener: Listener, tmp_path: Path
) -> None:
    """After a broker lost its memory the token is published at once, unasked."""
    with token_broker:
        listener.wait_until_online()
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
        listener.wait_until_online()
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

    kept = tmp_path / "token_broker" / "tokens" / f"{roof.serial}.json"
    assert (first.returncode, second.returncode) == (0, 0)
    assert "fetched now" in first.stdout
    assert "fetched" not in second.stdout
    assert exchanges(roof) == 1
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert json.loads(kept.read_text())["text"] not in first.stdout + first.stderr + second.stdout + second.stderr


def test_a_cache_that_holds_no_token_is_put_aside_and_not_obeyed(roof: Simulator, tmp_path: Path) -> None:
    """A corrupt file is kept for a person to look at; a new token is fetched."""
    kept = tmp_path / "token_broker" / "tokens" / f"{roof.serial}.json"
    kept.parent.mkdir(parents=True)
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
    assert told in ended.stdout.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_a_wrong_password_is_told_without_being_shown(roof: Simulator, tmp_path: Path) -> None:
    """The message names the settings to correct and holds neither."""
    ended = once(roof, tmp_path, ENLIGHTEN_PASSWORD="sesame", LOG_LEVEL="DEBUG")

    assert ended.returncode == 1
    assert "correct ENLIGHTEN_EMAIL and ENLIGHTEN_PASSWORD" in ended.stdout
    assert "sesame" not in ended.stdout + ended.stderr
    assert "owner@example.com" not in ended.stdout + ended.stderr


def test_a_token_broker_killed_between_exchange_and_publish_loses_no_token_and_asks_no_second(
    broker: Server, listener: Listener, roof: Simulator, tmp_path: Path
) -> None:
    """The token is on disk before anybody hears of it: while the MQTT broker hangs there is nobody to hear."""
    environment = account(roof, tmp_path, MQTT_PORT=str(broker.port), ENVOY_SERIAL=roof.serial)
    kept = tmp_path / "token_broker" / "tokens" / f"{roof.serial}.json"
    broker.process.send_signal(signal.SIGSTOP)
    try:
        with Program.python("services.token_broker", log=tmp_path / "log", environment=environment) as token_broker:
            wait_until(kept.exists, "the token is kept")
            token_broker.kill()
    finally:
        broker.process.send_signal(signal.SIGCONT)

    with token_broker:
        token = TokenMessage.from_json(listener.hear("token").payload)
    assert token.token.get_secret_value() == json.loads(kept.read_text())["text"]
    assert exchanges(roof) == 1


def test_a_gateway_no_longer_served_has_its_retained_token_cleared(
    broker: Server, roof: Simulator, listener: Listener, tmp_path: Path
) -> None:
    """When ENVOY_SERIAL names another gateway, the old one's token and status disappear from the broker."""
    log = tmp_path / "token_broker.log"
    environment = account(roof, tmp_path, MQTT_PORT=str(broker.port))
    first = Program.python(
        "services.token_broker", log=log, environment=environment | {"ENVOY_SERIAL": f"{roof.serial}, 999999999999"}
    )
    with first:
        assert listener.hear("token").payload
    listener.heard.clear()

    second = Program.python(
        "services.token_broker", log=log, environment=environment | {"ENVOY_SERIAL": "999999999999"}
    )
    with second:
        wait_until(lambda: listener.hear("token").payload == b"", "the token is cleared")
        wait_until(lambda: listener.hear("token/status").payload == b"", "its status is cleared")
    assert exchanges(roof) == 1


def test_a_token_by_hand_no_longer_served_is_cleared_too(
    broker: Server, roof: Simulator, listener: Listener, tmp_path: Path
) -> None:
    """When ENVOY_TOKEN goes and another gateway is named, the old token does not stay on the broker for its year."""
    log = tmp_path / "token_broker.log"
    environment = {"MQTT_PORT": str(broker.port), "STATE_DIR": str(tmp_path)}
    manual = environment | {"ENVOY_TOKEN": roof.token()}
    with Program.python("services.token_broker", log=log, environment=manual):
        assert listener.hear("token").payload
    listener.heard.clear()

    with Program.python("services.token_broker", log=log, environment=environment | {"ENVOY_SERIAL": "999999999999"}):
        wait_until(lambda: listener.hear("token").payload == b"", "the token is cleared")


@pytest.mark.parametrize(("password", "log_ins", "handed_out"), [("wrong", 3, 0), ("sunshine", 1, 1)])
def test_processes_at_once_log_in_as_one(
    password: str, log_ins: int, handed_out: int, roof: Simulator, tmp_path: Path
) -> None:
    """Six at the same time, on one STATE_DIR: three rejections at most, and one exchange serves all."""
    environment = account(roof, tmp_path, ENVOY_SERIAL=roof.serial, ENLIGHTEN_PASSWORD=password)
    programs = [
        Program.python("services.token_broker", "--once", log=tmp_path / f"{number}.log", environment=environment)
        for number in range(6)
    ]
    with ExitStack() as running:
        for program in programs:
            running.enter_context(program)
        codes = {program.process.wait(60) for program in programs}

    tried = roof.request_log.served(server="enlighten", path="/login/login.json")
    assert codes == {0 if handed_out else 1}
    assert len(tried) == log_ins
    assert exchanges(roof) == handed_out


def test_a_token_by_hand_that_has_expired_is_no_good_health(broker: Server, roof: Simulator, tmp_path: Path) -> None:
    """Nobody will fetch another: --health says so."""
    log = tmp_path / "token_broker.log"
    environment = {"MQTT_PORT": str(broker.port), "STATE_DIR": str(tmp_path), "ENVOY_TOKEN": roof.token(lifetime_s=1)}
    with Program.python("services.token_broker", log=log, environment=environment):
        said = tmp_path / "token_broker" / "health"
        wait_until(lambda: said.exists() and "ENVOY_TOKEN is expired" in said.read_text(), "the fault is told")


def test_a_token_broker_ended_while_enphase_hangs_counts_no_rejection(roof: Simulator, tmp_path: Path) -> None:
    """Whoever starts and stops it again and again without the internet need not wait a day afterwards."""
    roof.faults.add(parse("slow:server=enlighten:delay_s=60"))
    environment = account(roof, tmp_path, MQTT_PORT=str(free_port()), ENVOY_SERIAL=roof.serial)
    record = tmp_path / "token_broker" / "logins.json"
    with Program.python("services.token_broker", log=tmp_path / "log", environment=environment) as program:
        wait_until(record.exists, "the log-in is counted")
        assert json.loads(record.read_text())["tried_at"] != []

        assert program.stop() == 0

    assert json.loads(record.read_text())["tried_at"] == []


def test_a_folder_that_cannot_be_used_is_told_in_a_line(roof: Simulator, tmp_path: Path) -> None:
    """Before anything is asked of Enphase."""
    (tmp_path / "token_broker").write_text("no folder")

    ended = once(roof, tmp_path)

    assert ended.returncode == 2
    assert ended.stderr.startswith("bad setting STATE_DIR")
    assert len(ended.stderr.splitlines()) == 1
    assert roof.request_log.counters()["logins"] == 0


def test_a_rejected_token_is_not_shown_again_but_exchanged_or_told(
    token_broker: Program, listener: Listener, roof: Simulator
) -> None:
    """Fifty complaints about a fresh token cause no exchange and no repetition of the token."""
    with token_broker:
        listener.wait_until_online()
        listener.ask("missing")
        listener.hear("token")
        listener.heard.clear()

        for _complaint in range(50):
            listener.ask("rejected")
        wait_until(lambda: token_broker.output.count("is asked for: rejected") == 50, "all complaints are heard")
        listener.hear("token/status")

    assert f"enphase/{roof.serial}/token" not in listener.heard
    assert exchanges(roof) == 1


def test_the_metrics_tell_of_tokens_and_log_ins(
    token_broker: Program, listener: Listener, mqtt: Settings, roof: Simulator
) -> None:
    """One gateway with a token for a year and one that Enphase has none for: the worse one counts."""
    metrics = Subscription("enphase/services/token-broker/metrics")
    with (
        token_broker,
        Connection(mqtt("home"), stop=threading.Event(), subscriptions=[metrics], persistent_session=False) as home,
    ):

        def told() -> dict[str, float]:
            if not isinstance(message := home.receive(0.05), Message):
                return {}
            return reading_from_json("metrics", message.payload).numbers()

        assert wait_until(told, "metrics") == {"gateways": 0, "tokens_good": 0, "logins": 0, "logins_failed": 0}
        roof.faults.add(parse("503:server=enlighten:count=1"))
        listener.ask("missing")
        listener.hear("token")
        Listener(listener._connection, "999999999999").ask("missing")
        later: dict[str, float] = {}
        wait_until(lambda: later.update(told()) or later.get("gateways") == 2, "metrics of both gateways")

    assert later == {"gateways": 2, "tokens_good": 1, "token_days_left": 0, "logins": 2, "logins_failed": 1}


def test_a_message_that_is_no_request_is_passed_over(
    token_broker: Program, listener: Listener, mqtt: Settings, roof: Simulator
) -> None:
    """Rubbish on the request topic is told and does no harm; the next request is answered."""
    with token_broker, Connection(mqtt("vandal"), stop=threading.Event(), persistent_session=False) as vandal:
        listener.wait_until_online()
        for rubbish in (b"", b"{", b'{"reason": "because"}', b"[" * 100_000):
            vandal.publish(f"enphase/{roof.serial}/token/request", rubbish).result(10)
        listener.ask("missing")

        assert listener.hear("token").payload
    assert token_broker.output.count("passed over a token request") == 4


@pytest.mark.mosquitto
def test_only_the_token_broker_may_write_the_token_and_only_the_poller_may_read_it(
    roof: Simulator, tmp_path: Path
) -> None:
    """With Mosquitto's access rules the secret reaches the poller and nobody else, and nobody else can forge one."""
    port, serial = free_port(), roof.serial
    with acl_broker(tmp_path, port) as acl:
        wait_until(lambda: listening(port), f"the broker serves; {acl.output}")
        environment = account(
            roof, tmp_path, MQTT_PORT=str(port), MQTT_USERNAME="token_broker", MQTT_PASSWORD="t", ENVOY_SERIAL=serial
        )
        log = tmp_path / "token_broker.log"
        stop = threading.Event()

        def user(name: str) -> Connection:
            settings = MqttSettings(host=HOST, port=port, username=name, password=SecretStr(name[0]), client_id=name)
            return Connection(settings, stop=stop, subscriptions=[Subscription("enphase/#")], persistent_session=False)

        with (
            Program.python("services.token_broker", log=log, environment=environment),
            user("poller") as poller,
            user("viewer") as viewer,
        ):
            token = Listener(poller, serial).hear("token")
            seen = Listener(viewer, serial)
            assert TokenStatus.from_json(seen.hear("token/status").payload).state == "ok"
            forged = viewer.publish(f"enphase/{serial}/token", b"forged", retain=True).result(10)

            assert TokenMessage.from_json(token.payload).serial == serial
            assert not forged.accepted
            assert f"enphase/{serial}/token" not in seen.heard


@pytest.mark.mosquitto
def test_a_broker_that_refuses_the_token_is_no_good_health(roof: Simulator, tmp_path: Path) -> None:
    """A token that was fetched and reaches nobody is told by --health, with the broker's reason."""
    port = free_port()
    environment = account(
        roof, tmp_path, MQTT_PORT=str(port), MQTT_USERNAME="token_broker", MQTT_PASSWORD="t", ENVOY_SERIAL=roof.serial
    )
    said = tmp_path / "token_broker" / "health"
    rules = ACL.replace("topic write enphase/+/token\n", "")
    with (
        acl_broker(tmp_path, port, rules) as acl,
        Program.python("services.token_broker", log=tmp_path / "token_broker.log", environment=environment),
    ):
        wait_until(lambda: said.exists() and "refuses the token" in said.read_text(), f"it is told; {acl.output}")
        assert "Not authorized" in said.read_text()


ACL = """\
user token_broker
topic write enphase/+/token
topic write enphase/+/token/status
topic write enphase/services/token-broker/#
topic read enphase/+/token/request

user poller
topic read enphase/+/token
topic write enphase/+/token/request

user viewer
topic read enphase/+/token/status
topic read enphase/+/status
topic read enphase/+/info
topic read enphase/+/readings/#
"""


def acl_broker(state: Path, port: int, rules: str = ACL) -> Program:
    """Return a Mosquitto with a password for each user and access rules after the contract."""
    mosquitto = find_mosquitto()
    assert mosquitto, "mark the test with pytest.mark.mosquitto"
    passwords = state / "passwords"
    for name in ("token_broker", "poller", "viewer"):
        create = [] if passwords.exists() else ["-c"]
        subprocess.run(["mosquitto_passwd", "-b", *create, str(passwords), name, name[0]], check=True)
    (state / "acl").write_text(rules)
    configuration = state / "acl.conf"
    configuration.write_text(
        f"listener {port} {HOST}\nuser root\nallow_anonymous false\n"
        f"password_file {passwords}\nacl_file {state / 'acl'}\n"
    )
    return Program([mosquitto, "-c", str(configuration)], state / "acl.log")


def test_no_secret_is_in_any_log_status_or_crash(broker: Server, roof: Simulator, tmp_path: Path) -> None:
    """E-mail, password, session, tokens and their claims are nowhere, at DEBUG, through every problem there is."""
    log = tmp_path / "token_broker.log"
    environment = account(
        roof,
        tmp_path,
        MQTT_PORT=str(broker.port),
        ENVOY_SERIAL=roof.serial,
        LOG_LEVEL="DEBUG",
        MQTT_PASSWORD="swordfish",
    )
    environment |= {"MQTT_USERNAME": "captain", "PYTHONFAULTHANDLER": "1"}
    said = ""
    for fault in (None, "mfa", "html:server=enlighten", "not-a-jwt", "blocked", "truncated:server=enlighten"):
        roof.faults.remove()
        if fault:
            roof.faults.add(parse(fault))
        for kept in (tmp_path / "token_broker").rglob("*.*"):
            if kept.is_file():
                kept.unlink()
        with Program.python("services.token_broker", log=log, environment=environment) as program:
            wait_until(lambda: "no token for" in program.output or "good for" in program.output, "an outcome")
            program.process.send_signal(signal.SIGABRT)  # with what Python tells of a crash
            program.process.wait(10)
            said += program.output
        log.unlink()
        ended = once(roof, tmp_path, LOG_LEVEL="DEBUG", PYTHONFAULTHANDLER="1")
        said += ended.stdout + ended.stderr

    secrets = {"owner@example.com", "sunshine", "swordfish", "eyJ"}  # every JSON Web Token begins with the last
    for answer in roof.request_log.served(server="enlighten"):
        secrets |= set(re.findall(r"[0-9a-f]{32}|eyJ[\w.-]+", str(answer["body"])))
    assert len(secrets) > 5
    assert {secret for secret in secrets if secret in said} == set()


def test_check_tries_each_connection_and_logs_in_nowhere(broker: Server, roof: Simulator, tmp_path: Path) -> None:
    """--check tells of the account, Enphase, the cache and the broker in a line each, and ends with 0."""
    ended = check(roof, tmp_path, MQTT_PORT=str(broker.port))

    assert ended.returncode == 0
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["ok"] * 6
    assert roof.request_log.counters()["logins"] == 0


def test_check_says_what_is_wrong_and_what_to_do(roof: Simulator, tmp_path: Path) -> None:
    """A broker that is not there is a line that begins with FAILED, and the exit code is 1."""
    ended = check(roof, tmp_path, MQTT_PORT=str(free_port()), ENLIGHTEN_PASSWORD="")

    failed = [line for line in ended.stdout.splitlines() if line.startswith("FAILED")]
    assert ended.returncode == 1
    assert any("MQTT_HOST" in line for line in failed)
    assert any("ENLIGHTEN_PASSWORD" in line for line in failed)


def test_once_does_not_say_that_it_asks_where_it_does_not(roof: Simulator, tmp_path: Path) -> None:
    """After three rejections, and without an account, nothing is asked, and so it is told."""
    first, _second, _third, fourth = [once(roof, tmp_path, ENLIGHTEN_PASSWORD="wrong") for _attempt in range(4)]
    nobody = once(roof, tmp_path, ENLIGHTEN_PASSWORD="")

    assert "asking 127.0.0.1" in first.stdout
    assert "Enphase is not asked now" in fourth.stdout
    assert "Next attempt" in fourth.stdout
    assert "Enphase is not asked now" in nobody.stdout
    assert "set ENLIGHTEN_EMAIL and ENLIGHTEN_PASSWORD" in nobody.stdout
    assert (fourth.returncode, nobody.returncode) == (1, 1)


def test_check_tells_of_a_log_in_that_was_rejected(broker: Server, roof: Simulator, tmp_path: Path) -> None:
    """What came back, and when it is tried again; and it tries none itself."""
    for _attempt in range(3):
        once(roof, tmp_path, ENLIGHTEN_PASSWORD="wrong")

    ended = check(roof, tmp_path, MQTT_PORT=str(broker.port), ENLIGHTEN_PASSWORD="wrong")

    assert ended.returncode == 1
    assert ended.stdout.startswith("FAILED  account: Enphase rejects the log-in")
    assert "Next attempt 20" in ended.stdout
    assert roof.request_log.counters()["logins_refused"] == 3


def test_check_finds_a_cloud_that_is_out_of_order(broker: Server, roof: Simulator, tmp_path: Path) -> None:
    """Status 503 is no good answer."""
    roof.faults.add(parse("503:server=enlighten"))

    ended = check(roof, tmp_path, MQTT_PORT=str(broker.port))

    assert ended.returncode == 1
    assert "FAILED  127.0.0.1" in ended.stdout


def check(roof: Simulator, state: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``token_broker --check``."""
    environment = clean_environment() | account(roof, state, ENVOY_SERIAL=roof.serial) | more
    command = [sys.executable, "-m", "services.token_broker", "--check"]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("ENLIGHTEN_LOGIN_URL", "http://enlighten.example.com/login"),
        ("ENLIGHTEN_PUBLIC_KEY_FILE", "/dev/null"),
        ("ENLIGHTEN_PUBLIC_KEY_FILE", "README.md"),
        ("ENVOY_SERIAL", "12 34/56"),
    ],
)
def test_a_setting_that_would_fail_later_fails_at_the_start(
    setting: str, value: str, roof: Simulator, tmp_path: Path
) -> None:
    """A password over plain HTTP, a key that is none, a serial that is none: one line, exit code 2, nothing asked."""
    ended = once(roof, tmp_path, **{setting: value})

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"bad setting {setting}")
    assert len(ended.stderr.splitlines()) == 1
    assert roof.request_log.counters()["logins"] == 0


def test_a_token_by_hand_that_is_none_is_a_bad_setting(roof: Simulator, tmp_path: Path) -> None:
    """An error page saved as a token is refused at the start, by the setting's name."""
    ended = once(roof, tmp_path, ENVOY_TOKEN="<html>")

    assert ended.returncode == 2
    assert ended.stderr == "bad setting ENVOY_TOKEN: it is no JSON Web Token\n"
