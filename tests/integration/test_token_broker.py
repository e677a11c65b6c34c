"""What token_broker guarantees, with a real broker and a simulated Enlighten."""

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
from shared.messages import TokenRequest, TokenStatus
from shared.mqtt import Connection, Message, Subscription
from shared.readings import reading_from_json
from shared.settings import MqttSettings
from shared.tokens import Token
from tests.conftest import Server
from tests.programs import HOST, ROOT, Program, clean_environment, free_port, listening, wait_until

Settings = Callable[[str], MqttSettings]
STATUS = "enphase/services/token-broker/status"


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
    """Return how many tokens Enlighten has issued."""
    return int(str(roof.request_log.counters()["exchanges"]))


@pytest.fixture
def token_broker(broker: Server, roof: Simulator, tmp_path: Path) -> Program:
    """Return a token_broker with an account and without a serial number, not started."""
    environment = account(roof, tmp_path, MQTT_PORT=str(broker.port))
    return Program.python("services.token_broker", log=tmp_path / "token_broker.log", environment=environment)


class Listener:
    """A poller's side of the token topics: requests tokens, and keeps the newest message of each topic."""

    def __init__(self, connection: Connection, serial: str) -> None:
        self._connection = connection
        self._serial = serial
        self.received: dict[str, Message] = {}

    def request(self, reason: str) -> None:
        """Request a token."""
        request = TokenRequest.model_validate({"reason": reason, "requested_at": 1})
        self._connection.publish(self._connection.topics.token_request(self._serial), request.to_json())

    def receive(self, topic: str) -> Message:
        """Return the newest message on a topic of the gateway, after waiting for the first."""
        return wait_until(lambda: self._newest(f"enphase/{self._serial}/{topic}"), topic)

    def wait_until_online(self) -> None:
        """Wait until token_broker is online: only then the broker has its subscription."""
        wait_until(lambda: getattr(self._newest(STATUS), "payload", b"") == b"online", "token_broker is online")

    def _newest(self, topic: str) -> Message | None:
        if isinstance(message := self._connection.receive(0.05), Message):
            self._connection.acknowledge(message)
            self.received[message.topic] = message
        return self.received.get(topic)


@pytest.fixture
def listener(mqtt: Settings, roof: Simulator) -> Iterator[Listener]:
    """Yield a poller's side of the token topics."""
    filters = [Subscription("enphase/+/token"), Subscription("enphase/+/token/status"), Subscription(STATUS)]
    with Connection(mqtt("listener"), stop=threading.Event(), subscriptions=filters) as connection:
        assert connection.wait_until_connected(10)
        yield Listener(connection, roof.serial)


def test_a_requested_token_is_published_for_that_gateway(
    token_broker: Program, listener: Listener, roof: Simulator
) -> None:
    """Together with a status, which does not contain it."""
    with token_broker:
        listener.wait_until_online()
        listener.request("missing")
        token = Token.from_json(listener.receive("token").payload)
        status = TokenStatus.from_json(listener.receive("token/status").payload)

    assert token.serial == roof.serial
    assert token.kind == "owner"
    assert token.expires_at - token.issued_at == 31_536_000
    assert status.state == "ok"
    assert status.days_left == pytest.approx(365, abs=0.1)
    assert token.token.get_secret_value() not in token_broker.output


def test_many_requests_at_once_cause_one_log_in(token_broker: Program, listener: Listener, roof: Simulator) -> None:
    """And one token request, for twenty pollers."""
    with token_broker:
        listener.wait_until_online()
        for _poller in range(20):
            listener.request("missing")
        listener.receive("token")
        wait_until(lambda: token_broker.output.count("token requested, reason: missing") == 20, "all are received")

    assert exchanges(roof) == 1
    assert roof.request_log.counters()["logins"] == 1


def test_the_retained_token_expires_when_the_token_does(
    broker: Server, token_broker: Program, listener: Listener
) -> None:
    """Its message expiry interval is the rest of its lifetime."""
    with token_broker:
        listener.wait_until_online()
        listener.request("missing")
        listener.receive("token")
        expiries: list[int] = []
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)

        def on_message(_client: Client, _data: object, message: MQTTMessage) -> None:
            expiries.append(getattr(message.properties, "MessageExpiryInterval", 0))

        client.on_message = on_message
        client.connect(HOST, broker.port)
        client.subscribe("enphase/+/token")
        client.loop_start()
        wait_until(lambda: expiries, "the retained token")
        client.disconnect()
        client.loop_stop()

    assert 31_536_000 - 120 < expiries[0] <= 31_536_000


def test_a_restarted_token_broker_publishes_its_token_without_a_request_to_enphase(
    token_broker: Program, listener: Listener, roof: Simulator
) -> None:
    """The token is in the cache, also after a kill."""
    with token_broker:
        listener.wait_until_online()
        listener.request("missing")
        first = listener.receive("token")
        token_broker.kill()
        listener.received.clear()

        token_broker.start()
        listener.wait_until_online()
        listener.request("missing")

        assert listener.receive("token").payload == first.payload
    assert exchanges(roof) == 1


def test_a_broker_that_lost_the_token_gets_it_again(
    broker: Server, token_broker: Program, listener: Listener, tmp_path: Path
) -> None:
    """Without a request."""
    with token_broker:
        listener.wait_until_online()
        listener.request("missing")
        first = listener.receive("token")
        broker.kill()
        for database in tmp_path.rglob("mosquitto.db"):
            database.unlink()
        listener.received.clear()

        broker.start()

        assert listener.receive("token").payload == first.payload


def test_an_unavailable_cloud_is_reported_and_the_request_repeated(
    token_broker: Program, listener: Listener, roof: Simulator
) -> None:
    """The status has the reason, and the next attempt succeeds."""
    roof.faults.add(parse("html:server=enlighten:count=1"))
    with token_broker:
        listener.wait_until_online()
        listener.request("missing")
        status = TokenStatus.from_json(listener.receive("token/status").payload)
        listener.receive("token")

    assert status.state == "cloud_unreachable"


def test_a_manual_token_is_published_and_never_exchanged(
    broker: Server, roof: Simulator, listener: Listener, tmp_path: Path
) -> None:
    """ENVOY_TOKEN is published as kind manual, and Enphase receives no request."""
    environment = {"MQTT_PORT": str(broker.port), "ENVOY_TOKEN": roof.token(), "STATE_DIR": str(tmp_path)}
    log = tmp_path / "token_broker.log"
    with Program.python("services.token_broker", log=log, environment=environment):
        token = Token.from_json(listener.receive("token").payload)

    assert (token.kind, token.serial) == ("manual", roof.serial)
    assert exchanges(roof) == 0


def test_once_fetches_a_token_and_the_second_time_reads_it_from_the_cache(roof: Simulator, tmp_path: Path) -> None:
    """--once prints the result without the token."""
    first, second = once(roof, tmp_path), once(roof, tmp_path)

    kept = tmp_path / "token_broker" / "tokens" / f"{roof.serial}.json"
    assert (first.returncode, second.returncode) == (0, 0)
    assert "fetched now" in first.stdout
    assert "fetched" not in second.stdout
    assert exchanges(roof) == 1
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert json.loads(kept.read_text())["text"] not in first.stdout + first.stderr + second.stdout + second.stderr


def test_a_corrupt_file_in_the_cache_is_quarantined(roof: Simulator, tmp_path: Path) -> None:
    """A new token is fetched, and the corrupt file is kept."""
    kept = tmp_path / "token_broker" / "tokens" / f"{roof.serial}.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("<html>")

    ended = once(roof, tmp_path)

    assert "fetched" in ended.stdout
    assert kept.with_name(f"{kept.name}.corrupt").read_text() == "<html>"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("mfa", "second factor"),
        ("blocked", "blocked"),
        ("429:server=enlighten", "too many requests"),
        ("503:server=enlighten", "status 503"),
        ("html:server=enlighten", "page instead of JSON"),
        ("truncated:server=enlighten", "unreachable"),
        ("not-a-jwt", "without a valid token"),
    ],
)
def test_each_failure_has_a_message_of_its_own(fault: str, words: str, roof: Simulator, tmp_path: Path) -> None:
    """--once exits with 1 and prints it in one line."""
    roof.faults.add(parse(fault))

    ended = once(roof, tmp_path)

    assert ended.returncode == 1
    assert words in ended.stdout.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_a_wrong_password_is_reported_without_being_printed(roof: Simulator, tmp_path: Path) -> None:
    """The message contains the names of the settings to correct, and neither value."""
    ended = once(roof, tmp_path, ENLIGHTEN_PASSWORD="sesame", LOG_LEVEL="DEBUG")

    assert ended.returncode == 1
    assert "correct ENLIGHTEN_EMAIL and ENLIGHTEN_PASSWORD" in ended.stdout
    assert "sesame" not in ended.stdout + ended.stderr
    assert "owner@example.com" not in ended.stdout + ended.stderr


def test_a_token_broker_killed_before_it_publishes_a_token_needs_no_second_one(
    broker: Server, listener: Listener, roof: Simulator, tmp_path: Path
) -> None:
    """The token is on disk before it is published, which a hanging broker delays here."""
    environment = account(roof, tmp_path, MQTT_PORT=str(broker.port), ENVOY_SERIAL=roof.serial)
    kept = tmp_path / "token_broker" / "tokens" / f"{roof.serial}.json"
    broker.process.send_signal(signal.SIGSTOP)
    try:
        with Program.python("services.token_broker", log=tmp_path / "log", environment=environment) as token_broker:
            wait_until(kept.exists, "the token is cached")
            token_broker.kill()
    finally:
        broker.process.send_signal(signal.SIGCONT)

    with token_broker:
        token = Token.from_json(listener.receive("token").payload)
    assert token.token.get_secret_value() == json.loads(kept.read_text())["text"]
    assert exchanges(roof) == 1


def test_the_retained_token_of_a_gateway_that_is_not_served_any_more_is_cleared(
    broker: Server, roof: Simulator, listener: Listener, tmp_path: Path
) -> None:
    """And its status, when ENVOY_SERIAL names another gateway."""
    log = tmp_path / "token_broker.log"
    environment = account(roof, tmp_path, MQTT_PORT=str(broker.port))
    first = Program.python(
        "services.token_broker", log=log, environment=environment | {"ENVOY_SERIAL": f"{roof.serial}, 999999999999"}
    )
    with first:
        assert listener.receive("token").payload
    listener.received.clear()

    second = Program.python(
        "services.token_broker", log=log, environment=environment | {"ENVOY_SERIAL": "999999999999"}
    )
    with second:
        wait_until(lambda: listener.receive("token").payload == b"", "the token is cleared")
        wait_until(lambda: listener.receive("token/status").payload == b"", "its status is cleared")
    assert exchanges(roof) == 1


def test_a_manual_token_that_is_not_set_any_more_is_cleared(
    broker: Server, roof: Simulator, listener: Listener, tmp_path: Path
) -> None:
    """It does not stay at the broker until it expires in a year."""
    log = tmp_path / "token_broker.log"
    environment = {"MQTT_PORT": str(broker.port), "STATE_DIR": str(tmp_path)}
    manual = environment | {"ENVOY_TOKEN": roof.token()}
    with Program.python("services.token_broker", log=log, environment=manual):
        assert listener.receive("token").payload
    listener.received.clear()

    with Program.python("services.token_broker", log=log, environment=environment | {"ENVOY_SERIAL": "999999999999"}):
        wait_until(lambda: listener.receive("token").payload == b"", "the token is cleared")


def test_a_gateway_that_cannot_be_recorded_gets_its_token(
    broker: Server, roof: Simulator, listener: Listener, tmp_path: Path
) -> None:
    """A full or read-only disk delays no token; it only cannot be cleared later."""
    (tmp_path / "token_broker").mkdir()
    (tmp_path / "token_broker" / "published").write_text("a file instead of a folder")
    environment = account(roof, tmp_path, MQTT_PORT=str(broker.port), ENVOY_SERIAL=roof.serial)
    log = tmp_path / "token_broker.log"
    with Program.python("services.token_broker", log=log, environment=environment) as token_broker:
        assert Token.from_json(listener.receive("token").payload).serial == roof.serial
        assert "cannot record gateway" in token_broker.output
        assert token_broker.running


@pytest.mark.parametrize(("password", "logins", "issued"), [("wrong", 3, 0), ("sunshine", 1, 1)])
def test_concurrent_processes_log_in_as_one(
    password: str, logins: int, issued: int, roof: Simulator, tmp_path: Path
) -> None:
    """Six with the same STATE_DIR cause at most three rejections, or one token request for all."""
    environment = account(roof, tmp_path, ENVOY_SERIAL=roof.serial, ENLIGHTEN_PASSWORD=password)
    programs = [
        Program.python("services.token_broker", "--once", log=tmp_path / f"{number}.log", environment=environment)
        for number in range(6)
    ]
    with ExitStack() as running:
        for program in programs:
            running.enter_context(program)
        codes = {program.process.wait(60) for program in programs}

    served = roof.request_log.served(server="enlighten", path="/login/login.json")
    assert codes == {0 if issued else 1}
    assert len(served) == logins
    assert exchanges(roof) == issued


def test_a_manual_token_that_has_expired_is_a_fault(broker: Server, roof: Simulator, tmp_path: Path) -> None:
    """Only a person can fetch another, so --health reports it."""
    log = tmp_path / "token_broker.log"
    environment = {"MQTT_PORT": str(broker.port), "STATE_DIR": str(tmp_path), "ENVOY_TOKEN": roof.token(lifetime_s=1)}
    with Program.python("services.token_broker", log=log, environment=environment):
        health = tmp_path / "token_broker" / "health"
        expired = "the token in ENVOY_TOKEN has expired"
        wait_until(lambda: health.exists() and expired in health.read_text(), "the fault is reported")


def test_a_token_broker_stopped_while_enphase_hangs_counts_no_rejection(roof: Simulator, tmp_path: Path) -> None:
    """Restarts without the internet cause no wait of a day."""
    roof.faults.add(parse("slow:server=enlighten:delay_s=60"))
    environment = account(roof, tmp_path, MQTT_PORT=str(free_port()), ENVOY_SERIAL=roof.serial)
    record = tmp_path / "token_broker" / "logins.json"
    with Program.python("services.token_broker", log=tmp_path / "log", environment=environment) as program:
        wait_until(record.exists, "the attempt is recorded")
        assert json.loads(record.read_text())["tried_at"] != []

        assert program.stop() == 0

    assert json.loads(record.read_text())["tried_at"] == []


def test_a_folder_that_cannot_be_used_is_a_bad_setting(roof: Simulator, tmp_path: Path) -> None:
    """It is reported in one line before any request to Enphase."""
    (tmp_path / "token_broker").write_text("a file")

    ended = once(roof, tmp_path)

    assert ended.returncode == 2
    assert ended.stderr.startswith("bad setting STATE_DIR")
    assert len(ended.stderr.splitlines()) == 1
    assert roof.request_log.counters()["logins"] == 0


def test_a_rejected_token_is_not_published_again(token_broker: Program, listener: Listener, roof: Simulator) -> None:
    """Fifty rejections of a new token cause neither a new token nor another publication, only a status."""
    with token_broker:
        listener.wait_until_online()
        listener.request("missing")
        listener.receive("token")
        listener.received.clear()

        for _rejection in range(50):
            listener.request("rejected")
        wait_until(lambda: token_broker.output.count("token requested, reason: rejected") == 50, "all are received")
        listener.receive("token/status")

    assert f"enphase/{roof.serial}/token" not in listener.received
    assert exchanges(roof) == 1


def test_the_metrics_count_tokens_and_log_ins(
    token_broker: Program, listener: Listener, mqtt: Settings, roof: Simulator
) -> None:
    """Of two gateways the one without a token determines the days left."""
    metrics = Subscription("enphase/services/token-broker/metrics")
    with (
        token_broker,
        Connection(mqtt("home"), stop=threading.Event(), subscriptions=[metrics], persistent_session=False) as home,
    ):

        def newest() -> dict[str, float]:
            if not isinstance(message := home.receive(0.05), Message):
                return {}
            return reading_from_json("metrics", message.payload).numbers()

        assert wait_until(newest, "metrics") == {"gateways": 0, "tokens_good": 0, "logins": 0, "logins_failed": 0}
        roof.faults.add(parse("503:server=enlighten:count=1"))
        listener.request("missing")
        listener.receive("token")
        Listener(listener._connection, "999999999999").request("missing")
        later: dict[str, float] = {}
        wait_until(lambda: later.update(newest()) or later.get("gateways") == 2, "metrics of both gateways")

    assert later == {"gateways": 2, "tokens_good": 1, "token_days_left": 0, "logins": 2, "logins_failed": 1}


def test_an_invalid_request_is_rejected(
    token_broker: Program, listener: Listener, mqtt: Settings, roof: Simulator
) -> None:
    """It is logged, and the next request gets its response."""
    with token_broker, Connection(mqtt("sender"), stop=threading.Event(), persistent_session=False) as sender:
        listener.wait_until_online()
        for invalid in (b"", b"{", b'{"reason": "because"}', b"[" * 100_000):
            sender.publish(f"enphase/{roof.serial}/token/request", invalid).result(10)
        listener.request("missing")

        assert listener.receive("token").payload
    assert token_broker.output.count("rejected a token request") == 4


@pytest.mark.mosquitto
def test_only_the_token_broker_may_write_the_token_and_only_the_poller_may_read_it(
    roof: Simulator, tmp_path: Path
) -> None:
    """With access rules in Mosquitto no other user receives a token or can publish a forged one."""
    port, serial = free_port(), roof.serial
    with acl_broker(tmp_path, port) as acl:
        wait_until(lambda: listening(port), f"the broker accepts connections; {acl.output}")
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
            token = Listener(poller, serial).receive("token")
            viewed = Listener(viewer, serial)
            assert TokenStatus.from_json(viewed.receive("token/status").payload).state == "ok"
            forged = viewer.publish(f"enphase/{serial}/token", b"forged", retain=True).result(10)

            assert Token.from_json(token.payload).serial == serial
            assert not forged.accepted
            assert f"enphase/{serial}/token" not in viewed.received


@pytest.mark.mosquitto
def test_a_token_that_the_broker_refuses_is_a_fault(roof: Simulator, tmp_path: Path) -> None:
    """--health reports it with the broker's reason."""
    port = free_port()
    environment = account(
        roof, tmp_path, MQTT_PORT=str(port), MQTT_USERNAME="token_broker", MQTT_PASSWORD="t", ENVOY_SERIAL=roof.serial
    )
    health = tmp_path / "token_broker" / "health"
    rules = ACL.replace("topic write enphase/+/token\n", "")
    with (
        acl_broker(tmp_path, port, rules) as acl,
        Program.python("services.token_broker", log=tmp_path / "token_broker.log", environment=environment),
    ):
        refused = "the broker refused the token"
        wait_until(lambda: health.exists() and refused in health.read_text(), f"it is reported; {acl.output}")
        assert "Not authorized" in health.read_text()


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
    """Return a Mosquitto with a password for each user and the access rules of the contract."""
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


def test_no_secret_is_in_a_log_or_a_crash_dump(broker: Server, roof: Simulator, tmp_path: Path) -> None:
    """Neither e-mail address, passwords, session nor tokens, with each fault and at DEBUG."""
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
    printed = ""
    for fault in (None, "mfa", "html:server=enlighten", "not-a-jwt", "blocked", "truncated:server=enlighten"):
        roof.faults.remove()
        if fault:
            roof.faults.add(parse(fault))
        for kept in (tmp_path / "token_broker").rglob("*.*"):
            if kept.is_file():
                kept.unlink()
        with Program.python("services.token_broker", log=log, environment=environment) as program:
            wait_until(lambda: "no new token" in program.output or "valid for" in program.output, "a result")
            program.process.send_signal(signal.SIGABRT)  # Python prints the stacks
            program.process.wait(10)
            printed += program.output
        log.unlink()
        ended = once(roof, tmp_path, LOG_LEVEL="DEBUG", PYTHONFAULTHANDLER="1")
        printed += ended.stdout + ended.stderr

    secrets = {"owner@example.com", "sunshine", "swordfish", "eyJ"}  # a JSON Web Token begins with the last
    for response in roof.request_log.served(server="enlighten"):
        secrets |= set(re.findall(r"[0-9a-f]{32}|eyJ[\w.-]+", str(response["body"])))
    assert len(secrets) > 5
    assert {secret for secret in secrets if secret in printed} == set()


def test_check_tests_each_connection_and_does_not_log_in(broker: Server, roof: Simulator, tmp_path: Path) -> None:
    """--check prints a line each for account, Enphase, token, cache and broker, writes nothing, and exits with 0."""
    ended = check(roof, tmp_path, MQTT_PORT=str(broker.port))

    assert ended.returncode == 0
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["ok"] * 6
    assert roof.request_log.counters()["logins"] == 0
    assert not (tmp_path / "token_broker").exists()


def test_check_reports_each_failure_with_what_to_do(roof: Simulator, tmp_path: Path) -> None:
    """The line begins with FAILED, and the exit code is 1."""
    ended = check(roof, tmp_path, MQTT_PORT=str(free_port()), ENLIGHTEN_PASSWORD="")

    failed = [line for line in ended.stdout.splitlines() if line.startswith("FAILED")]
    assert ended.returncode == 1
    assert any("MQTT_HOST" in line for line in failed)
    assert any("ENLIGHTEN_PASSWORD" in line for line in failed)


def test_once_prints_whether_it_sends_a_request(roof: Simulator, tmp_path: Path) -> None:
    """After three rejections, and without an account, it sends none."""
    first, _second, _third, fourth = [once(roof, tmp_path, ENLIGHTEN_PASSWORD="wrong") for _attempt in range(4)]
    without_account = once(roof, tmp_path, ENLIGHTEN_PASSWORD="")

    assert "requesting one from 127.0.0.1" in first.stdout
    assert "no request is allowed now" in fourth.stdout
    assert "next attempt at" in fourth.stdout
    assert "no request is allowed now" in without_account.stdout
    assert "set ENLIGHTEN_EMAIL and ENLIGHTEN_PASSWORD" in without_account.stdout
    assert (fourth.returncode, without_account.returncode) == (1, 1)


def test_check_reports_the_last_rejected_log_in(broker: Server, roof: Simulator, tmp_path: Path) -> None:
    """With the time of the next attempt, and without one of its own."""
    for _attempt in range(3):
        once(roof, tmp_path, ENLIGHTEN_PASSWORD="wrong")

    ended = check(roof, tmp_path, MQTT_PORT=str(broker.port), ENLIGHTEN_PASSWORD="wrong")

    assert ended.returncode == 1
    assert ended.stdout.startswith("FAILED  account: Enphase rejected the log-in")
    assert "next attempt at 20" in ended.stdout
    assert roof.request_log.counters()["logins_refused"] == 3


def test_check_reports_an_unavailable_cloud(broker: Server, roof: Simulator, tmp_path: Path) -> None:
    """With status 503."""
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
def test_an_invalid_setting_is_reported_at_the_start(setting: str, value: str, roof: Simulator, tmp_path: Path) -> None:
    """In one line, with exit code 2, before any request."""
    ended = once(roof, tmp_path, **{setting: value})

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"bad setting {setting}")
    assert len(ended.stderr.splitlines()) == 1
    assert roof.request_log.counters()["logins"] == 0


def test_a_manual_token_that_is_not_one_is_a_bad_setting(roof: Simulator, tmp_path: Path) -> None:
    """Such as an error page saved as a token."""
    ended = once(roof, tmp_path, ENVOY_TOKEN="<html>")

    assert ended.returncode == 2
    assert ended.stderr == "bad setting ENVOY_TOKEN: it is not a JSON Web Token\n"
