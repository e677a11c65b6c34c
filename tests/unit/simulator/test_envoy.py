"""The simulated Envoy: authentication, and the shapes of its responses."""

import hashlib
import json
import re
import socket
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec
from requests.auth import HTTPDigestAuth

from services.simulator import authentication
from services.simulator.clock import Clock
from services.simulator.control_client import ControlClient
from services.simulator.digest import DigestVerifier
from services.simulator.envoy_responses import ENDPOINTS, envoy_response
from services.simulator.response import Request
from services.simulator.settings import SimulatorSettings
from services.simulator.simulator import Simulator, build_gateway
from services.simulator.tokens import TokenIssuer

Start = Callable[..., Simulator]
Read = Callable[..., requests.Response]
Control = Callable[[Simulator], ControlClient]

READINGS = "/ivp/meters/readings"


def test_info_needs_no_authentication(start: Start, read: Read) -> None:
    """Serial number, firmware and metering are public."""
    for model, firmware, metered in (("metered-single", "8", "true"), ("unmetered", "5", "false")):
        simulator = start(model=model, firmware=firmware)
        response = read(simulator, "/info", token=None)
        assert response.status_code == 200
        info = ET.fromstring(response.content)
        assert info.findtext("device/sn") == simulator.serial
        assert info.findtext("device/imeter") == metered
        assert re.match(rf"D{firmware}\.", info.findtext("device/software") or "")
        assert (info.findtext("web-tokens") == "true") == (firmware == "8")
        assert read(simulator, "/info.xml", token=None).content[:60] == response.content[:60]


def test_without_a_token_every_other_path_is_the_401_page(start: Start, read: Read) -> None:
    """Firmware 8 responds with HTML, not with JSON."""
    simulator = start()
    for path in (READINGS, "/production.json", "/api/v1/production", "/home", "/auth/check_jwt"):
        response = read(simulator, path, token=None)
        assert (response.status_code, response.headers["Content-Type"]) == (401, "text/html")
        assert "401 Authorization Required" in response.text


def test_a_foreign_or_expired_token_is_rejected(start: Start, read: Read) -> None:
    """A token is valid if this Enlighten signed it for this gateway and it has not expired."""
    simulator = start()
    other_issuer = TokenIssuer(ec.generate_private_key(ec.SECP256R1()))
    good = simulator.token()
    tampered = f"{good[:-8]}AAAAAAAA"
    bad = [
        simulator.token("122000000000"),
        simulator.token(lifetime_s=-1),
        other_issuer.issue(simulator.serial, "owner", "x"),
        tampered,
        "not.a.token",
        "nonsense",
    ]
    assert [read(simulator, READINGS, token=token).status_code for token in bad] == [401] * 6
    assert read(simulator, READINGS, token=good).status_code == 200


def test_a_token_expires_while_it_is_used(start: Start, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its expiry on it is rejected, although it was verified before."""
    simulator = start()
    token = simulator.token(lifetime_s=60)
    assert read(simulator, READINGS, token=token).status_code == 200
    now = time.time()
    monkeypatch.setattr("services.simulator.tokens.time.time", lambda: now + 61)
    assert read(simulator, READINGS, token=token).status_code == 401


def test_a_session_cookie_is_valid_for_ten_minutes_after_its_last_use(
    start: Start, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """check_jwt starts a session, which each use extends."""
    simulator = start()
    for method in ("GET", "POST"):
        started = read(simulator, "/auth/check_jwt", method=method)
        assert started.status_code == 200
        assert "Valid token" in started.text
    cookies = {"sessionId": started.cookies["sessionId"]}
    now = time.monotonic()

    def status_after(seconds: float) -> int:
        clock = type("Time", (), {"monotonic": staticmethod(lambda: now + seconds)})
        monkeypatch.setattr(authentication, "time", clock)
        return read(simulator, READINGS, token=None, cookies=cookies).status_code

    assert [status_after(seconds) for seconds in (500, 1000, 1590, 2200)] == [200, 200, 200, 401]
    assert read(simulator, READINGS, token=None, cookies={"sessionId": "made-up"}).status_code == 401


def test_firmware_5_requires_a_digest(start: Start, read: Read) -> None:
    """It accepts user envoy with the last six digits of the serial number, and no wrong password and no token."""
    simulator = start(firmware="5", installer_password="abc")
    assert simulator.envoy_url.startswith("http:")
    path = "/production.json?details=1"
    good = [HTTPDigestAuth("envoy", simulator.serial[-6:]), HTTPDigestAuth("installer", "abc")]
    bad = [HTTPDigestAuth("envoy", "000000"), HTTPDigestAuth("owner", simulator.serial[-6:])]
    assert [read(simulator, path, token=None, auth=auth).status_code for auth in good] == [200, 200]
    assert [read(simulator, path, token=None, auth=auth).status_code for auth in bad] == [401, 401]
    refused = read(simulator, path)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith('Digest realm="')


def test_a_digest_with_an_expired_nonce_is_stale_and_one_for_another_path_is_invalid() -> None:
    """A valid digest of an expired challenge is stale; one that was computed for another path is rejected."""

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    def authorization(check: DigestVerifier, uri: str) -> str:
        challenge = check.challenge()
        realm, nonce = (re.search(rf'{name}="([^"]+)"', challenge)[1] for name in ("realm", "nonce"))  # type: ignore[index]
        proof = md5(f"{md5(f'envoy:{realm}:123456')}:{nonce}:00000001:c:auth:{md5(f'GET:{uri}')}")
        return (
            f'Digest username="envoy", realm="{realm}", nonce="{nonce}", uri="{uri}", response="{proof}", '
            'qop=auth, nc=00000001, cnonce="c"'
        )

    check, old = DigestVerifier({"envoy": "123456"}), DigestVerifier({"envoy": "123456"}, nonce_lifetime_s=0)
    assert check.verify("GET", "/a", authorization(check, "/a")) is True
    assert check.verify("GET", "/b", authorization(check, "/a")) is False
    assert check.verify("GET", "/a", authorization(old, "/a")) is False
    assert check.verify("GET", "/a", "Digest nonsense") is False
    assert old.verify("GET", "/a", authorization(old, "/a")) is None
    assert "stale=true" in old.challenge(stale=True)


def test_authentication_can_be_switched_off(start: Start, read: Read) -> None:
    """Then a request without a token is accepted."""
    assert read(start(auth=False), READINGS, token=None).status_code == 200


@pytest.mark.parametrize(
    ("model", "phases", "mode"), [("single", 1, "three"), ("split", 2, "split"), ("three", 3, "three")]
)
def test_meters_have_three_channels_and_totals_that_are_their_sums(
    start: Start, read: Read, model: str, phases: int, mode: str
) -> None:
    """As on a real gateway: unused channels are zero, voltage and current are sums, a single phase has mode three."""
    simulator = start(model=f"metered-{model}", batteries=1)
    meters = read(simulator, "/ivp/meters").json()
    assert [meter["measurementType"] for meter in meters] == ["production", "net-consumption", "storage"]
    assert {(meter["phaseMode"], meter["phaseCount"]) for meter in meters} == {(mode, phases)}
    readings = read(simulator, READINGS).json()
    assert [reading["eid"] for reading in readings] == [meter["eid"] for meter in meters]
    summed = ("activePower", "voltage", "current", "apparentPower", "reactivePower", "actEnergyDlvd", "actEnergyRcvd")
    for reading in readings:
        channels = reading["channels"]
        assert len(channels) == 3
        assert all(isinstance(entry["timestamp"], int) for entry in (reading, *channels))
        for key in summed:
            assert reading[key] == pytest.approx(sum(channel[key] for channel in channels), abs=1e-6)
            assert all(channel[key] == 0 for channel in channels[phases:])
        assert reading["freq"] == pytest.approx(60 if model == "split" else 50, abs=0.1)
        for channel in channels[:phases]:
            assert channel["voltage"] == pytest.approx(120 if model == "split" else 230, abs=8)
            assert abs(channel["pwrFactor"]) <= 1


def test_production_json_adds_up_and_agrees_with_the_meters(start: Start, read: Read) -> None:
    """Consumption is production plus net to the last digit; lifetimes are those of the meter readings."""
    simulator = start(model="metered-three", batteries=2)
    simulator.clock.speed = 0
    body = read(simulator, "/production.json?details=1").json()
    own, (total, net) = body["production"][1], body["consumption"]
    production, grid, _ = read(simulator, READINGS).json()
    for one, other, both in zip([own, *own["lines"]], [net, *net["lines"]], [total, *total["lines"]], strict=True):
        assert both["wNow"] == round(one["wNow"] + other["wNow"], 3)
    assert own["wNow"] == production["activePower"]
    assert own["whLifetime"] == production["actEnergyDlvd"]
    assert net["wNow"] == grid["activePower"]
    assert net["whLifetime"] == pytest.approx(grid["actEnergyDlvd"] - grid["actEnergyRcvd"], abs=0.005)
    own_wh = production["actEnergyDlvd"] - production["actEnergyRcvd"]
    assert total["whLifetime"] == pytest.approx(own_wh + net["whLifetime"], abs=0.02)
    assert net["whToday"] == 0
    assert own["rmsVoltage"] == pytest.approx(3 * 230, abs=20)
    assert body["production"][0]["wNow"] == pytest.approx(own["wNow"], rel=0.5)
    assert "lines" not in read(simulator, "/production.json").json()["production"][1]
    v1 = read(simulator, "/api/v1/production").json()
    assert (v1["wattsNow"], v1["wattHoursToday"]) == (round(own["wNow"]), round(own["whToday"]))
    energy = read(simulator, "/ivp/pdm/energy").json()
    assert energy["production"]["eim"]["wattHoursLifetime"] == round(own["whLifetime"])
    assert energy["consumption"]["eim"]["wattHoursToday"] == pytest.approx(total["whToday"], abs=1)
    reports = read(simulator, "/ivp/meters/reports").json()
    assert [report["reportType"] for report in reports] == ["production", "net-consumption", "total-consumption"]
    assert reports[2]["cumulative"]["currW"] == total["wNow"]


def test_an_unmetered_gateway_has_inverters_only(start: Start, read: Read) -> None:
    """Without meters and consumption, it has the inverters' reports."""
    simulator = start(model="unmetered", inverters=7)
    assert read(simulator, "/ivp/meters").json() == []
    assert read(simulator, READINGS).json() == []
    body = read(simulator, "/production.json").json()
    assert [section["type"] for section in body["production"]] == ["inverters"]
    assert "consumption" not in body
    inverters = read(simulator, "/api/v1/production/inverters").json()
    assert len(inverters) == 7
    v1 = read(simulator, "/api/v1/production").json()
    assert v1["wattsNow"] == sum(inverter["lastReportWatts"] for inverter in inverters) > 0


def test_responses_at_night_have_the_quirks_of_real_gateways(start: Start, read: Read) -> None:
    """Negative production, unsigned in /ivp/pdm/energy; some paths keep the inverters' last report."""
    simulator = start(start="2026-06-21T01:00")
    assert -5 < read(simulator, READINGS).json()[0]["activePower"] < 0
    assert read(simulator, "/ivp/pdm/energy").json()["production"]["eim"]["wattsNow"] > 2**32 - 6
    section = read(simulator, "/production.json").json()["production"][0]
    assert (section["readingTime"], section["wNow"]) == (0, 0)
    assert all(inverter["lastReportDate"] > 0 for inverter in read(simulator, "/api/v1/production/inverters").json())
    assert all(device["modGone"] for device in devices(read(simulator, "/ivp/pdm/device_data").json()))


def devices(device_data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the devices of device_data."""
    return [device for device in device_data.values() if isinstance(device, dict)]


def test_device_data_agrees_with_the_inverters_and_ends_after_fifty(start: Start, read: Read) -> None:
    """Watts are joules divided by seconds; of sixty inverters there are fifty, and the count is fifty too."""
    simulator = start(inverters=60)
    simulator.clock.speed = 0
    body = read(simulator, "/ivp/pdm/device_data").json()
    assert body["deviceCount"] == body["deviceDataLimit"] == 50 == len(devices(body))
    reported = {
        inverter["serialNumber"]: inverter for inverter in read(simulator, "/api/v1/production/inverters").json()
    }
    assert len(reported) == 60
    for device in devices(body):
        channel = device["channels"][0]
        reading = channel["lastReading"]
        assert channel["watts"]["now"] == reported[device["sn"]]["lastReportWatts"]
        assert channel["watts"]["now"] == round(reading["joulesProduced"] / reading["duration"])
        assert reading["endDate"] == reported[device["sn"]]["lastReportDate"]


def test_batteries_agree_with_the_storage_meter(start: Start, read: Read) -> None:
    """The sum of their powers is the meter's; the key ends in a colon, as on real gateways."""
    simulator = start(batteries=3, start="2026-06-21T21:00")
    simulator.clock.speed = 0
    power = read(simulator, "/ivp/ensemble/power").json()["devices:"]
    storage = read(simulator, READINGS).json()[2]
    assert sum(battery["real_power_mw"] for battery in power) == pytest.approx(1000 * storage["activePower"], abs=5)
    inventory = {group["type"]: group["devices"] for group in read(simulator, "/ivp/ensemble/inventory").json()}
    assert [battery["serial_num"] for battery in inventory["ENCHARGE"]] == [battery["serial_num"] for battery in power]
    assert inventory["ENPOWER"][0]["mains_oper_state"] == "closed"
    secctrl = read(simulator, "/ivp/ensemble/secctrl").json()
    assert secctrl["Enc_max_available_capacity"] == 15000
    assert secctrl["ENC_agg_soc"] == round(100 * secctrl["ENC_agg_avail_energy"] / 15000) == power[0]["soc"]


def test_a_missing_path_has_the_response_of_its_firmware(start: Start, read: Read) -> None:
    """404 as JSON under /ivp, a redirect to an error page elsewhere; firmware 5 has no ensemble and no /production."""
    simulator = start()
    missing = read(simulator, "/ivp/nonsense")
    assert (missing.status_code, missing.json()) == (404, {"error": "404 - Not Found"})
    assert read(simulator, "/nonsense", allow_redirects=False).status_code == 301
    assert read(simulator, "/").status_code == 404
    assert read(simulator, READINGS, method="POST").status_code == 405
    old = start(firmware="5")
    digest = HTTPDigestAuth("envoy", old.serial[-6:])
    assert read(old, "/ivp/ensemble/inventory", token=None, auth=digest).status_code == 404
    assert read(old, "/production", token=None, auth=digest).status_code == 401
    assert read(start(firmware="7"), "/ivp/pdm/device_data").status_code == 404


@pytest.mark.parametrize("batteries", [0, 2])
def test_every_path_returns_json_on_every_model(batteries: int) -> None:
    """With and without batteries."""
    for model in ("metered-single", "metered-split", "metered-three", "unmetered"):
        settings = SimulatorSettings.model_validate(
            {"model": model, "batteries": batteries, "commissioned": "2026-06-20", "start": "2026-06-21T00:10"}
        )
        with TemporaryDirectory() as folder:
            gateway = build_gateway(settings.model_copy(update={"state_dir": Path(folder)}), Clock(settings.start_time))
            for path in ("/production", "/production.json", *ENDPOINTS):
                response = envoy_response(gateway.model, gateway.state(), path, "details=1")
                assert response.status == 200, path
                json.loads(response.body)


def test_the_sum_of_inverters_wraps_before_firmware_8(start: Start, read: Read) -> None:
    """In production.json it stays below 2^32 joules on firmware 7, and is complete on 8."""
    many = {"model": "unmetered", "inverters": 300}

    def sums(firmware: str) -> tuple[int, int]:
        simulator = start(firmware=firmware, **many)
        simulator.clock.speed = 0
        production = read(simulator, "/production.json").json()["production"][0]["whLifetime"]
        return production, read(simulator, "/api/v1/production").json()["wattHoursLifetime"]

    whole, v1 = sums("8")
    wrapped, v1_of_7 = sums("7")
    assert whole == v1 == v1_of_7 > 2**32 // 3600 > wrapped
    assert (v1 - wrapped) % (2**32 // 3600) == 0


def test_https_on_a_plain_port_is_closed_at_once(start: Start) -> None:
    """A client that tries HTTPS first falls back without a timeout."""
    simulator = start(firmware="5")
    port = int(simulator.envoy_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(b"\x16\x03\x01\x00\x05hello")
        assert connection.recv(100) == b""


def test_slow_paths_are_slower_than_the_others(start: Start, read: Read) -> None:
    """/production and others have the delay of the setting; the meter readings do not."""
    simulator = start(slow_answers_s=0.3)
    assert read(simulator, "/production.json").elapsed.total_seconds() >= 0.3
    assert read(simulator, READINGS).elapsed.total_seconds() < 0.3


def test_counters_continue_after_a_restart(start: Start, read: Read) -> None:
    """At the same simulated time the gateway serves the same numbers, and accepts the same token."""
    first = start(start="2026-06-21T12:00", speed=1e-6)
    before, token = read(first, READINGS).json(), first.token()
    first.stop()
    second = start(start="2026-06-21T12:00", speed=1e-6)
    assert read(second, READINGS, token=token).json() == before


def test_the_clock_runs_at_its_speed_from_its_start(start: Start, read: Read, control: Control) -> None:
    """Timestamps are those of the simulated clock, which can be moved forward."""
    simulator = start(start="2026-06-21T06:00", speed=3600)
    begin = 1782014400  # 06:00 in central European summer
    clock = control(simulator).clock()
    assert begin <= clock["now"] < begin + 4 * 3600
    assert clock["speed"] == 3600
    stamp = read(simulator, READINGS).json()[0]["timestamp"]
    assert clock["now"] - 1 <= stamp
    assert control(simulator).clock(advance_s=86400)["now"] >= clock["now"] + 86400
    assert read(simulator, READINGS).json()[0]["timestamp"] >= stamp + 86400


def test_the_request_log_has_what_was_served(start: Start, read: Read, control: Control) -> None:
    """A test can compare what arrived elsewhere with the bodies that were sent."""
    simulator = start()
    body = read(simulator, "/production.json?details=1").text
    read(simulator, "/production.json", token=None)
    client = control(simulator)
    first, second = client.served("envoy", "/production.json")
    assert (first["body"], first["status"], first["path"]) == (body, 200, "/production.json?details=1")
    assert second["status"] == 401
    assert client.served("envoy", "/production.json?details=1") == [first]
    assert {"server": "envoy", "path": "/production.json", "status": 401, "count": 1} in client.counters()["requests"]


def test_private_keys_can_be_read_by_their_owner_only(start: Start, state_dir: Path) -> None:
    """Whatever the umask."""
    start()
    for file in state_dir.glob("*.pem"):
        assert file.stat().st_mode & 0o077 == 0


def test_numbers_have_the_types_of_real_gateways(start: Start, read: Read) -> None:
    """Integers for inverters, floats with three decimals for meters."""
    simulator = start()
    inverters = read(simulator, "/api/v1/production/inverters").json()
    assert all(isinstance(inverter["lastReportWatts"], int) for inverter in inverters)
    text = read(simulator, READINGS).text
    assert re.search(r"\d\.\d{4}", text) is None
    assert isinstance(json.loads(text)[0]["activePower"], float)


def test_a_request_without_headers_is_rejected() -> None:
    """Without an error."""
    issuer = TokenIssuer(ec.generate_private_key(ec.SECP256R1()))
    rejection = authentication.TokenAuthentication(issuer, "1").authenticate(Request("GET", "/home"))
    assert rejection is not None
    assert rejection.status == 401
