"""``--check``: each outside connection of a service tried by itself, and told in a line."""

import os
import threading
from collections.abc import Iterable
from concurrent.futures import TimeoutError as NotInTime
from typing import NamedTuple

from shared.lifecycle import ExitCode
from shared.mqtt import Connection
from shared.settings import MqttSettings

CHECK_WITHIN_S = 5.0


class Finding(NamedTuple):
    """How one connection fares; where it fails, the text says what to do."""

    ok: bool
    what: str
    text: str


def tell(findings: Iterable[Finding]) -> ExitCode:
    """Print each finding as it comes, and return what the process ends with: FAILED if any failed."""
    code = ExitCode.STOPPED
    for finding in findings:
        print(f"{'ok    ' if finding.ok else 'FAILED'}  {finding.what}: {finding.text}", flush=True)  # noqa: T201
        if not finding.ok:
            code = ExitCode.FAILED
    return code


def broker_finding(settings: MqttSettings, topic: str) -> Finding:
    """Return whether the broker lets us in and takes what we publish.

    Args:
        settings: the broker, and who we are to it.
        topic: one that the service publishes to, of which nothing is retained: the proof is an empty message.
    """
    what = f"broker {settings.host}:{settings.port}"
    passer_by = settings.model_copy(update={"client_id": f"{settings.client_id}-check-{os.getpid()}"})
    with Connection(passer_by, stop=threading.Event(), lasting=False) as connection:
        if not connection.wait_until_connected(CHECK_WITHIN_S):
            return Finding(ok=False, what=what, text="lets nobody in; are MQTT_HOST, MQTT_PORT, MQTT_USERNAME right?")
        try:
            answer = connection.publish(topic, b"", retain=True).result(CHECK_WITHIN_S)
        except NotInTime:
            return Finding(ok=False, what=what, text="does not acknowledge what we publish; is it overloaded?")
    if answer.accepted:
        return Finding(ok=True, what=what, text="takes what we publish")
    return Finding(ok=False, what=what, text=f"refuses what we publish ({answer.reason}); see its access rules")
