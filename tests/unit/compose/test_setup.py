import socket
import ssl
import stat
import sys
from pathlib import Path

import pytest

from deploy.compose import __main__ as setup
from deploy.compose.__main__ import (
    ACCOUNTS,
    DEMO_SETTINGS,
    MQTT_FOLDERS,
    SetupSettings,
    create_certificates,
    main,
    prepare,
)
from tests.conftest import Server
from tests.faults.pipeline import mosquitto
from tests.handshake import shake_hands

EMPTY_ENV_FILE = SetupSettings()
FOLDERS = ("mosquitto", "grafana", *ACCOUNTS.values())


@pytest.fixture(autouse=True)
def _without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove a developer's settings."""
    for name in SetupSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Return empty volumes."""
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    """Return every file of a folder."""
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_each_account_gets_a_password_of_its_own(volumes: Path) -> None:
    """No two passwords are equal, and only owner and group can read one."""
    prepare(volumes, SetupSettings(envoy_host="10.0.0.2"))

    files = [*volumes.glob("*/*password"), volumes / "grafana" / "secret_key"]
    assert len({file.read_text() for file in files}) == len(files) == len(ACCOUNTS) + 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o440}


def test_a_second_start_changes_nothing_and_prints_no_password(
    volumes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The passwords that a user needs are printed at the first start only, the others never."""
    prepare(volumes, EMPTY_ENV_FILE)
    before = {folder: contents(volumes / folder) for folder in FOLDERS}
    printed = capsys.readouterr().out
    prepare(volumes, EMPTY_ENV_FILE)

    for account in ("viewer", "grafana"):
        for name, secret in before[account].items():
            assert name == "secret_key" or secret in printed
    assert before["poller"]["mqtt_password"] not in printed
    assert "password" not in capsys.readouterr().out
    for folder in FOLDERS:
        after = contents(volumes / folder)
        # Mosquitto's file has a new salt for each password.
        assert after | {"passwords": ""} == before[folder] | {"passwords": ""}


@pytest.mark.mosquitto
def test_mosquitto_reads_the_password_file(volumes: Path, tmp_path: Path) -> None:
    """A real broker accepts an account with its own password, and with no other."""
    prepare(volumes, EMPTY_ENV_FILE)
    rules = ["allow_anonymous false", f"password_file {volumes / 'mosquitto' / 'passwords'}"]
    with mosquitto(tmp_path, rules) as broker:
        assert accepts(broker, "viewer", (volumes / "viewer" / "mqtt_password").read_text())
        assert not accepts(broker, "viewer", (volumes / "poller" / "mqtt_password").read_text())


def accepts(broker: Server, account: str, password: str) -> bool:
    """Return whether the broker accepts an MQTT 3.1.1 CONNECT."""
    fields = b"".join(len(text).to_bytes(2) + text for text in (b"test", account.encode(), password.encode()))
    body = b"\x00\x04MQTT\x04\xc2\x00\x0a" + fields
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as connection:
        connection.sendall(b"\x10" + len(body).to_bytes(1) + body)
        return connection.recv(4) == b"\x20\x02\x00\x00"


def test_without_a_gateway_the_simulated_one_is_used(volumes: Path) -> None:
    """Poller and token_broker find its address among their secrets."""
    prepare(volumes, EMPTY_ENV_FILE)

    for service, demo in DEMO_SETTINGS.items():
        assert demo.items() <= contents(volumes / service).items()


@pytest.mark.parametrize("setting", ["envoy_host", "envoys", "envoy_token", "enlighten_email", "enlighten_password"])
def test_any_setting_of_a_real_gateway_or_account_ends_the_demo(volumes: Path, setting: str) -> None:
    """A real password is never sent to the simulated address, nor the demo's to the real one."""
    prepare(volumes, EMPTY_ENV_FILE)
    prepare(volumes, SetupSettings.model_validate({setting: "given"}))

    for service, demo in DEMO_SETTINGS.items():
        assert not demo.keys() & contents(volumes / service).keys()


def test_tls_is_switched_on_and_off_for_all_clients(volumes: Path) -> None:
    """Each MQTT client has it as a file; certificates are created once and kept."""
    prepare(volumes, SetupSettings(mqtt_tls=True))
    created = contents(volumes / "mosquitto")["server.crt"]
    for folder in MQTT_FOLDERS:
        assert contents(volumes / folder)["mqtt_port"] == "8883"
        assert "BEGIN CERTIFICATE" in contents(volumes / folder)["ca.crt"]
    prepare(volumes, EMPTY_ENV_FILE)
    for folder in MQTT_FOLDERS:
        assert "mqtt_tls" not in contents(volumes / folder)
    prepare(volumes, SetupSettings(mqtt_tls=True))

    assert contents(volumes / "mosquitto")["server.crt"] == created
    assert [*volumes.glob("*/server.key")] == [volumes / "mosquitto" / "server.key"]


def verify(volumes: Path, name: str) -> None:
    """Connect to the broker as the poller does. Raises ssl.SSLError."""
    broker = volumes / "mosquitto"
    shake_hands(broker / "server.crt", broker / "server.key", volumes / "poller" / "ca.crt", name)


def test_certificates_are_valid_for_the_requested_names_only(volumes: Path) -> None:
    """A client that trusts the stack's authority accepts the broker under each name, and under no other."""
    create_certificates(volumes, ("mosquitto", "pi.lan", "192.168.1.5"))

    for name in ("mosquitto", "pi.lan", "192.168.1.5"):
        verify(volumes, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        verify(volumes, "elsewhere.lan")


def test_certificates_can_be_requested_for_more_names(volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names inside the stack stay valid."""
    monkeypatch.setattr(setup, "VOLUMES", volumes)
    monkeypatch.setattr(sys, "argv", ["setup", "--certificates", "pi.lan"])

    assert main() == 0

    for name in ("mosquitto", "127.0.0.1", "pi.lan"):
        verify(volumes, name)


def test_a_folder_that_cannot_be_written_is_reported(
    volumes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message has the volume, and the exit code is 1."""

    def fail(file: Path, _text: str) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(setup, "VOLUMES", volumes)
    monkeypatch.setattr(setup, "write_secret", fail)
    monkeypatch.setattr(sys, "argv", ["setup"])

    assert main() == 1
    assert f"{volumes / 'mosquitto'} cannot be written" in capsys.readouterr().err
