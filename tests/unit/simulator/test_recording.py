"""A gateway from a folder: bodies, status codes and headers as recorded."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from requests.auth import HTTPDigestAuth

from services.simulator.recording import InvalidRecording, read_recording
from services.simulator.simulator import Simulator

Start = Callable[..., Simulator]
Read = Callable[..., requests.Response]


def info(serial: str, software: str) -> str:
    """Return an /info body."""
    return f"<envoy_info><device><sn>{serial}</sn><software>{software}</software></device></envoy_info>"


def record(folder: Path, name: str, body: str, code: int | None = None, **headers: str) -> None:
    """Write one recorded response."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(body)
    if code is not None:
        (folder / f"{name}_log.json").write_text(json.dumps({"headers": headers, "code": code}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the recording of a firmware 7, with unusual responses."""
    folder = tmp_path / "recorded"
    record(folder, "info", info("122000000005", "D7.3.130"), 200, **{"content-type": "text/xml"})
    record(folder, "ivp_meters_readings", "[]")
    record(folder, "production.json", '{"plain": 1}', 200, **{"Content-Length": "9", "Transfer-Encoding": "chunked"})
    record(folder, "production.json_details_1", '{"details": 1}')
    record(folder, "ivp_ensemble_power", "<html>no</html>", 401, **{"content-type": "text/html", "x-odd": "yes"})
    return folder


def test_a_recording_responds_as_recorded(start: Start, read: Read, folder: Path) -> None:
    """With the recorded status and headers, except for the length, which is that of the body."""
    simulator = start(recording=folder)
    assert simulator.serial == "122000000005"
    assert read(simulator, "/info", token=None).headers["Content-Type"] == "text/xml"
    assert read(simulator, "/production.json").json() == {"plain": 1}
    assert read(simulator, "/production.json?details=1").json() == {"details": 1}
    assert read(simulator, "/ivp/meters/readings").text == "[]"
    odd = read(simulator, "/ivp/ensemble/power")
    assert (odd.status_code, odd.text, odd.headers["X-Odd"]) == (401, "<html>no</html>", "yes")
    assert read(simulator, "/ivp/meters").status_code == 404
    assert read(simulator, "/info_log.json").status_code == 404


def test_a_recording_authenticates_as_its_firmware_does(start: Start, read: Read, folder: Path) -> None:
    """Firmware 7 requires a token for the recorded serial, older firmware a digest, unless authentication is off."""
    simulator = start(recording=folder)
    assert read(simulator, "/production.json", token=None).status_code == 401
    assert read(simulator, "/production.json", token=simulator.token("122098765432")).status_code == 401
    assert read(start(recording=folder, auth=False), "/production.json", token=None).status_code == 200
    record(folder, "info", info("122000000006", "R3.9.36"))
    old = start(recording=folder)
    assert old.envoy_url.startswith("http:")
    assert read(old, "/production.json", token=None).status_code == 401
    assert read(old, "/production.json", token=None, auth=HTTPDigestAuth("envoy", "000006")).status_code == 200


def test_a_folder_that_is_no_recording_is_rejected(tmp_path: Path) -> None:
    """The message has the file and what is wrong with it."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidRecording, match="no file named info"):
        read_recording(empty)
    record(empty, "info", "<html>")
    with pytest.raises(InvalidRecording, match="no serial number"):
        read_recording(empty)
    (empty / "info_log.json").write_text("[]")
    with pytest.raises(InvalidRecording, match="info_log"):
        read_recording(empty)
    with pytest.raises(InvalidRecording, match="cannot be read"):
        read_recording(tmp_path / "missing")
