"""The broker's line of ``--check``: whether it accepts the connection and a publication."""

import os
import threading
from concurrent.futures import TimeoutError as NotAcknowledged

from shared.checks import CHECK_TIMEOUT_S, CheckResult
from shared.mqtt import Connection
from shared.settings import MqttSettings


def check_broker(settings: MqttSettings, topic: str) -> CheckResult:
    """Return whether the broker accepts the connection and a publication.

    Args:
        settings: the broker and the credentials.
        topic: one that the service may publish to and that retains nothing; an empty message is published there.
    """
    what = f"broker {settings.host}:{settings.port}"
    probe = settings.model_copy(update={"client_id": f"{settings.client_id}-check-{os.getpid()}"})
    with Connection(probe, stop=threading.Event(), persistent_session=False) as connection:
        if not connection.wait_until_connected(CHECK_TIMEOUT_S):
            text = f"did not respond within {CHECK_TIMEOUT_S:g} s; check MQTT_HOST and MQTT_PORT"
            return CheckResult(ok=False, what=what, text=connection.connect_error or text)
        try:
            publication = connection.publish(topic, b"", retain=True, content_type=None).result(CHECK_TIMEOUT_S)
        except NotAcknowledged:
            return CheckResult(
                ok=False,
                what=what,
                text=f"did not acknowledge a publication within {CHECK_TIMEOUT_S:g} s; is it overloaded?",
            )
    if publication.accepted:
        return CheckResult(ok=True, what=what, text="accepts publications")
    text = f"refused a publication ({publication.reason}); check its access rules"
    return CheckResult(ok=False, what=what, text=text)
