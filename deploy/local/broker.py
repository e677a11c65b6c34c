"""Runs the MQTT broker: mosquitto where the machine has it, otherwise iotcore out of a wheel."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from deploy.local.settings import HOST, LocalSettings
from shared.lifecycle import ExitCode
from shared.settings import load

SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/opt/homebrew/sbin")
"""Where packages put mosquitto besides the PATH, which seldom names the sbin directories."""

IOTCORE_PAYLOAD_LIMIT = 1024 * 1024
"""Its own limit is 20,480 bytes, which a large roof's meters can exceed."""


def find_mosquitto() -> str | None:
    """Return the path of the mosquitto program."""
    return shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_DIRECTORIES]))


def mosquitto_configuration(port: int, state: Path, *, root: bool) -> str:
    """Return the mosquitto.conf of a broker for this machine alone."""
    lines = [
        f"listener {port} {HOST}",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {state}/",
        # Sessions and queues are saved at every hundredth change. The default waits half an hour; saving at every
        # change writes the whole file each time. What falls between is published again by the journal.
        "autosave_on_changes true",
        "autosave_interval 100",
        # The default drops everything beyond 1000 messages for a sink that is away, and tells the publisher "Success".
        "max_queued_messages 100000",
        "max_packet_size 262144",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
    ]
    if root:  # it would become the user mosquitto, who can't write here
        lines.append("user root")
    return "\n".join(lines) + "\n"


def iotcore_configuration(port: int) -> str:
    """Return the rumqttd configuration of a broker for this machine alone; MQTT 5 needs one."""
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
max_payload_size = {IOTCORE_PAYLOAD_LIMIT}
max_inflight_count = 1000
"""


def main() -> int:
    """Become the broker."""
    settings = load(LocalSettings)
    state = settings.state_dir / "broker"
    state.mkdir(parents=True, exist_ok=True)
    if mosquitto := find_mosquitto():
        configuration = state / "mosquitto.conf"
        configuration.write_text(mosquitto_configuration(settings.mqtt_port, state, root=os.geteuid() == 0))
        say(f"mosquitto on {HOST}:{settings.mqtt_port}")
        os.execv(mosquitto, [mosquitto, "-c", str(configuration)])  # noqa: S606
    if importlib.util.find_spec("iotcore"):
        configuration = state / "iotcore.toml"
        configuration.write_text(iotcore_configuration(settings.mqtt_port))
        say(f"iotcore on {HOST}:{settings.mqtt_port}: its queues are in memory and end with it (mosquitto keeps them)")
        # rumqttd writes an error for every packet it routes; only what ends it matters.
        arguments = ["-m", "iotcore", "--config", str(configuration), "--log-level", "CRITICAL"]
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606
    say("no MQTT broker: install mosquitto (apt install mosquitto), or run make, which fetches iotcore")
    return ExitCode.BAD_SETTINGS


def say(line: str) -> None:
    """Tell what happened in one line."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
