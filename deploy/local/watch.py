"""Prints the addresses of page and render API once readings are in Graphite, and then the newest values."""

import http.client
import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.local.settings import HOST, RECENT_S, LocalSettings
from shared.lifecycle import stop_on_signals
from shared.settings import load

PRINT_INTERVAL_S = 10.0
POLL_INTERVAL_S = 0.5
RESPONSE_TIMEOUT_S = 5.0
STALE_AFTER_S = 60

# Graphite runs on this machine; a proxy from the environment must not be used.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Point:
    """The newest value of a series."""

    timestamp: int
    value: float


def fetch_newest(graphite_url: str, targets: list[str]) -> dict[str, Point] | None:
    """Return the newest point of each series that has one, by path; None if Graphite does not respond."""
    parameters = [("target", target) for target in targets]
    parameters += [("from", f"-{RECENT_S}s"), ("format", "json")]
    url = f"{graphite_url}/render?{urllib.parse.urlencode(parameters)}"
    try:
        with _opener.open(url, timeout=RESPONSE_TIMEOUT_S) as response:
            return newest_points(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None


def newest_points(rendered: bytes) -> dict[str, Point]:
    """Return the newest point of each series in Graphite's JSON, by path."""
    newest = {}
    for series in json.loads(rendered):
        known = [(timestamp, value) for value, timestamp in series["datapoints"] if value is not None]
        if known:
            newest[series["target"]] = Point(*max(known))
    return newest


def kilowatts(power_w: float) -> str:
    """Return a power such as ``2.31 kW``; a watt that an inverter uses at night is ``0.00 kW``, not ``-0.00 kW``."""
    return f"{round(power_w / 1000, 2) + 0.0:.2f} kW"


def describe_gateway(serial: str, prefix: str, newest: Mapping[str, Point]) -> str:
    """Return the newest values of one gateway, such as ``production 2.31 kW  export 1.67 kW``."""
    parts = [
        f"{kind} {kilowatts(point.value)}"
        for kind in ("production", "consumption")
        if (point := newest.get(f"{prefix}.{serial}.{kind}.power_w"))
    ]
    if point := newest.get(f"{prefix}.{serial}.grid.power_w"):
        parts.append(f"{'export' if point.value < 0 else 'import'} {kilowatts(abs(point.value))}")
    return "  ".join(parts)


def describe(prefix: str, newest: Mapping[str, Point], delivered_path: str, now_s: float) -> list[str]:
    """Return a line of the newest values for each gateway."""
    readings = {path: point for path, point in newest.items() if path != delivered_path}
    serials = sorted({path.removeprefix(f"{prefix}.").split(".")[0] for path in readings})
    delivered = newest.get(delivered_path)
    lines = []
    for serial in serials:
        newest_s = max(point.timestamp for path, point in readings.items() if path.startswith(f"{prefix}.{serial}."))
        parts = [time.strftime("%H:%M:%S", time.localtime(newest_s))]
        if len(serials) > 1:
            parts.append(serial)
        parts.append(describe_gateway(serial, prefix, newest))
        if delivered is not None:
            parts.append(f"readings delivered {delivered.value:,.0f}".replace(",", " "))
        if now_s - newest_s > STALE_AFTER_S:
            parts.append(f"(no newer reading for {now_s - newest_s:.0f} s)")
        lines.append("  ".join(parts))
    return lines or [f"no reading in the last {RECENT_S // 60} minutes"]


def first_missing(settings: LocalSettings) -> str:
    """Return the first part of the pipeline that does not accept connections, or that is otherwise waited for."""
    steps = {
        "the MQTT broker": [(HOST, settings.mqtt_port)],
        "Carbon": [(HOST, settings.carbon_port)],
        "Graphite's render API": [(HOST, settings.graphite_port)],
    }
    if settings.envoy_host is not None:
        steps[f"the gateway at {settings.envoy_host}"] = gateway_addresses(settings.envoy_host)
    missing = next((name for name, addresses in steps.items() if not any(map(accepts_connections, addresses))), None)
    return missing or "the first reading: token_broker fetches a token, poller polls the gateway, carbon_sink writes"


def gateway_addresses(envoy_host: str) -> list[tuple[str, int]]:
    """Return the addresses of a gateway: without a port in the setting HTTPS, or HTTP for old firmware."""
    url = urllib.parse.urlsplit(envoy_host if "://" in envoy_host else f"//{envoy_host}")
    host = url.hostname or envoy_host
    ports = [url.port] if url.port else {"https": [443], "http": [80]}.get(url.scheme, [443, 80])
    return [(host, port) for port in ports]


def accepts_connections(address: tuple[str, int]) -> bool:
    """Return whether a program listens there."""
    try:
        with socket.create_connection(address, timeout=2):
            return True
    except OSError:
        return False


def wait_for_reading(settings: LocalSettings, paths: list[str], stop: threading.Event) -> None:
    """Return when a reading is in Graphite or the event is set; print from time to time what is missing."""
    next_line_s = time.monotonic() + PRINT_INTERVAL_S
    while not fetch_newest(settings.graphite_url, paths):
        if stop.wait(POLL_INTERVAL_S):
            return
        if time.monotonic() >= next_line_s:
            print(f"waiting for {first_missing(settings)}")
            next_line_s += PRINT_INTERVAL_S


def main() -> int:
    """Print until the process is stopped."""
    settings = load(LocalSettings)
    stop = stop_on_signals()
    prefix = settings.carbon_prefix
    power = [f"{prefix}.*.{kind}.power_w" for kind in ("production", "consumption", "grid")]
    delivered = f"{prefix}.services.carbon-sink.metrics.readings_delivered"
    wait_for_reading(settings, power, stop)
    if not stop.is_set():
        print(f"Graph: {settings.graphite_url}/")
        print(f"Render: {settings.graphite_url}/render")
    while not stop.wait(PRINT_INTERVAL_S):
        newest = fetch_newest(settings.graphite_url, [*power, delivered])
        if newest is None:
            print("Graphite's render API does not respond")
        else:
            print(*describe(prefix, newest, delivered, time.time()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
