"""Runs the MQTT broker: Mosquitto where it is installed, otherwise iotcore from its wheel."""

import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from deploy.local.settings import HOST, LocalSettings
from shared import logs
from shared.files import make_folder, quarantine, write_atomically
from shared.lifecycle import ExitCode
from shared.settings import load

logger = logging.getLogger("deploy.local.broker")

SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/opt/homebrew/sbin")
"""Where packages install mosquitto; these directories are often not on the PATH."""

IOTCORE_MAX_PAYLOAD_BYTES = 1024 * 1024
"""Its default is 20,480 bytes, which the readings of a large system can exceed."""

CANNOT_OPEN_DATABASE = "Couldn't open database"
"""What Mosquitto logs before it exits because of its mosquitto.db (src/mosquitto.c in every 2.x)."""


def find_mosquitto() -> str | None:
    """Return the path of the mosquitto program, or None if it is not installed."""
    return shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_DIRECTORIES]))


def mosquitto_configuration(port: int, state: Path, *, root: bool) -> str:
    """Return the mosquitto.conf of a broker that only this machine reaches."""
    lines = [
        f"listener {port} {HOST}",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {state}/",
        # Save sessions and queues at every hundredth change. The default is every half hour; saving at every change
        # would write the whole file each time. The journals resend what a crash loses in between.
        "autosave_on_changes true",
        "autosave_interval 100",
        # By default everything beyond 1000 messages for a disconnected sink is dropped, and acknowledged as "Success".
        "max_queued_messages 100000",
        "max_packet_size 262144",
        # Without this, Nagle's algorithm delays each acknowledgement after a poll's first by 40 ms.
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
    ]
    if root:  # by default it changes to the user mosquitto, who cannot write here
        lines.append("user root")
    return "\n".join(lines) + "\n"


def can_load_database(mosquitto: str, state: Path, *, root: bool) -> bool:
    """Return whether this Mosquitto starts with the database that an earlier one left.

    A full disk can leave a truncated one, and Mosquitto 2.0 then exits at each start, even after space was freed. Only
    Mosquitto knows what it can read, so it is started on another port.
    """
    port = _free_port()
    configuration = state / "trial.conf"
    write_atomically(configuration, mosquitto_configuration(port, state, root=root), durable=False)
    with subprocess.Popen([mosquitto, "-c", str(configuration)], stderr=subprocess.PIPE, text=True) as trial:  # noqa: S603 - the broker itself
        while trial.poll() is None and not _listens(port):
            time.sleep(0.02)
        trial.kill()  # so that it saves nothing
        errors = trial.communicate()[1]
    return CANNOT_OPEN_DATABASE not in errors


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def iotcore_configuration(port: int) -> str:
    """Return the rumqttd configuration of a broker that only this machine reaches; without one it has no MQTT 5."""
    return f"""\
id = 0

[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 10485760
max_segment_count = 10

[v5.1]
name = "mqtt5"
listen = "{HOST}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {IOTCORE_MAX_PAYLOAD_BYTES}
max_inflight_count = 1000
"""


def main() -> int:
    """Replace this process by the broker; return an exit code if none is installed."""
    settings = load(LocalSettings)
    logs.configure("INFO", "text")
    state = settings.state_dir / "broker"
    make_folder(state)
    if mosquitto := find_mosquitto():
        root = os.geteuid() == 0
        database = state / "mosquitto.db"
        if database.exists() and not can_load_database(mosquitto, state, root=root):
            # The pollers' journals resend what was in it.
            quarantine(database, "Mosquitto cannot load it")
        configuration = state / "mosquitto.conf"
        write_atomically(configuration, mosquitto_configuration(settings.mqtt_port, state, root=root), durable=False)
        logger.info("starting Mosquitto on %s:%s", HOST, settings.mqtt_port)
        os.execv(mosquitto, [mosquitto, "-c", str(configuration)])  # noqa: S606
    if importlib.util.find_spec("iotcore"):
        configuration = state / "iotcore.toml"
        write_atomically(configuration, iotcore_configuration(settings.mqtt_port), durable=False)
        logger.info(
            "starting iotcore on %s:%s; it loses its queues when it stops, install mosquitto to keep them",
            *(HOST, settings.mqtt_port),
        )
        # rumqttd logs an error for every packet that it routes; only what makes it exit matters.
        arguments = ["-m", "iotcore", "--config", str(configuration), "--log-level", "CRITICAL"]
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606
    logger.error("no MQTT broker found; install mosquitto (apt install mosquitto), or run make, which installs iotcore")
    return ExitCode.BAD_SETTINGS


if __name__ == "__main__":
    sys.exit(main())
