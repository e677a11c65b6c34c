"""Runs the MQTT broker: mosquitto where the machine has it, otherwise iotcore out of a wheel."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from deploy.local.settings import HOST, LocalSettings
from shared.lifecycle import ExitCode
from shared.settings import load

SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/opt/homebrew/sbin")
"""Where packages put mosquitto besides the PATH, which seldom names the sbin directories."""

IOTCORE_PAYLOAD_LIMIT = 1024 * 1024
"""Its own limit is 20,480 bytes, which a large roof's meters can exceed."""

UNREADABLE = "Couldn't open database"
"""What mosquitto says before it ends over a mosquitto.db (src/mosquitto.c in every 2.x)."""


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
        # Else an acknowledgement waits for that of the one before: 40 ms from the second reading of a poll on.
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
    ]
    if root:  # it would become the user mosquitto, who can't write here
        lines.append("user root")
    return "\n".join(lines) + "\n"


def set_unreadable_aside(mosquitto: str, state: Path, *, root: bool) -> Path | None:
    """Rename what an earlier mosquitto left if this one would not start with it, and return the new name.

    A full disk leaves half a file, and mosquitto 2.0 then ends at each start, also once there is room. What it had
    acknowledged is in the pollers' journals. Only mosquitto knows what it can read, so it tries on another port.
    """
    memory = state / "mosquitto.db"
    if not memory.exists():
        return None
    port = _free_port()
    configuration = state / "trial.conf"
    configuration.write_text(mosquitto_configuration(port, state, root=root))
    with subprocess.Popen([mosquitto, "-c", str(configuration)], stderr=subprocess.PIPE, text=True) as trial:  # noqa: S603 - the broker itself
        while trial.poll() is None and not _listens(port):
            time.sleep(0.02)
        # Killed, it saves nothing.
        trial.kill()
        complaint = trial.communicate()[1]
    if UNREADABLE not in complaint:
        return None
    return memory.rename(memory.with_suffix(f".unreadable-{int(time.time())}"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


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
        root = os.geteuid() == 0
        configuration.write_text(mosquitto_configuration(settings.mqtt_port, state, root=root))
        if aside := set_unreadable_aside(mosquitto, state, root=root):
            say(f"set aside {aside}, which mosquitto cannot read; the pollers publish again what it had not passed on")
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
