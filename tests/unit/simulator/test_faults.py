"""Faults on demand: each has its effect, in its place, for as long as it was asked for."""

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
    ("name", "status", "content_type", "told"),
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
def test_fault_puts_its_answer_in_the_place_of_the_real_one(
    start: Start, read: Read, control: Control, name: str, status: int, content_type: str, told: str
) -> None:
    """Status, kind and body are the fault's, until it is removed."""
    simulator = start()
    fault = control(simulator).add_fault(name)
    answer = read(simulator, READINGS)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, content_type)
    assert told in answer.text
    assert ("Retry-After" in answer.headers) == (name in {"429", "503"})
    control(simulator).remove_faults(fault)
    assert read(simulator, READINGS).json()


def test_fault_happens_only_where_and_as_often_as_it_was_asked_for(start: Start, read: Read, control: Control) -> None:
    """A prefix or a pattern says where, a count how often."""
    simulator = start()
    asked = control(simulator)
    asked.add_fault("503", path="/ivp/", count=2)
    asked.add_fault("403", path="/api/*/inverters")
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
    assert [answer["fault"] for answer in asked.served("envoy")] == ["503", None, "503", None, None, "403"]


def test_slow_answer_comes_late(start: Start, read: Read, control: Control) -> None:
    """The delay passes before the first byte."""
    simulator = start()
    control(simulator).add_fault("slow", delay_s=0.3)
    with pytest.raises(requests.exceptions.ReadTimeout):
        read(simulator, READINGS, timeout=0.1)
    assert read(simulator, READINGS).elapsed.total_seconds() >= 0.3


def test_dripping_body_arrives_whole_but_late(start: Start, read: Read, control: Control) -> None:
    """Every chunk stays within a read timeout; the whole does not."""
    simulator = start()
    whole = len(read(simulator, "/info").content)
    control(simulator).add_fault("drip", chunk_bytes=whole // 3, pause_s=0.1)
    began = time.monotonic()
    assert len(read(simulator, "/info", timeout=1).content) == whole
    assert time.monotonic() - began >= 0.3


def test_truncated_body_ends_before_its_length(start: Start, read: Read, control: Control) -> None:
    """A client that counts notices."""
    simulator = start()
    control(simulator).add_fault("truncated", count=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        read(simulator, READINGS)
    assert read(simulator, READINGS).json()


def test_endless_body_goes_on_until_the_client_has_enough(start: Start, read: Read, control: Control) -> None:
    """Ten times the real answer and still no end."""
    simulator = start()
    whole = len(read(simulator, "/info").content)
    control(simulator).add_fault("endless")
    with read(simulator, "/info", stream=True) as answer:
        assert "Content-Length" not in answer.headers
        assert len(answer.raw.read(10 * whole)) == 10 * whole


@pytest.mark.parametrize("firmware", ["8", "5"])
def test_reset_connection_is_reset(start: Start, control: Control, firmware: str) -> None:
    """Neither TLS nor TCP says goodbye, and no byte is answered."""
    simulator = start(firmware=firmware)
    control(simulator).add_fault("reset")
    port = int(simulator.envoy_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        connection = _unverified().wrap_socket(plain) if firmware == "8" else plain
        with connection, socket.socket(fileno=os.dup(connection.fileno())) as raw:
            raw.settimeout(5)
            connection.sendall(b"GET /info HTTP/1.1\r\nHost: envoy\r\n\r\n")
            # Read under TLS, which would make an end of file of it.
            with pytest.raises(ConnectionResetError):
                _read_to_the_end(raw)


def test_new_certificate_is_another_one_and_stays(start: Start, read: Read, control: Control) -> None:
    """Open connections are cut, so that a client that pins sees it at its next request."""
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


def test_reboot_is_silence_and_then_counters_from_zero(start: Start, read: Read, control: Control) -> None:
    """503 while it starts; then lifetimes count anew, on meters and inverters, until the fault is removed."""
    simulator = start()
    lifetime_wh = read(simulator, READINGS).json()[0]["actEnergyDlvd"]
    fault = control(simulator).add_fault("reboot", down_s=0.2)
    busy = read(simulator, READINGS)
    assert (busy.status_code, busy.headers["Retry-After"]) == (503, "30")
    deadline = time.monotonic() + 5
    while (answer := read(simulator, READINGS)).status_code == 503 and time.monotonic() < deadline:
        pass
    assert answer.json()[0]["actEnergyDlvd"] < 50
    control(simulator).clock(advance_s=600)
    grown = read(simulator, "/production.json").json()
    assert 50 < grown["production"][1]["whLifetime"] < 2000
    assert grown["production"][1]["whToday"] == grown["production"][1]["whLifetime"]
    assert 0 < grown["production"][0]["whLifetime"] < 2000
    control(simulator).remove_faults(fault)
    assert read(simulator, READINGS).json()[0]["actEnergyDlvd"] > lifetime_wh


def test_wrong_clock_shows_in_times_and_not_in_the_sun(start: Start, read: Read, control: Control) -> None:
    """The gateway's idea of the time is off; what it measures is not."""
    simulator = start()
    right = read(simulator, READINGS).json()[0]
    fault = control(simulator).add_fault("wrong-clock", offset_s=-36000)
    wrong = read(simulator, READINGS).json()[0]
    assert wrong["timestamp"] - right["timestamp"] == pytest.approx(-36000, abs=5)
    assert wrong["activePower"] == pytest.approx(right["activePower"], rel=0.2)
    control(simulator).remove_faults(fault)
    assert read(simulator, READINGS).json()[0]["timestamp"] >= right["timestamp"]
    assert control(simulator).clock(offset_s=60)["offset_s"] == 60


def test_stop_ends_answers_that_never_end(start: Start, read: Read, control: Control) -> None:
    """A stop does not wait for a slow answer."""
    simulator = start()
    control(simulator).add_fault("slow", delay_s=60)
    failed = threading.Event()

    def wait_for_answer() -> None:
        with pytest.raises(requests.exceptions.ConnectionError):
            read(simulator, READINGS)
        failed.set()

    waiting = threading.Thread(target=wait_for_answer)
    waiting.start()
    deadline = time.monotonic() + 5
    while not control(simulator).served("envoy") and time.monotonic() < deadline:
        pass
    simulator.stop()
    assert failed.wait(5)
    waiting.join()


@pytest.mark.parametrize(
    ("wanted", "told"),
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
def test_fault_that_cannot_be_understood_is_refused_in_words(wanted: dict[str, object], told: str) -> None:
    """The message says what is wrong."""
    with pytest.raises(InvalidFault, match=told):
        Faults(lambda _: None, lambda _: None).add(wanted)


def test_control_refuses_in_words_with_status_400(start: Start, control: Control) -> None:
    """A mistaken request changes nothing and says why."""
    simulator = start()
    url = simulator.control_url
    bad = [
        requests.post(f"{url}/faults", data="{", timeout=5),
        requests.post(f"{url}/faults", json=[], timeout=5),
        requests.post(f"{url}/faults", json={"name": "x"}, timeout=5),
        requests.delete(f"{url}/faults?id=7", timeout=5),
        requests.delete(f"{url}/faults?id=x", timeout=5),
        requests.post(f"{url}/clock", json={"advance_s": -1}, timeout=5),
        requests.post(f"{url}/clock", json={"advance_s": "x"}, timeout=5),
        requests.post(f"{url}/clock", json={}, timeout=5),
        requests.post(f"{url}/tokens", json={"kind": "thief"}, timeout=5),
        requests.post(f"{url}/tokens", json={"lifetime_s": "long"}, timeout=5),
    ]
    assert [answer.status_code for answer in bad] == [400] * len(bad)
    assert all(answer.json()["error"] for answer in bad)
    assert requests.get(f"{url}/nonsense", timeout=5).status_code == 404
    told = requests.get(f"{url}/faults", timeout=5).json()
    assert (told["faults"], set(told["known"])) == ([], set(FAULT_TYPES))
    with pytest.raises(requests.HTTPError, match="unknown fault"):
        control(simulator).add_fault("x")


def test_faults_can_be_given_at_the_start(state_dir: Path) -> None:
    """The command line says the same as the control address."""
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


def test_page_about_the_simulator_names_every_fault_with_its_parameters() -> None:
    """docs/simulator.md is true to the code."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "simulator.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for name, kind in FAULT_TYPES.items():
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        assert row.split("|")[3].strip() == ", ".join(f"`{key}` {value:g}" for key, value in kind.parameters.items())


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _read_to_the_end(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def _certificate(simulator: Simulator) -> str:
    return ssl.get_server_certificate(("127.0.0.1", int(simulator.envoy_url.rpartition(":")[2])), timeout=5)
