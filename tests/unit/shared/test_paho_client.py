"""What is relied on in paho, private fields included; a new version of paho that changes it fails here."""

import socket

import paho.mqtt.client
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes

from shared.paho_client import PahoClient, new_properties
from tests.programs import HOST


def new_client() -> PahoClient:
    """Return a client that is not connected."""
    return PahoClient(CallbackAPIVersion.VERSION2, "test", protocol=MQTTProtocolVersion.MQTTv5)


def publish(client: PahoClient, topic: str, *, resend: bool) -> int:
    """Publish and return the packet identifier."""
    properties = new_properties(PacketTypes.PUBLISH, resend=resend)
    return client.publish(topic, b"x", qos=1, properties=properties).mid


def test_what_must_not_be_resent_is_removed_from_the_queue_and_nothing_else() -> None:
    """Paho resends what is left in its queue."""
    client = new_client()
    removed = [publish(client, "a", resend=False)]
    publish(client, "b", resend=True)
    removed.append(publish(client, "c", resend=False))

    assert client.remove_not_resent() == removed

    assert [message.topic for message in client.drop_out_messages()] == ["b"]


def test_properties_that_must_not_be_resent_are_on_the_wire_as_any_others() -> None:
    """The mark is for this client only."""
    packets = []
    for resend in (True, False):
        properties = new_properties(PacketTypes.PUBLISH, resend=resend)
        properties.ContentType = "application/json"
        properties.UserProperty = [("journal", "a")]
        packets.append(properties.pack())  # type: ignore[no-untyped-call]

    assert packets[0] == packets[1]


def test_a_network_thread_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paho's thread ends silently; is_connected() then stays true for ever."""
    errors: list[Exception] = []
    client = new_client()
    client.on_network_thread_error = errors.append

    def fail(*_arguments: object, **_keywords: object) -> MQTTErrorCode:
        raise ValueError("malformed packet")

    monkeypatch.setattr(paho.mqtt.client.Client, "loop_forever", fail)
    client.loop_start()
    client.loop_stop()

    assert [str(error) for error in errors] == ["malformed packet"]


def test_the_network_thread_runs_loop_forever_and_connects_with_reconnect() -> None:
    """Both are overridden; the reason why a connection fails is kept."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    client = new_client()

    def stop(_client: paho.mqtt.client.Client, _userdata: object) -> None:
        client.disconnect()

    client.on_connect_fail = stop
    client.connect_async(HOST, port)

    client.loop_forever(retry_first_connection=True)

    assert isinstance(client.connect_error, ConnectionRefusedError)
