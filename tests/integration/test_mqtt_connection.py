"""What the MQTT connection promises, against a real Mosquitto."""

import threading
from collections.abc import Callable, Iterator

import pytest

from shared.mqtt import Connected, Connection, Message, Subscription
from shared.settings import MqttSettings
from tests.conftest import Server
from tests.faults.proxy import Proxy
from tests.programs import wait_until

Settings = Callable[[str], MqttSettings]


def next_message(connection: Connection) -> Message:
    """Return the next message, passing over connects."""
    return wait_until(lambda: _message(connection), "a message")


def _message(connection: Connection) -> Message | None:
    received = connection.receive(0.1)
    return received if isinstance(received, Message) else None


def wait_until_subscribed(connection: Connection) -> None:
    """Return once the subscription is on its way, ahead of what is published from here on."""
    wait_until(lambda: isinstance(connection.receive(0.1), Connected), "connected")


@pytest.fixture
def stop() -> threading.Event:
    """Return a stop event that nobody sets."""
    return threading.Event()


@pytest.fixture
def watcher(mqtt: Settings, stop: threading.Event) -> Iterator[Connection]:
    """Yield a passer-by that hears everything."""
    with Connection(
        mqtt("watcher"), stop=stop, subscriptions=[Subscription("#")], persistent_session=False
    ) as connection:
        assert connection.wait_until_connected(10)
        yield connection


def test_connecting_announces_online_and_stopping_offline(
    mqtt: Settings, stop: threading.Event, watcher: Connection
) -> None:
    """A service says online when it connects and offline when it stops, retained."""
    with Connection(mqtt("poller"), stop=stop):
        online = next_message(watcher)
    offline = next_message(watcher)

    assert (online.topic, online.payload) == ("enphase/services/poller/status", b"online")
    assert (offline.topic, offline.payload) == ("enphase/services/poller/status", b"offline")


def test_a_service_started_before_its_broker_connects_when_it_comes(
    broker: Server, mqtt: Settings, stop: threading.Event
) -> None:
    """Without a broker a service waits, and what it published meanwhile arrives."""
    broker.kill()
    with Connection(mqtt("poller"), stop=stop) as connection:
        waiting = connection.publish("enphase/early", b"bird")
        assert not connection.wait_until_connected(0.5)

        broker.start()

        assert waiting.result(20).accepted


def test_a_killed_broker_is_connected_to_again(broker: Server, mqtt: Settings, stop: threading.Event) -> None:
    """After a broker's death the connection comes back by itself, and subscribed."""
    with Connection(mqtt("sink"), stop=stop, subscriptions=[Subscription("enphase/#")]) as connection:
        assert isinstance(connection.receive(10), Connected)
        broker.kill()
        wait_until(lambda: not connection.connected, "the loss is noticed")

        broker.start()

        wait_until(lambda: connection.connected, "connected again")
        connection.publish("enphase/hello", b"again")
        wait_until(lambda: next_message(connection).payload == b"again", "the subscription stands")


def test_an_unacknowledged_message_comes_again_to_the_next_process(mqtt: Settings, stop: threading.Event) -> None:
    """What a service did not acknowledge before it ended is delivered to its successor."""
    subscriptions = [Subscription("enphase/readings")]
    with Connection(mqtt("sink"), stop=stop, subscriptions=subscriptions) as connection:
        wait_until_subscribed(connection)
        connection.publish("enphase/readings", b"1")
        connection.publish("enphase/readings", b"2")
        assert connection.acknowledge(next_message(connection))
        assert next_message(connection).payload == b"2"

    with Connection(mqtt("sink"), stop=stop, subscriptions=subscriptions) as successor:
        assert next_message(successor).payload == b"2"


def test_acknowledging_a_message_of_a_lost_connection_is_refused(
    broker: Server, mqtt: Settings, stop: threading.Event
) -> None:
    """A late acknowledgement is not sent: its packet identifier may be another message's by now."""
    with Connection(mqtt("sink"), stop=stop, subscriptions=[Subscription("enphase/readings")]) as connection:
        wait_until_subscribed(connection)
        connection.publish("enphase/readings", b"1")
        message = next_message(connection)
        broker.kill()
        wait_until(lambda: not connection.connected, "the loss is noticed")
        broker.start()
        wait_until(lambda: connection.connected, "connected again")

        assert not connection.acknowledge(message)


def test_what_nobody_has_received_does_not_add_up_over_lost_connections(
    broker: Server, mqtt: Settings, stop: threading.Event
) -> None:
    """The broker sends it again at each reconnect; a service that is busy for long does not hold it many times."""
    with Proxy(broker.port) as proxy:
        settings = mqtt("sink").model_copy(update={"port": proxy.port})
        with Connection(settings, stop=stop, subscriptions=[Subscription("enphase/readings")]) as connection:
            wait_until_subscribed(connection)
            for number in range(10):
                connection.publish("enphase/readings", b"%d" % number)
            wait_until(lambda: connection.backlog == 10, "all came")
            for _loss in range(3):
                proxy.reset_all()
                wait_until(lambda: not connection.connected, "the loss is noticed")
                wait_until(lambda: connection.backlog == 11, "all came again, after the connect")

            assert [next_message(connection).payload for _message in range(10)] == [b"%d" % n for n in range(10)]


@pytest.mark.mosquitto
def test_publishing_to_nobody_is_told_from_reaching_somebody(mqtt: Settings, stop: threading.Event) -> None:
    """The broker's reason code says whether a subscriber was there."""
    with Connection(mqtt("poller"), stop=stop) as connection:
        unheard = connection.publish("enphase/unheard", b"x").result(10)
        with Connection(
            mqtt("ear"), stop=stop, subscriptions=[Subscription("enphase/heard")], persistent_session=False
        ) as ear:
            assert ear.wait_until_connected(10)
            wait_until(lambda: connection.publish("enphase/heard", b"x").result(10).reached_a_subscriber, "heard")

    assert unheard.accepted
    assert not unheard.reached_a_subscriber


def test_stopping_delivers_what_was_published_before(mqtt: Settings, stop: threading.Event) -> None:
    """A clean stop waits until the broker has taken everything."""
    with Connection(mqtt("poller"), stop=stop) as connection:
        assert connection.wait_until_connected(10)
        published = [connection.publish("enphase/many", b"%d" % number) for number in range(500)]

    assert all(publication.result(0).accepted for publication in published)


def test_user_properties_arrive_with_the_message(mqtt: Settings, stop: threading.Event) -> None:
    """What a publisher tells beside the payload reaches the subscriber."""
    with Connection(mqtt("sink"), stop=stop, subscriptions=[Subscription("enphase/readings")]) as connection:
        wait_until_subscribed(connection)
        connection.publish("enphase/readings", b"{}", user_properties={"journal": "a", "sequence": "7"})

        assert next_message(connection).user_properties == {"journal": "a", "sequence": "7"}
