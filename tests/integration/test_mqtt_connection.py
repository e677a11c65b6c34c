"""What the MQTT connection guarantees, with a real Mosquitto."""

import json
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

import shared.metrics
from shared.checks import CheckResult
from shared.metrics import MetricsPublisher
from shared.mqtt import Connected, Connection, ConnectionClosed, Message, Subscription
from shared.mqtt_check import check_broker
from shared.settings import MqttSettings
from tests.conftest import Server
from tests.faults.pipeline import mosquitto
from tests.faults.proxy import Proxy
from tests.programs import HOST, free_port, wait_until

Settings = Callable[[str], MqttSettings]


def next_message(connection: Connection) -> Message:
    """Return the next message, skipping connects."""
    return wait_until(lambda: _message(connection), "a message")


def _message(connection: Connection) -> Message | None:
    received = connection.receive(0.1)
    return received if isinstance(received, Message) else None


def wait_until_subscribed(connection: Connection) -> None:
    """Return once the subscription is sent, before anything that is published from here on."""
    wait_until(lambda: isinstance(connection.receive(0.1), Connected), "connected")


@pytest.fixture
def stop() -> threading.Event:
    """Return a stop event that is not set."""
    return threading.Event()


@pytest.fixture
def watcher(mqtt: Settings, stop: threading.Event) -> Iterator[Connection]:
    """Yield a probe that receives everything."""
    with Connection(
        mqtt("watcher"), stop=stop, subscriptions=[Subscription("#")], persistent_session=False
    ) as connection:
        assert connection.wait_until_connected(10)
        yield connection


def test_connecting_publishes_online_and_stopping_offline(
    mqtt: Settings, stop: threading.Event, watcher: Connection
) -> None:
    """Subscribers know whether a service runs."""
    with Connection(mqtt("poller"), stop=stop):
        online = next_message(watcher)
    offline = next_message(watcher)

    assert (online.topic, online.payload) == ("enphase/services/poller/status", b"online")
    assert (offline.topic, offline.payload) == ("enphase/services/poller/status", b"offline")


def test_a_service_started_before_its_broker_connects_once_it_is_up(
    broker: Server, mqtt: Settings, stop: threading.Event
) -> None:
    """Without a broker a service retries, and what it published meanwhile arrives."""
    broker.kill()
    with Connection(mqtt("poller"), stop=stop) as connection:
        waiting = connection.publish("enphase/early", b"x")
        assert not connection.wait_until_connected(0.5)

        broker.start()

        assert waiting.result(20).accepted


def test_a_killed_broker_is_reconnected_to(broker: Server, mqtt: Settings, stop: threading.Event) -> None:
    """The connection is made again by itself, with its subscriptions."""
    with Connection(mqtt("sink"), stop=stop, subscriptions=[Subscription("enphase/#")]) as connection:
        assert isinstance(connection.receive(10), Connected)
        broker.kill()
        wait_until(lambda: not connection.connected, "the loss is detected")

        broker.start()

        wait_until(lambda: connection.connected, "reconnected")
        connection.publish("enphase/hello", b"again")
        wait_until(lambda: next_message(connection).payload == b"again", "the subscription is made again")


def test_an_unacknowledged_message_is_delivered_again_to_the_next_process(
    mqtt: Settings, stop: threading.Event
) -> None:
    """What a service did not acknowledge before it stopped is not lost."""
    subscriptions = [Subscription("enphase/readings")]
    with Connection(mqtt("sink"), stop=stop, subscriptions=subscriptions) as connection:
        wait_until_subscribed(connection)
        connection.publish("enphase/readings", b"1")
        connection.publish("enphase/readings", b"2")
        assert connection.acknowledge(next_message(connection))
        assert next_message(connection).payload == b"2"

    with Connection(mqtt("sink"), stop=stop, subscriptions=subscriptions) as restarted:
        assert next_message(restarted).payload == b"2"


def test_acknowledging_a_message_of_a_lost_connection_is_refused(
    broker: Server, mqtt: Settings, stop: threading.Event
) -> None:
    """A late acknowledgement is not sent: its packet identifier may be that of another message by then."""
    with Connection(mqtt("sink"), stop=stop, subscriptions=[Subscription("enphase/readings")]) as connection:
        wait_until_subscribed(connection)
        connection.publish("enphase/readings", b"1")
        message = next_message(connection)
        assert connection.is_current(message)
        broker.kill()
        wait_until(lambda: not connection.connected, "the loss is detected")
        broker.start()
        wait_until(lambda: connection.connected, "reconnected")

        assert not connection.is_current(message)
        assert not connection.acknowledge(message)


def test_a_backlog_does_not_grow_with_lost_connections(broker: Server, mqtt: Settings, stop: threading.Event) -> None:
    """The broker delivers it again at each reconnect; a service that is busy for long does not hold it many times."""
    with Proxy(broker.port) as proxy:
        settings = mqtt("sink").model_copy(update={"port": proxy.port})
        with Connection(settings, stop=stop, subscriptions=[Subscription("enphase/readings")]) as connection:
            wait_until_subscribed(connection)
            for number in range(10):
                connection.publish("enphase/readings", b"%d" % number)
            wait_until(lambda: connection.backlog == 10, "all are there")
            for _loss in range(3):
                proxy.reset_all()
                wait_until(lambda: not connection.connected, "the loss is detected")
                wait_until(lambda: connection.backlog == 11, "all are delivered again, after the connect")

            assert [next_message(connection).payload for _message in range(10)] == [b"%d" % n for n in range(10)]


@pytest.mark.mosquitto
def test_a_publication_without_a_subscriber_can_be_distinguished(mqtt: Settings, stop: threading.Event) -> None:
    """The broker's reason code is that of no matching subscribers."""
    with Connection(mqtt("poller"), stop=stop) as connection:
        without = connection.publish("enphase/without", b"x").result(10)
        with Connection(
            mqtt("subscriber"), stop=stop, subscriptions=[Subscription("enphase/with")], persistent_session=False
        ) as subscriber:
            assert subscriber.wait_until_connected(10)
            wait_until(lambda: connection.publish("enphase/with", b"x").result(10).reached_a_subscriber, "reached")

    assert without.accepted
    assert not without.reached_a_subscriber


def test_stopping_delivers_what_was_published_before(mqtt: Settings, stop: threading.Event) -> None:
    """A clean stop waits until the broker has acknowledged everything."""
    with Connection(mqtt("poller"), stop=stop) as connection:
        assert connection.wait_until_connected(10)
        published = [connection.publish("enphase/many", b"%d" % number) for number in range(500)]

    assert all(publication.result(0).accepted for publication in published)


def test_user_properties_arrive_with_the_message(mqtt: Settings, stop: threading.Event) -> None:
    """A subscriber gets them with the payload."""
    with Connection(mqtt("sink"), stop=stop, subscriptions=[Subscription("enphase/readings")]) as connection:
        wait_until_subscribed(connection)
        connection.publish("enphase/readings", b"{}", user_properties={"journal": "a", "sequence": "7"})

        assert next_message(connection).user_properties == {"journal": "a", "sequence": "7"}


def test_after_a_lost_connection_a_publication_is_resent_or_given_back(
    broker: Server, mqtt: Settings, stop: threading.Event, watcher: Connection
) -> None:
    """Without an acknowledgement paho resends it, except where the publisher keeps a queue of its own."""
    with Proxy(broker.port) as proxy:
        settings = mqtt("poller").model_copy(update={"port": proxy.port})
        with Connection(settings, stop=stop) as connection:
            assert connection.wait_until_connected(10)
            assert next_message(watcher).payload == b"online"
            proxy.drop_responses()
            resent = connection.publish("enphase/resent", b"x")
            given_back = connection.publish("enphase/given-back", b"x", resend=False)
            topics = [next_message(watcher).topic for _message in range(2)]
            proxy.reset_all()

            with pytest.raises(ConnectionClosed, match="lost before the broker acknowledged"):
                given_back.result(30)
            assert resent.result(30).accepted
            connection.publish("enphase/last", b"x")
            topics += iter(lambda: next_message(watcher).topic, "enphase/last")

    assert topics.count("enphase/resent") == 2
    assert topics.count("enphase/given-back") == 1


def test_a_connection_that_is_closed_gives_back_what_was_not_acknowledged(stop: threading.Event) -> None:
    """No future waits for ever."""
    with Connection(MqttSettings(host=HOST, port=free_port(), client_id="poller"), stop=stop) as connection:
        publication = connection.publish("enphase/x", b"x")

    with pytest.raises(ConnectionClosed, match="closed before"):
        publication.result(0)


def test_the_content_type_is_json_unless_another_is_given(
    broker: Server, mqtt: Settings, stop: threading.Event
) -> None:
    """A plain word has none, such as the status that a connection publishes."""
    received: queue.SimpleQueue[MQTTMessage] = queue.SimpleQueue()
    subscribed = threading.Event()
    subscriber = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    subscriber.on_message = lambda _client, _userdata, message: received.put(message)
    subscriber.on_subscribe = lambda *_arguments: subscribed.set()
    subscriber.connect(HOST, broker.port)
    subscriber.loop_start()
    subscriber.subscribe("#", qos=1)
    assert subscribed.wait(10)
    with Connection(mqtt("poller"), stop=stop) as connection:
        connection.publish("enphase/json", b"{}").result(10)
        connection.publish("enphase/word", b"on", content_type=None).result(10)
    messages = [received.get(timeout=10) for _message in range(4)]
    subscriber.disconnect()
    subscriber.loop_stop()

    assert {message.topic: getattr(message.properties, "ContentType", None) for message in messages} == {
        "enphase/services/poller/status": None,
        "enphase/json": "application/json",
        "enphase/word": None,
    }


@pytest.mark.mosquitto
def test_refused_credentials_are_logged_once_with_what_to_do(
    tmp_path: Path, stop: threading.Event, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker's reason code is in the message."""
    monkeypatch.setattr("shared.mqtt.MAX_REFUSED_DELAY_S", 1)
    with mosquitto(tmp_path, ["allow_anonymous false"]) as broker, Proxy(broker.port) as proxy:
        with Connection(MqttSettings(host=HOST, port=proxy.port, client_id="poller"), stop=stop) as connection:
            wait_until(lambda: proxy.accepted >= 3, "two attempts are refused")
            reason = connection.connect_error

        assert reason == "refused the connection: Not authorized; check MQTT_USERNAME and MQTT_PASSWORD"
        assert caplog.messages == [f"the broker at {HOST}:{proxy.port} {reason}; retrying"]


def test_a_broker_that_cannot_be_reached_is_logged_with_the_reason(
    stop: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """The system's error is in the message."""
    settings = MqttSettings(host=HOST, port=free_port(), client_id="poller")
    with Connection(settings, stop=stop) as connection:
        reason = wait_until(lambda: connection.connect_error, "an attempt has failed")

    assert reason == "cannot be reached: Connection refused; is it running, and are MQTT_HOST and MQTT_PORT right?"
    assert caplog.messages == [f"the broker at {HOST}:{settings.port} {reason}; retrying"]


def test_metrics_are_published_when_due_and_connected(
    mqtt: Settings, stop: threading.Event, watcher: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first are due at once, the next after the interval; what is due without a connection is dropped."""
    monkeypatch.setattr(shared.metrics, "METRICS_INTERVAL_S", 3600.0)
    counts = iter(range(10))
    connection = Connection(mqtt("poller"), stop=stop)
    dropped = MetricsPublisher(connection, lambda: {"polls": 99})
    metrics = MetricsPublisher(connection, lambda: {"polls": next(counts)}, clock=lambda: 1_800_000_000.9)

    dropped.publish_if_due()
    with connection:
        assert connection.wait_until_connected(10)
        for _call in range(3):
            metrics.publish_if_due()
        metrics.due_at = 0.0
        metrics.publish_if_due()
        online, first, second = (next_message(watcher) for _message in range(3))

    assert online.payload == b"online"
    assert first.topic == "enphase/services/poller/metrics"
    assert [json.loads(message.payload) for message in (first, second)] == [
        {"timestamp": 1_800_000_000, "polls": count} for count in (0, 1)
    ]


def test_a_probe_publishes_neither_status_nor_metrics(
    mqtt: Settings, stop: threading.Event, watcher: Connection
) -> None:
    """It runs next to the service whose topics these are."""
    with Connection(mqtt("probe"), stop=stop, persistent_session=False) as probe:
        assert probe.wait_until_connected(10)
        MetricsPublisher(probe, lambda: {"polls": 1}).publish_if_due()
        probe.publish("enphase/last", b"x").result(10)

    assert next_message(watcher).topic == "enphase/last"


def test_a_broker_that_accepts_a_publication_passes_its_check(mqtt: Settings, watcher: Connection) -> None:
    """The connection of a service with this client id is not taken over."""
    settings = mqtt("watcher")

    result = check_broker(settings, "enphase/0/token/status")

    assert result == CheckResult(ok=True, what=f"broker {HOST}:{settings.port}", text="accepts publications")
    assert watcher.connected


def test_a_broker_that_cannot_be_reached_fails_its_check_with_the_reason() -> None:
    """The text is that of the log."""
    result = check_broker(MqttSettings(host=HOST, port=free_port(), client_id="poller"), "enphase/x")

    assert not result.ok
    assert result.text.startswith("cannot be reached: Connection refused")


@pytest.mark.mosquitto
@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("allow_anonymous false", "refused the connection: Not authorized; check MQTT_USERNAME and MQTT_PASSWORD"),
        ("acl_file {acl}", "refused a publication (Not authorized); check its access rules"),
    ],
    ids=["credentials", "access rules"],
)
def test_a_broker_that_refuses_fails_its_check_with_what_to_do(tmp_path: Path, rule: str, text: str) -> None:
    """The person knows whether to correct the credentials or the access rules."""
    acl = tmp_path / "acl"
    acl.write_text("topic read #\n")
    acl.chmod(0o644)
    with mosquitto(tmp_path, [rule.format(acl=acl)]) as broker:
        result = check_broker(MqttSettings(host=HOST, port=broker.port, client_id="poller"), "enphase/x")

        assert result == CheckResult(ok=False, what=f"broker {HOST}:{broker.port}", text=text)
