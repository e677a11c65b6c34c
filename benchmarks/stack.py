"""Image size, and time from a container's start to its first reading: ``python -m benchmarks.stack [starts]``.

The stack must run with a gateway: ``docker compose --profile demo up -d``.
"""

import os
import statistics
import subprocess
import sys
import threading
import time
from datetime import datetime

from pydantic import SecretStr

from shared.mqtt import Connection, Message, Subscription
from shared.settings import MqttSettings

MEGABYTE = 1_000_000
COMPOSE = ["docker", "compose"]
IMAGES = ("python:3.13-slim", os.environ.get("PIPELINE_IMAGE", "enphase-pipeline"))


def main() -> None:
    """Run the benchmark and print its figures."""
    base, ours = (int(printed("docker", "image", "inspect", "-f", "{{.Size}}", name)) for name in IMAGES)
    print(f"image: {(ours - base) / MEGABYTE:.0f} MB on top of {IMAGES[0]}'s {base / MEGABYTE:.0f} MB")
    password = printed(*COMPOSE, "run", "--rm", "--no-deps", "-T", "setup", "cat", "/volumes/viewer/mqtt_password")
    host, port = printed(*COMPOSE, "port", "mosquitto", "1883").split(":")
    settings = MqttSettings(
        host=host, port=int(port), username="viewer", password=SecretStr(password), client_id="benchmark"
    )
    readings = Subscription("enphase/+/readings/#", retained_at_every_connect=False)
    starts = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with Connection(settings, stop=threading.Event(), subscriptions=[readings], persistent_session=False) as viewer:
        took_s = [start_to_publication_s(viewer) for _start in range(starts)]
    print(
        f"poller: {statistics.median(took_s):.2f} s from the container's start to the first reading "
        f"(median of {starts}; {min(took_s):.2f} to {max(took_s):.2f} s)"
    )


def start_to_publication_s(viewer: Connection) -> float:
    """Restart the poller's container and return how long its first reading took."""
    printed(*COMPOSE, "stop", "poller")
    while (message := viewer.receive(1.0)) is not None:
        if isinstance(message, Message):
            viewer.acknowledge(message)
    printed(*COMPOSE, "start", "poller")
    while not isinstance(message := viewer.receive(60), Message):
        if message is None:
            raise SystemExit("no reading within a minute: docker compose logs poller")
    received_at = time.time()
    viewer.acknowledge(message)
    container = printed(*COMPOSE, "ps", "-q", "poller")
    started = printed("docker", "inspect", "-f", "{{.State.StartedAt}}", container)
    return received_at - datetime.fromisoformat(started).timestamp()


def printed(*command: str) -> str:
    """Return what a command prints; end the benchmark if it fails."""
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{ended.stderr.strip()}\nstart the stack first: docker compose --profile demo up -d")
    return ended.stdout.strip()


if __name__ == "__main__":
    main()
