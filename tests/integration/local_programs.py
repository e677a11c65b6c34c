"""Free ports for the programs of ``make run``, and clients of Carbon and Graphite."""

import json
import pickle
import socket
import struct
import urllib.parse
import urllib.request
from pathlib import Path

from tests.programs import HOST, free_port

PORT_SETTINGS = (
    "MQTT_PORT",
    "CARBON_PORT",
    "GRAPHITE_PORT",
    "SIMULATOR_ENVOY_PORT",
    "SIMULATOR_ENLIGHTEN_PORT",
    "SIMULATOR_CONTROL_PORT",
)


def local_settings(state_dir: Path) -> dict[str, str]:
    """Return settings with free ports and this state directory."""
    ports = {name: str(free_port()) for name in PORT_SETTINGS}
    return ports | {"STATE_DIR": str(state_dir), "PYTHONUNBUFFERED": "1"}


def send_to_carbon(port: str, points: list[tuple[str, tuple[int, float]]]) -> None:
    """Send points in one pickle frame, and return when Carbon has read it."""
    frame = pickle.dumps(points, protocol=2)
    with socket.create_connection((HOST, int(port)), timeout=5) as connection:
        connection.sendall(struct.pack("!L", len(frame)) + frame)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def query_graphite(port: str, path: str, **parameters: str) -> object:
    """Return Graphite's JSON response."""
    with urllib.request.urlopen(
        f"http://{HOST}:{port}{path}?{urllib.parse.urlencode(parameters)}", timeout=5
    ) as response:
        return json.loads(response.read())


def stored_points(port: str, path: str, since_s: int) -> dict[int, float]:
    """Return the points of one series by timestamp."""
    series = query_graphite(port, "/render", target=path, format="json", **{"from": str(since_s)})
    assert isinstance(series, list)
    return {timestamp: value for each in series for value, timestamp in each["datapoints"] if value is not None}
