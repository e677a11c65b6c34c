import threading

import pytest

import shared.mqtt
from shared.lifecycle import ExitCode
from shared.mqtt import Connection, Publication, QueueFull
from shared.settings import MqttSettings


def test_more_publications_than_can_wait_for_the_broker_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a service without a broker is bounded; it publishes the rest later."""
    monkeypatch.setattr(shared.mqtt, "MAX_QUEUED", 2)
    connection = Connection(MqttSettings(client_id="test"), stop=threading.Event())
    waiting = [connection.publish("enphase/x", b"{}") for _publication in range(2)]

    with pytest.raises(QueueFull, match="2 publications wait"):
        connection.publish("enphase/x", b"{}")

    assert not any(publication.done() for publication in waiting)


@pytest.mark.parametrize(
    ("reason_code", "accepted", "reached"), [(0x00, True, True), (0x10, True, False), (0x87, False, False)]
)
def test_a_publication_is_accepted_and_reaches_a_subscriber_by_its_reason_code(
    reason_code: int, *, accepted: bool, reached: bool
) -> None:
    """MQTT 5, section 3.4.2.1: 0x10 is no matching subscribers, 0x80 and above are failures."""
    publication = Publication(reason_code, "")

    assert (publication.accepted, publication.reached_a_subscriber) == (accepted, reached)


def test_a_network_thread_that_fails_stops_the_service_with_1() -> None:
    """It is restarted by its supervisor."""
    stop = threading.Event()
    connection = Connection(MqttSettings(client_id="test"), stop=stop)
    connection._on_network_thread_error(ValueError("malformed packet"))

    assert stop.is_set()
    assert connection.exit_code == ExitCode.FAILED
    assert Connection(MqttSettings(), stop=stop).exit_code == ExitCode.STOPPED
