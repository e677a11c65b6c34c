"""What ``poller --once`` and ``--check`` print, for simulated and for recorded gateways."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from services.simulator.faults import parse_fault
from services.simulator.recording import read_recording
from services.simulator.response import Request
from shared.mqtt import Connection
from shared.settings import MqttSettings
from shared.tokens import parse_token
from tests.conftest import Server
from tests.gateways.catalog import BY_NAME
from tests.programs import HOST, ROOT, clean_environment, simulator
from tests.recordings import RECORDINGS
from tests.tokens import unsigned_token, with_wrong_signature


def once(tmp_path: Path, host: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``poller --once``, or with other arguments, without a broker."""
    settings = {"ENVOY_HOST": host, "STATE_DIR": str(tmp_path), "MQTT_PORT": "1"} | environment
    command = [sys.executable, "-m", "services.poller", *(arguments or ["--once"])]
    return subprocess.run(
        command, env=clean_environment() | settings, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def readings(printed: str) -> dict[str, dict[str, object]]:
    """Return the payloads by kind."""
    lines = [json.loads(line) for line in printed.splitlines()]
    return {line["topic"].split("/readings/")[1]: line["payload"] for line in lines}


@dataclass(frozen=True)
class Expected:
    """What a recorded gateway measures, read manually from its recorded responses."""

    production: tuple[str, float, float | None]
    """Source, power and lifetime energy."""
    consumption: tuple[float, float] | None = None
    """Power, as production plus net of the same response, and the gateway's lifetime counter of it."""
    grid: tuple[float, float, float] | None = None
    """Power, import and export lifetime energy."""
    inverters: int = 0
    meters: tuple[str, ...] = ()


SPLIT = ("", "/phase/1", "/phase/2")
THREE = (*SPLIT, "/phase/3")
SINGLE = ("",)


def kinds(*meters: tuple[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the kinds of readings that meters give."""
    return tuple(f"meter/{meter}{phase}" for meter, phases in meters for phase in phases)


EXPECTED = {
    "3.9.36": Expected(("gateway", 1271, 6012540), inverters=12),
    "4.10.35": Expected(
        ("meter", 166.489, 26785327.449),
        (733.353, 26335790.411),
        (566.864, 16908208.78, 17357690.272),
        inverters=19,
        meters=kinds(("production", SPLIT), ("net-consumption", SPLIT)),
    ),
    "5.0.62": Expected(("gateway", 7907, 133798553), inverters=40),
    "7.3.130_no_consumption": Expected(
        ("meter", 3624.573, 4545929.53), inverters=15, meters=kinds(("production", SPLIT))
    ),
    # /api/v1/production does not count; the inverters' sum may have wrapped on this firmware, so it is left out.
    "7.3.466_metered_disabled_cts": Expected(("inverters", 751, None), inverters=7),
    "7.3.466_with_cts_3phase": Expected(
        ("meter", 488.925, 3183793.885),
        (452.763, 4074795.368),
        (-36.162, 3738205.282, 1776768.769),
        inverters=7,
        meters=kinds(("production", THREE), ("net-consumption", THREE)),
    ),
    "7.6.175_standard": Expected(("gateway", 5740, 6139406), inverters=24),
    "7.6.175_with_cts": Expected(
        ("meter", 488.925, 3183793.885),
        (452.763, 5145153.621),
        (-36.162, 3738205.282, 1776768.769),
        inverters=7,
        meters=kinds(("production", SINGLE), ("net-consumption", SINGLE)),
    ),
    "7.6.175_with_cts_3phase": Expected(
        ("meter", 488.925, 3183793.885),
        (452.763, 4074795.368),
        (-36.162, 3738205.282, 1776768.769),
        inverters=7,
        meters=kinds(("production", THREE), ("net-consumption", THREE)),
    ),
    "7.6.185_with_cts_and_battery_3t": Expected(
        ("meter", -0.661, 2432969.956),
        (521.382, 3711429.155),
        (522.043, 2404339.266, 1125590.088),
        inverters=5,
        meters=kinds(("production", SINGLE), ("net-consumption", SINGLE)),
    ),
    "8.2.4286_with_3cts_and_battery_split": Expected(
        ("meter", 7131.017, 13431336.968),
        (8880.521, 15113474.057),
        (1749.504, 5855939.23, 4173334.272),
        inverters=35,
        meters=kinds(("production", SPLIT), ("net-consumption", SPLIT), ("storage", SPLIT)),
    ),
    # Three of the twenty reports are AC Batteries'.
    "8.2.4382_ACB": Expected(
        ("meter", 308.373, 19213421.296),
        (330.913, 26700500.925),
        (22.54, 14153292.251, 6665130.717),
        inverters=17,
        meters=kinds(("production", SINGLE), ("net-consumption", SINGLE)),
    ),
    "8.3.5169_with_generator": Expected(
        ("meter", 2891.863, 11567966.148),
        (3052.353, 27293404.34),
        (160.49, 18999526.477, 3273182.77),
        inverters=20,
        meters=kinds(("production", SPLIT), ("net-consumption", SPLIT)),
    ),
}


@pytest.mark.recordings
@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_gateway_gives_the_numbers_of_its_recording(name: str, tmp_path: Path) -> None:
    """Each number printed is the one that was found in the recording manually."""
    folder = RECORDINGS / name
    expected = EXPECTED[name]
    with simulator(tmp_path, recording=folder) as recorded:
        ended = once(tmp_path, recorded.envoy_url, ENVOY_TOKEN=recorded.token())

    assert ended.returncode == 0, ended.stderr
    printed = readings(ended.stdout)
    source, power_w, lifetime_wh = expected.production
    assert printed["production"].get("source") == source
    assert printed["production"].get("power_w") == power_w
    assert printed["production"].get("energy_lifetime_wh") == lifetime_wh
    consumption = printed.get("consumption")
    if expected.consumption is None:
        assert consumption is None
    else:
        assert consumption is not None
        assert consumption["power_w"] == pytest.approx(expected.consumption[0], abs=1e-6)
        assert consumption["energy_lifetime_wh"] == expected.consumption[1]
    grid = printed.get("grid")
    if expected.grid is None:
        assert grid is None
    else:
        assert grid is not None
        assert (grid["power_w"], grid["import_lifetime_wh"], grid["export_lifetime_wh"]) == expected.grid
        assert grid["import_power_w"] == max(expected.grid[0], 0)
        assert grid["export_power_w"] == max(-expected.grid[0], 0)
    assert sum(kind.startswith("inverter/") for kind in printed) == expected.inverters
    assert tuple(kind for kind in printed if kind.startswith("meter/")) == expected.meters


@pytest.mark.parametrize("model", ["metered-single", "metered-split", "metered-three", "unmetered"])
@pytest.mark.parametrize("firmware", ["5", "8"])
def test_every_simulated_model_gives_what_it_measures(model: str, firmware: str, tmp_path: Path) -> None:
    """Old and new firmware, metered or not, on one phase or several."""
    with simulator(tmp_path, model=model, firmware=firmware, inverters=5) as simulated:
        ended = once(tmp_path, simulated.envoy_url, ENVOY_TOKEN=simulated.token())

    assert ended.returncode == 0, ended.stderr
    printed = readings(ended.stdout)
    assert sum(kind.startswith("inverter/") for kind in printed) == 5
    assert printed["production"]["source"] == ("gateway" if model == "unmetered" else "meter")
    assert ({"consumption", "grid"} <= printed.keys()) == (model != "unmetered")


def test_a_rejected_token_is_reported_in_one_line(tmp_path: Path) -> None:
    """No reading is printed; the line names the gateway, its response, and what to do."""
    with simulator(tmp_path) as simulated:
        ended = once(tmp_path, simulated.envoy_url, ENVOY_TOKEN=with_wrong_signature(simulated.token()))

    assert (ended.returncode, ended.stdout) == (1, "")
    line = ended.stderr.splitlines()[-1]
    for text in (simulated.serial, "the gateway responded with 401", "ENVOY_TOKEN", "fetch another token"):
        assert text in line


@pytest.mark.parametrize(
    "token", ["not.a.token", unsigned_token("122000000099")], ids=["no token", "another gateway's"]
)
def test_a_token_that_is_not_for_the_gateway_is_never_sent(token: str, tmp_path: Path) -> None:
    """Another gateway's token, or none at all: only /info is requested, and the line has the reason."""
    with simulator(tmp_path) as simulated:
        ended = once(tmp_path, simulated.envoy_url, ENVOY_TOKEN=token)
        requested = {response["path"] for response in simulated.request_log.served(server="envoy")}

    assert (ended.returncode, ended.stdout) == (1, "")
    assert requested == {"/info"}
    assert "ENVOY_TOKEN cannot be used for it" in ended.stderr.splitlines()[-1]
    assert token not in ended.stderr


def test_a_gateway_without_any_readable_response_is_reported_in_one_line(tmp_path: Path) -> None:
    """No reading is no success, although every endpoint responded."""
    with simulator(tmp_path) as simulated:
        simulated.faults.add(parse_fault("html:server=envoy:path=/api"))
        simulated.faults.add(parse_fault("html:server=envoy:path=/ivp"))
        simulated.faults.add(parse_fault("html:server=envoy:path=/production"))
        ended = once(tmp_path, simulated.envoy_url, ENVOY_TOKEN=simulated.token())

    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"gateway {simulated.serial} at {simulated.envoy_url}: no response" in ended.stderr.splitlines()[-1]


def test_a_token_with_a_line_break_is_never_printed(tmp_path: Path) -> None:
    """The one that a file ends with is removed; one in the middle is a bad setting."""
    with simulator(tmp_path) as simulated:
        token = simulated.token()
        ended = once(tmp_path, simulated.envoy_url, ENVOY_TOKEN=f"{token}\n")
        broken = once(tmp_path, simulated.envoy_url, ENVOY_TOKEN=f"{token[:40]}\n{token[40:]}")

    assert ended.returncode == 0, ended.stderr
    assert (broken.returncode, broken.stdout, len(broken.stderr.splitlines())) == (2, "", 1)
    assert token[:40] not in broken.stderr


@contextmanager
def gateway_without_tls(folder: Path) -> Iterator[tuple[str, str, list[str | None]]]:
    """Yield host and serial number of a recorded gateway on plain HTTP, and the credentials that it was sent."""
    recording = read_recording(folder)
    credentials: list[str | None] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if authorization := self.headers.get("Authorization"):
                credentials.append(authorization)
            response = recording.respond(Request("GET", self.path))
            self.send_response(response.status)
            self.end_headers()
            self.wfile.write(response.body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", recording.serial, credentials
        server.shutdown()


def test_a_token_goes_over_plain_http_only_where_envoy_host_begins_with_http(tmp_path: Path) -> None:
    """Nor where a fingerprint is given: a server on port 80 knows serial number and firmware, too."""
    folder = BY_NAME["7.6.175_unmetered"].write(tmp_path / "gateway")
    with gateway_without_tls(folder) as (host, serial, credentials):
        token = unsigned_token(serial)
        found = once(tmp_path, host, ENVOY_TOKEN=token)
        given = once(tmp_path, f"http://{host}", ENVOY_TOKEN=token, ENVOY_CERT_FINGERPRINT="0" * 64)
        before = list(credentials)
        wanted = once(tmp_path, f"http://{host}", ENVOY_TOKEN=token)

    assert (found.returncode, found.stdout, given.returncode, before) == (1, "", 1, [])
    assert f"set ENVOY_HOST=http://{host}" in found.stderr.splitlines()[-1]
    assert wanted.returncode == 0, wanted.stderr
    assert set(credentials) == {f"Bearer {token}"}


@pytest.mark.parametrize("name", ["7.6.175_unmetered", "5.0.62_unmetered"])
def test_a_gateway_with_a_pinned_certificate_is_never_read_without_tls(name: str, tmp_path: Path) -> None:
    """Not with ENVOY_HOST=http://, and not with firmware that never had TLS: it may be an impostor."""
    folder = BY_NAME[name].write(tmp_path / "gateway")
    (tmp_path / "poller").mkdir()
    with gateway_without_tls(folder) as (host, serial, credentials):
        (tmp_path / "poller" / f"{serial}.sha256").write_text("0" * 64)
        ended = [once(tmp_path, url, ENVOY_TOKEN=unsigned_token(serial)) for url in (host, f"http://{host}")]

    assert [each.returncode for each in ended] == [1, 1]
    assert all("although the certificate" in each.stderr for each in ended)
    assert credentials == []


def test_a_certificate_that_cannot_be_pinned_ends_the_attempt(tmp_path: Path) -> None:
    """Without a folder for the pin, no credential is sent."""
    with simulator(tmp_path) as simulated:
        (tmp_path / "file").touch()
        ended = once(tmp_path, simulated.envoy_url, ENVOY_TOKEN=simulated.token(), STATE_DIR=str(tmp_path / "file"))
        requested = {response["path"] for response in simulated.request_log.served(server="envoy")}

    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (1, "", 1)
    assert requested == {"/info"}


@pytest.mark.parametrize("pinned", ["", "12ab", "not a fingerprint"])
def test_an_unreadable_pin_is_reported_and_never_replaced(pinned: str, tmp_path: Path) -> None:
    """The line names the file and what to do; no credential is sent."""
    with simulator(tmp_path) as simulated:
        pin = tmp_path / "poller" / f"{simulated.serial}.sha256"
        pin.parent.mkdir()
        pin.write_text(pinned)
        ended = once(tmp_path, simulated.envoy_url, ENVOY_TOKEN=simulated.token())
        requested = {response["path"] for response in simulated.request_log.served(server="envoy")}

    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (1, "", 1)
    assert str(pin) in ended.stderr
    assert "--accept-certificate" in ended.stderr
    assert (pin.read_text(), requested) == (pinned, {"/info"})


def test_another_certificate_than_the_pinned_one_gets_no_credential(tmp_path: Path) -> None:
    """The message names both fingerprints and how to accept the new one."""
    with simulator(tmp_path) as simulated:
        assert once(tmp_path, simulated.envoy_url, ENVOY_TOKEN=simulated.token()).returncode == 0
        token = simulated.token()
    for certificate in (tmp_path / "simulator").glob("gateway-*.pem"):
        certificate.unlink()
    with simulator(tmp_path) as impostor:
        ended = once(tmp_path, impostor.envoy_url, ENVOY_TOKEN=token)
        requested = {response["path"] for response in impostor.request_log.served(server="envoy")}

    pin = next((tmp_path / "poller").glob("*.sha256"))
    assert (ended.returncode, ended.stdout) == (1, "")
    for text in ("no credential was sent", pin.read_text().splitlines()[0], "--accept-certificate"):
        assert text in ended.stderr
    assert requested == {"/info"}


def test_a_host_that_does_not_respond_is_reported_in_one_line(tmp_path: Path) -> None:
    """Exit code 1, no stack trace."""
    ended = once(tmp_path, "http://127.0.0.1:1")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1


def test_a_missing_token_is_reported_with_both_ways_to_provide_one(tmp_path: Path) -> None:
    """Without ENVOY_TOKEN and without a broker."""
    with simulator(tmp_path) as simulated:
        ended = once(tmp_path, simulated.envoy_url)

    assert ended.returncode == 1
    assert "set ENVOY_TOKEN, or start token_broker" in ended.stderr.splitlines()[-1]


def test_the_token_at_the_broker_is_used_where_there_is_no_other(tmp_path: Path, broker: Server) -> None:
    """--once takes the retained one."""
    with simulator(tmp_path) as simulated:
        settings = MqttSettings(host=HOST, port=broker.port, client_id="token-broker")
        token = parse_token(simulated.token(), now=0)
        with Connection(settings, stop=threading.Event(), persistent_session=False) as connection:
            topic = connection.topics.token(simulated.serial)
            connection.publish(topic, token.to_json(), retain=True).result(10)
        ended = once(tmp_path, simulated.envoy_url, MQTT_PORT=str(broker.port))

    assert ended.returncode == 0, ended.stderr
    assert "production" in readings(ended.stdout)


def test_pretty_prints_a_table(tmp_path: Path) -> None:
    """House, meters and inverters, with units."""
    with simulator(tmp_path, model="metered-split", batteries=1) as simulated:
        ended = once(tmp_path, simulated.envoy_url, "--once", "--pretty", ENVOY_TOKEN=simulated.token(), COLUMNS="120")

    assert ended.returncode == 0, ended.stderr
    for text in (simulated.serial, "production", "import", "batteries", "phase 2", "Hz", "inverter", "kWh"):
        assert text in ended.stdout


def test_several_gateways_are_read_once_each(tmp_path: Path) -> None:
    """ENVOYS names them; each reading is under its own gateway's serial."""
    with (
        simulator(tmp_path / "a", serial="122000000001") as first,
        simulator(tmp_path / "b", serial="122000000002", firmware="5") as second,
    ):
        gateways = [{"host": first.envoy_url, "token": first.token()}, {"host": second.envoy_url}]
        ended = once(tmp_path, "unused", ENVOYS=json.dumps(gateways))

    assert ended.returncode == 0, ended.stderr
    topics = [json.loads(line)["topic"].split("/") for line in ended.stdout.splitlines()]
    assert {topic[1] for topic in topics if topic[3] == "grid"} == {"122000000001", "122000000002"}


def test_check_reports_what_is_measured(tmp_path: Path, broker: Server) -> None:
    """One line each: gateway, certificate, clock, authentication, each kind with its source, broker."""
    with simulator(tmp_path) as simulated:
        settings = {"ENVOY_TOKEN": simulated.token(), "MQTT_PORT": str(broker.port)}
        ended = once(tmp_path, simulated.envoy_url, "--check", **settings)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    for text in (
        f"gateway {simulated.serial}: found at {simulated.envoy_url}",
        "certificate: SHA-256",
        "clock: agrees",
        "authentication: the gateway accepts ENVOY_TOKEN",
        "production: measured by the meter",
        "battery: not measured",
        "inverter: measured, 12 of them",
        "meters: net-consumption, production",
        f"broker localhost:{broker.port}: accepts",
    ):
        assert any(text in line for line in lines), text


def test_check_reports_what_fails_and_what_to_do(tmp_path: Path) -> None:
    """A rejected token, and a broker that does not respond."""
    with simulator(tmp_path) as simulated:
        rejected = with_wrong_signature(simulated.token())
        ended = once(tmp_path, simulated.envoy_url, "--check", ENVOY_TOKEN=rejected)

    assert ended.returncode == 1
    failed = [line for line in ended.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 2
    assert "fetch another token" in failed[0]
    assert "MQTT_HOST" in failed[1]
