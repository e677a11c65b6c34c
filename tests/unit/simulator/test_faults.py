"""Faults on demand: what each does, where, and how often."""

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from services.simulator.control_client import ControlClient
from services.simulator.faults import FAULT_TYPES, Faults, InvalidFault, parse_fault
from services.simulator.settings import SimulatorSettings
from services.simulator.simulator import Simulator

Start = Callable[..., Simulator]
Read = Callable[..., requests.Response]
Control = Callable[[Simulator], ControlClient]

READINGS = "/ivp/meters/readings"


@pytest.mark.parametrize(
    ("name", "status", "content_type", "text"),
    [
        ("html", 200, "text/html", "<html>"),
        ("401", 401, "text/html", "401"),
        ("403", 403, "text/html", "403"),
        ("429", 429, "application/json", "Too many"),
        ("503", 503, "text/plain", "retry after 30 seconds"),
        ("queue-full", 200, "text/html", "Queue full"),
        ("queue-full-503", 503, "text/html", "Queue full"),
    ],
)
def test_a_fault_replaces_the_response_until_it_is_removed(
    start: Start, read: Read, control: Control, name: str, status: int, content_type: str, text: str
) -> None:
    """Status, content type and body are the fault's."""
    simulator = start()
    fault = control(simulator).add_fault(name)
    response = read(simulator, READINGS)
    assert (response.status_code, response.headers["Content-Type"]) == (status, content_type)
    assert text in response.text
    assert ("Retry-After" in response.headers) == (name in {"429", "503"})
    control(simulator).remove_faults(fault)
    assert read(simulator, READINGS).json()


def test_a_fault_hits_only_its_paths_and_as_often_as_its_count(start: Start, read: Read, control: Control) -> None:
    """The path is a prefix or a pattern."""
    simulator = start()
    client = control(simulator)
    client.add_fault("503", path="/ivp/", count=2)
    client.add_fault("403", path="/api/*/inverters")
    paths = (
        READINGS,
        "/production.json",
        "/ivp/meters",
        READINGS,
        "/api/v1/production",
        "/api/v1/production/inverters",
    )
    assert [read(simulator, path).status_code for path in paths] == [503, 200, 503, 200, 200, 403]
    assert requests.post(f"{simulator.enlighten_url}/login/login.json", timeout=5).status_code == 401
    assert [response["fault"] for response in client.served("envoy")] == ["503", None, "503", None, None, "403"]


def test_slow_delays_the_response(start: Start, read: Read, control: Control) -> None:
    """The delay is before the first byte."""
    simulator = start()
    control(simulator).add_fault("slow", delay_s=0.3)
    with pytest.raises(requests.exceptions.ReadTimeout):
        read(simulator, READINGS, timeout=0.1)
    assert read(simulator, READINGS).elapsed.total_seconds() >= 0.3


def test_drip_sends_the_whole_body_slowly(start: Start, read: Read, control: Control) -> None:
    """Each chunk arrives within a read timeout."""
    simulator = start()
    length = len(read(simulator, "/info").content)
    control(simulator).add_fault("drip", chunk_bytes=length // 3, pause_s=0.1)
    started_at = time.monotonic()
    assert len(read(simulator, "/info", timeout=1).content) == length
    assert time.monotonic() - started_at >= 0.3


def test_truncated_sends_less_than_the_content_length(start: Start, read: Read, control: Control) -> None:
    """A client that counts bytes detects it."""
    simulator = start()
    control(simulator).add_fault("truncated", count=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        read(simulator, READINGS)
    assert read(simulator, READINGS).json()


def test_endless_sends_until_the_client_closes(start: Start, read: Read, control: Control) -> None:
    """Ten times the length of the real response, and still no end."""
    simulator = start()
    length = len(read(simulator, "/info").content)
    control(simulator).add_fault("endless")
    with read(simulator, "/info", stream=True) as response:
        assert "Content-Length" not in response.headers
        assert len(response.raw.read(10 * length)) == 10 * length


@pytest.mark.parametrize("firmware", ["8", "5"])
def test_reset_resets_the_connection(start: Start, control: Control, firmware: str) -> None:
    """Without a shutdown of TLS or TCP, and without any byte of a response."""
    simulator = start(firmware=firmware)
    control(simulator).add_fault("reset")
    port = int(simulator.envoy_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        connection = _unverified().wrap_socket(plain) if firmware == "8" else plain
        with connection, socket.socket(fileno=os.dup(connection.fileno())) as raw:
            raw.settimeout(5)
            connection.sendall(b"GET /info HTTP/1.1\r\nHost: envoy\r\n\r\n")
            # Read below TLS, which would report the end of the file.
            with pytest.raises(ConnectionResetError):
                _read_to_end(raw)


def test_a_new_certificate_stays_when_the_fault_is_removed(start: Start, read: Read, control: Control) -> None:
    """Open connections are closed, so that a client with a pinned certificate notices at its next request."""
    simulator = start(serial="122000000077")
    before = _certificate(simulator)
    assert read(simulator, "/info").ok
    assert _certificate(simulator) == before
    control(simulator).add_fault("new-certificate")
    after = _certificate(simulator)
    assert after != before
    control(simulator).remove_faults()
    assert _certificate(simulator) == after
    simulator.stop()
    assert _certificate(start(serial="122000000077")) == after


def test_a_reboot_is_503_and_then_counters_from_zero(start: Start, read: Read, control: Control) -> None:
    """The lifetimes of meters and inverters start at zero, until the fault is removed."""
    simulator = start()
    lifetime_wh = read(simulator, READINGS).json()[0]["actEnergyDlvd"]
    fault = control(simulator).add_fault("reboot", down_s=0.2)
    busy = read(simulator, READINGS)
    assert (busy.status_code, busy.headers["Retry-After"]) == (503, "30")
    deadline = time.monotonic() + 5
    while (response := read(simulator, READINGS)).status_code == 503 and time.monotonic() < deadline:
        pass
    assert response.json()[0]["actEnergyDlvd"] < 50
    control(simulator).clock(advance_s=600)
    later = read(simulator, "/production.json").json()
    assert 50 < later["production"][1]["whLifetime"] < 2000
    assert later["production"][1]["whToday"] == later["production"][1]["whLifetime"]
    assert 0 < later["production"][0]["whLifetime"] < 2000
    control(simulator).remove_faults(fault)
    assert read(simulator, READINGS).json()[0]["actEnergyDlvd"] > lifetime_wh


def test_a_wrong_clock_changes_times_and_not_the_sun(start: Start, read: Read, control: Control) -> None:
    """The gateway's timestamps are wrong; what it measures is not."""
    simulator = start()
    right = read(simulator, READINGS).json()[0]
    fault = control(simulator).add_fault("wrong-clock", offset_s=-36000)
    wrong = read(simulator, READINGS).json()[0]
    assert wrong["timestamp"] - right["timestamp"] == pytest.approx(-36000, abs=5)
    assert wrong["activePower"] == pytest.approx(right["activePower"], rel=0.2)
    control(simulator).remove_faults(fault)
    assert read(simulator, READINGS).json()[0]["timestamp"] >= right["timestamp"]
    assert control(simulator).clock(offset_s=60)["offset_s"] == 60


def test_stop_does_not_wait_for_a_slow_response(start: Start, read: Read, control: Control) -> None:
    """The client's connection is closed at once."""
    simulator = start()
    control(simulator).add_fault("slow", delay_s=60)
    failed = threading.Event()

    def wait_for_response() -> None:
        with pytest.raises(requests.exceptions.ConnectionError):
            read(simulator, READINGS)
        failed.set()

    waiting = threading.Thread(target=wait_for_response)
    waiting.start()
    deadline = time.monotonic() + 5
    while not control(simulator).served("envoy") and time.monotonic() < deadline:
        pass
    simulator.stop()
    assert failed.wait(5)
    waiting.join()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"name": "nonsense"}, "unknown fault 'nonsense'"),
        ({}, "unknown fault ''"),
        ({"name": "html", "server": "mars"}, "server is 'mars'"),
        ({"name": "html", "count": 0}, "count must be 1 or more"),
        ({"name": "html", "count": "often"}, "count is 'often', but must be a number"),
        ({"name": "slow", "delay_s": float("nan")}, "delay_s is nan"),
        ({"name": "slow", "delay_s": True}, "delay_s is True"),
        ({"name": "html", "delay_s": 3}, "unknown key 'delay_s' of fault html; known: server, path, count"),
        ({"name": "html", "path": 5}, "path must be text"),
        ({"name": "reboot", "count": 1}, "happens to the whole gateway and has no count"),
    ],
)
def test_an_invalid_fault_is_rejected(body: dict[str, object], message: str) -> None:
    """The message has what is wrong."""
    with pytest.raises(InvalidFault, match=message):
        Faults(lambda _: None, lambda _: None).add(body)


def test_control_rejects_an_invalid_request_with_status_400(start: Start, control: Control) -> None:
    """It changes nothing, and the response has the reason."""
    simulator = start()
    url = simulator.control_url
    invalid = [
        requests.post(f"{url}/faults", data="{", timeout=5),
        requests.post(f"{url}/faults", json=[], timeout=5),
        requests.post(f"{url}/faults", json={"name": "x"}, timeout=5),
        requests.delete(f"{url}/faults?id=7", timeout=5),
        requests.delete(f"{url}/faults?id=x", timeout=5),
        requests.post(f"{url}/clock", json={"advance_s": -1}, timeout=5),
        requests.post(f"{url}/clock", json={"advance_s": "x"}, timeout=5),
        requests.post(f"{url}/clock", json={}, timeout=5),
        requests.post(f"{url}/tokens", json={"kind": "unknown"}, timeout=5),
        requests.post(f"{url}/tokens", json={"lifetime_s": "long"}, timeout=5),
    ]
    assert [response.status_code for response in invalid] == [400] * len(invalid)
    assert all(response.json()["error"] for response in invalid)
    assert requests.get(f"{url}/nonsense", timeout=5).status_code == 404
    listed = requests.get(f"{url}/faults", timeout=5).json()
    assert (listed["faults"], set(listed["known"])) == ([], set(FAULT_TYPES))
    with pytest.raises(requests.HTTPError, match="unknown fault"):
        control(simulator).add_fault("x")


def test_faults_can_be_set_at_the_start(state_dir: Path) -> None:
    """The command line has the same names as the control endpoint."""
    assert parse_fault("503:path=/ivp/*:count=2") == {"name": "503", "path": "/ivp/*", "count": "2"}
    settings = SimulatorSettings.model_validate(
        {"envoy_port": 0, "enlighten_port": 0, "control_port": 0, "state_dir": state_dir, "start": "2026-06-21T12:00"}
        | {"commissioned": "2026-06-01", "fault": ["503:path=/ivp/*:count=2:retry_after_s=7", "wrong-clock"]}
    )
    with Simulator(settings) as simulator:
        first, second = simulator.faults.active()
        assert (first.count, first.path, first.parameters) == (2, "/ivp/*", {"retry_after_s": 7})
        assert second.name == "wrong-clock"
        assert simulator.clock.gateway_offset_s == 3600


def test_the_documentation_lists_every_fault_with_its_parameters() -> None:
    """docs/simulator.md has a row for each."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "simulator.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for name, fault in FAULT_TYPES.items():
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        assert row.split("|")[3].strip() == ", ".join(f"`{key}` {value:g}" for key, value in fault.parameters.items())


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _read_to_end(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def _certificate(simulator: Simulator) -> str:
    return ssl.get_server_certificate(("127.0.0.1", int(simulator.envoy_url.rpartition(":")[2])), timeout=5)
