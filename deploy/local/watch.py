"""Tells on the terminal where to look once readings are in Graphite, and then keeps telling the newest values."""

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

from deploy.local.settings import HOST, LocalSettings
from shared.lifecycle import stop_on_signals
from shared.settings import load

TELL_EVERY_S = 10.0
LOOK_EVERY_S = 0.5
ANSWER_WITHIN_S = 5.0
NEWEST_WITHIN_S = 900
STALE_AFTER_S = 60

# Graphite runs on this machine; a proxy from the environment has no business here.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Point:
    """The newest value of a series."""

    timestamp: int
    value: float


def fetch_newest(graphite_url: str, targets: list[str]) -> dict[str, Point] | None:
    """Return the newest point by path, for each series that has one; None when Graphite does not answer."""
    parameters = [("target", target) for target in targets]
    parameters += [("from", f"-{NEWEST_WITHIN_S}s"), ("format", "json")]
    url = f"{graphite_url}/render?{urllib.parse.urlencode(parameters)}"
    try:
        with _opener.open(url, timeout=ANSWER_WITHIN_S) as answer:
            return newest_points(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None


def newest_points(rendered: bytes) -> dict[str, Point]:
    """Return the newest point by path from Graphite's JSON."""
    newest = {}
    for series in json.loads(rendered):
        known = [(timestamp, value) for value, timestamp in series["datapoints"] if value is not None]
        if known:
            newest[series["target"]] = Point(*max(known))
    return newest


def kilowatts(power_w: float) -> str:
    """Return a power for people, e.g. ``2.31 kW``; an inverter's watt of own use at night is no ``-0.00``."""
    return f"{round(power_w / 1000, 2) + 0.0:.2f} kW"


def tell_gateway(serial: str, prefix: str, newest: Mapping[str, Point]) -> str | None:
    """Return what one gateway measures, in words, e.g. ``production 2.31 kW  export 1.67 kW``."""
    parts = [
        f"{kind} {kilowatts(point.value)}"
        for kind in ("production", "consumption")
        if (point := newest.get(f"{prefix}.{serial}.{kind}.power_w"))
    ]
    if point := newest.get(f"{prefix}.{serial}.grid.power_w"):
        parts.append(f"{'export' if point.value < 0 else 'import'} {kilowatts(abs(point.value))}")
    return "  ".join(parts) or None


def tell(prefix: str, newest: Mapping[str, Point], delivered_path: str, now_s: float) -> list[str]:
    """Return the lines about the newest values, one for each gateway."""
    readings = {path: point for path, point in newest.items() if path != delivered_path}
    serials = sorted({path.removeprefix(f"{prefix}.").split(".")[0] for path in readings})
    delivered = newest.get(delivered_path)
    lines = []
    for serial in serials:
        newest_s = max(point.timestamp for path, point in readings.items() if path.startswith(f"{prefix}.{serial}."))
        parts = [time.strftime("%H:%M:%S", time.localtime(newest_s))]
        if len(serials) > 1:
            parts.append(serial)
        parts.append(tell_gateway(serial, prefix, newest) or "")
        if delivered is not None:
            parts.append(f"readings delivered {delivered.value:,.0f}".replace(",", " "))
        if now_s - newest_s > STALE_AFTER_S:
            parts.append(f"(no newer reading for {now_s - newest_s:.0f} s)")
        lines.append("  ".join(parts))
    return lines or [f"no reading in the last {NEWEST_WITHIN_S // 60} minutes"]


def waiting_for(settings: LocalSettings) -> str:
    """Return the first thing that is missing before a reading can arrive."""
    steps = {
        "the MQTT broker": [(HOST, settings.mqtt_port)],
        "Carbon": [(HOST, settings.carbon_port)],
        "Graphite's render API": [(HOST, settings.graphite_port)],
    }
    if settings.envoy_host is not None:
        steps[f"the gateway at {settings.envoy_host}"] = gateway_addresses(settings.envoy_host)
    missing = next((name for name, addresses in steps.items() if not any(map(answers, addresses))), None)
    return missing or "the first reading: token_broker gets a token, poller reads the gateway, carbon_sink writes"


def gateway_addresses(envoy_host: str) -> list[tuple[str, int]]:
    """Return where a gateway can answer: newer firmware over HTTPS, older over HTTP."""
    url = urllib.parse.urlsplit(envoy_host if "://" in envoy_host else f"//{envoy_host}")
    host = url.hostname or envoy_host
    ports = [url.port] if url.port else {"https": [443], "http": [80]}.get(url.scheme, [443, 80])
    return [(host, port) for port in ports]


def answers(address: tuple[str, int]) -> bool:
    """Return whether something listens there."""
    try:
        with socket.create_connection(address, timeout=2):
            return True
    except OSError:
        return False


def wait_for_reading(settings: LocalSettings, paths: list[str], stop: threading.Event) -> None:
    """Return when a reading is in Graphite; say now and then what is missing."""
    next_line_s = time.monotonic() + TELL_EVERY_S
    while not fetch_newest(settings.graphite_url, paths):
        if stop.wait(LOOK_EVERY_S):
            return
        if time.monotonic() >= next_line_s:
            say(f"waiting for {waiting_for(settings)}")
            next_line_s += TELL_EVERY_S


def say(line: str) -> None:
    """Write one line for people, and for programs that wait for it."""
    print(line, flush=True)  # noqa: T201


def main() -> int:
    """Watch until told to stop."""
    settings = load(LocalSettings)
    stop = stop_on_signals()
    prefix = settings.carbon_prefix
    power = [f"{prefix}.*.{kind}.power_w" for kind in ("production", "consumption", "grid")]
    delivered = f"{prefix}.services.carbon-sink.metrics.readings_delivered"
    wait_for_reading(settings, power, stop)
    if not stop.is_set():
        say(f"Graph: {settings.graphite_url}/")
        say(f"Render: {settings.graphite_url}/render")
    while not stop.wait(TELL_EVERY_S):
        newest = fetch_newest(settings.graphite_url, [*power, delivered])
        if newest is None:
            say("Graphite's render API does not answer")
        else:
            for line in tell(prefix, newest, delivered, time.time()):
                say(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
