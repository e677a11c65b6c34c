import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from deploy.compose.__main__ import ACCOUNTS, DEMO_SETTINGS, SetupSettings, create_certificates, prepare
from tests.conftest import Server
from tests.faults.pipeline import mosquitto

NOTHING_FILLED_IN = SetupSettings()
FOLDERS = ("mosquitto", "grafana", *ACCOUNTS.values())


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of a developer's is seen."""
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
    """No two are alike, and nobody but owner and group may read one."""
    prepare(volumes, SetupSettings(envoy_host="10.0.0.2"))

    files = [*volumes.glob("*/*password"), volumes / "grafana" / "secret_key"]
    assert len({file.read_text() for file in files}) == len(files) == len(ACCOUNTS) + 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o440}


def test_a_second_time_nothing_changes_and_nothing_is_told(volumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """People are told their passwords at the first start, and only then."""
    prepare(volumes, NOTHING_FILLED_IN)
    before = {folder: contents(volumes / folder) for folder in FOLDERS}
    told = capsys.readouterr().out
    prepare(volumes, NOTHING_FILLED_IN)

    for account in ("viewer", "grafana"):
        for name, secret in before[account].items():
            assert name == "secret_key" or secret in told
    assert before["poller"]["mqtt_password"] not in told
    assert "password" not in capsys.readouterr().out
    for folder in FOLDERS:
        after = contents(volumes / folder)
        assert {name: after[name] for name in after if name != "passwords"} == {
            name: before[folder][name] for name in after if name != "passwords"
        }


@pytest.mark.mosquitto
def test_mosquitto_reads_the_password_file(volumes: Path, tmp_path: Path) -> None:
    """A real broker lets an account in with its password, and with no other."""
    prepare(volumes, NOTHING_FILLED_IN)
    rules = ["allow_anonymous false", f"password_file {volumes / 'mosquitto' / 'passwords'}"]
    with mosquitto(tmp_path, rules) as broker:
        assert lets_in(broker, "viewer", (volumes / "viewer" / "mqtt_password").read_text())
        assert not lets_in(broker, "viewer", (volumes / "poller" / "mqtt_password").read_text())


def lets_in(broker: Server, account: str, password: str) -> bool:
    """Return what the broker says to an MQTT 3.1.1 CONNECT."""
    fields = b"".join(len(text).to_bytes(2) + text for text in (b"test", account.encode(), password.encode()))
    body = b"\x00\x04MQTT\x04\xc2\x00\x0a" + fields
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as connection:
        connection.sendall(b"\x10" + len(body).to_bytes(1) + body)
        return connection.recv(4) == b"\x20\x02\x00\x00"


def test_until_a_house_is_named_the_simulated_one_is_read(volumes: Path) -> None:
    """Poller and token_broker find it among their secrets."""
    prepare(volumes, NOTHING_FILLED_IN)

    for service, demo in DEMO_SETTINGS.items():
        assert demo.items() <= contents(volumes / service).items()


@pytest.mark.parametrize("filled_in", ["envoy_host", "envoys", "envoy_token", "enlighten_email", "enlighten_password"])
def test_nothing_of_the_demo_is_left_once_anything_of_a_house_is_named(volumes: Path, filled_in: str) -> None:
    """A real password never meets the simulated address, nor a made-up one the real address."""
    prepare(volumes, NOTHING_FILLED_IN)
    prepare(volumes, SetupSettings.model_validate({filled_in: "given"}))

    for service, demo in DEMO_SETTINGS.items():
        assert not demo.keys() & contents(volumes / service).keys()


def test_tls_is_switched_on_and_off_for_all_at_once(volumes: Path) -> None:
    """Whoever speaks MQTT learns it from a file of its own; certificates are made when first needed, and stay."""
    prepare(volumes, SetupSettings(mqtt_tls=True))
    made = contents(volumes / "mosquitto")["server.crt"]
    for folder in ("mosquitto", *ACCOUNTS.values()):
        assert contents(volumes / folder)["mqtt_port"] == "8883"
        assert "BEGIN CERTIFICATE" in contents(volumes / folder)["ca.crt"]
    prepare(volumes, NOTHING_FILLED_IN)
    for folder in ("mosquitto", *ACCOUNTS.values()):
        assert "mqtt_tls" not in contents(volumes / folder)
    prepare(volumes, SetupSettings(mqtt_tls=True))

    assert contents(volumes / "mosquitto")["server.crt"] == made
    assert [*volumes.glob("*/server.key")] == [volumes / "mosquitto" / "server.key"]


@pytest.mark.parametrize("name", ["mosquitto", "pi.lan", "192.168.1.5"])
def test_certificates_are_good_for_the_names_they_were_made_for(volumes: Path, name: str) -> None:
    """A client that trusts the authority accepts the server under each of its names."""
    assert handshake(volumes, name) is None


def test_certificates_are_good_for_no_other_name(volumes: Path) -> None:
    """A client that expects another server refuses it."""
    assert isinstance(handshake(volumes, "elsewhere.lan"), ssl.SSLCertVerificationError)


def handshake(volumes: Path, name: str) -> ssl.SSLError | None:
    """Return what a client has against the server."""
    create_certificates(volumes, ("mosquitto", "pi.lan", "192.168.1.5"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(volumes / "mosquitto" / "server.crt", volumes / "mosquitto" / "server.key")
    client = ssl.create_default_context(cafile=str(volumes / "poller" / "ca.crt"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    here, there = socket.socketpair()

    def serve() -> None:
        with there:
            try:
                server.wrap_socket(there, server_side=True).close()
            except ssl.SSLError:
                return

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        client.wrap_socket(here, server_hostname=name).close()
    except ssl.SSLError as error:
        return error
    finally:
        here.close()
        serving.join()
    return None
