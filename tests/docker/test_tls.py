import ssl
import threading
from pathlib import Path

import pytest

from shared.mqtt import Connection, Message, Subscription
from tests.docker.stack import Stack
from tests.programs import HOST, wait_until


def test_with_tls_readings_are_encrypted(stack: Stack, settings_file: Path, tmp_path: Path) -> None:
    """Services and clients verify the certificate with the stack's own authority; other clients reject it."""
    settings_file.write_text(f"{settings_file.read_text()}MQTT_TLS=true\n")
    stack.compose("up", "--wait")
    authority = tmp_path / "ca.crt"
    authority.write_text(stack.inside("mosquitto", "cat", "/run/secrets/ca.crt"))
    port = stack.port("mosquitto", 8883)
    encrypted = stack.mqtt("viewer").model_copy(update={"port": port, "tls": True, "ca_file": authority})

    with Connection(
        encrypted,
        stop=threading.Event(),
        subscriptions=[Subscription("enphase/+/readings/grid")],
        persistent_session=False,
    ) as viewer:
        fresh = wait_until(
            lambda: isinstance(message := viewer.receive(0.1), Message) and not message.retained and message.topic,
            "a fresh reading",
        )
    assert fresh == "enphase/122098765432/readings/grid"
    for service in ("token_broker", "poller", "carbon_sink"):
        assert "connected to the broker at mosquitto:8883" in stack.compose("logs", service)
    with pytest.raises(ssl.SSLCertVerificationError):
        ssl.get_server_certificate((HOST, port), ca_certs=ssl.get_default_verify_paths().cafile)
