from pathlib import Path

import pytest
from pydantic import ValidationError

from services.carbon_sink.settings import CarbonSinkSettings
from services.poller.settings import PollerSettings
from services.token_broker.settings import TokenBrokerSettings
from shared.settings import command_line, load


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in place of /run/secrets."""
    monkeypatch.setitem(PollerSettings.model_config, "secrets_dir", tmp_path)
    return tmp_path


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is the variable of its name; the others keep their defaults."""
    monkeypatch.setenv("MQTT_HOST", "broker.example")
    monkeypatch.setenv("CARBON_ALIASES", '{"production.power_w": "stats.gauges.solar.production"}')

    settings = load(CarbonSinkSettings)

    assert settings.mqtt.host == "broker.example"
    assert settings.mqtt.client_id == "carbon-sink"
    assert settings.carbon.aliases == {"production.power_w": "stats.gauges.solar.production"}


def test_a_secret_file_sets_what_the_environment_does_not(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a setting's name has its value, without the newline; a variable takes precedence."""
    (secrets / "mqtt_password").write_text("sesame\n")
    (secrets / "mqtt_username").write_text("from-file")
    monkeypatch.setenv("MQTT_USERNAME", "from-environment")

    settings = load(PollerSettings)

    assert settings.mqtt.password is not None
    assert settings.mqtt.password.get_secret_value() == "sesame"
    assert settings.mqtt.username == "from-environment"


def test_each_bad_setting_is_one_line_and_the_exit_code_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All mistakes are reported together, by the name that the person has set."""
    monkeypatch.setenv("MQTT_PORT", "http")
    monkeypatch.setenv("MQTT_PROT", "1883")
    monkeypatch.setenv("ENVOY_HOST", "ftp://envoy")
    monkeypatch.setenv("POLL_INTERVAL_S", "0")

    with pytest.raises(SystemExit) as ended:
        load(PollerSettings)

    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert sorted(line.split()[2] for line in lines) == ["ENVOY_HOST:", "MQTT_PORT:", "MQTT_PROT:", "POLL_INTERVAL_S:"]


def test_a_bad_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The value of an invalid setting is not in the message."""
    monkeypatch.setenv("ENVOY_CERT_FINGERPRINT", "sesame")

    with pytest.raises(SystemExit):
        load(PollerSettings)

    assert "sesame" not in capsys.readouterr().err


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose passes unset variables as empty ones."""
    monkeypatch.setenv("MQTT_PORT", "")

    assert load(PollerSettings).mqtt.port == 1883


@pytest.mark.parametrize(
    "host", ["envoy.local", "192.0.2.7", "envoy.local:8443", "https://envoy:8443", "http://envoy/"]
)
def test_the_gateway_may_be_a_host_a_host_and_port_or_a_url(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of these forms are accepted."""
    monkeypatch.setenv("ENVOY_HOST", host)

    assert load(PollerSettings).envoy.host == host.rstrip("/")


@pytest.mark.parametrize("base_topic", ["", "/enphase", "enphase/", "a//b", "enphase/#", "+/enphase"])
def test_a_base_topic_that_cannot_be_published_to_is_refused(base_topic: str) -> None:
    """A wildcard or an empty level would break every topic below it."""
    with pytest.raises(ValueError, match="topic levels"):
        PollerSettings.model_validate({"mqtt": {"base_topic": base_topic}})


@pytest.mark.parametrize("settings_class", [PollerSettings, TokenBrokerSettings, CarbonSinkSettings])
def test_help_names_every_setting(settings_class: type[PollerSettings]) -> None:
    """Each setting is found in --help."""
    help_text = command_line("service", "Does something.", settings_class).format_help()

    sections = {name: field.annotation for name, field in settings_class.model_fields.items()}
    for section_name, section in sections.items():
        for field_name in getattr(section, "model_fields", {}):
            assert f"{section_name}_{field_name}".upper() in help_text


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_byte_order_mark_and_line_end_are_no_part_of_a_secret(secrets: Path, ending: str) -> None:
    """Windows Notepad writes both."""
    (secrets / "mqtt_password").write_bytes(f"sés$ #me{ending}".encode("utf-8-sig"))

    password = load(PollerSettings).mqtt.password

    assert password is not None
    assert password.get_secret_value() == "sés$ #me"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        ("sésame".encode("latin-1"), "not UTF-8"),
        ("sesame".encode("utf-16"), "not UTF-8"),
        ("sesame".encode("utf-16-le"), "control characters"),
        (b"sesa\x1bme", "control characters"),
        (b"sesame\nopen", "several lines"),
        (b"x" * 70_000, "larger than"),
    ],
)
def test_an_unusable_secret_file_is_one_line_with_its_name(
    secrets: Path, capsys: pytest.CaptureFixture[str], content: bytes, reason: str
) -> None:
    """Half a password must not be sent, and the content is not printed."""
    file = secrets / "mqtt_password"
    file.write_bytes(content)

    with pytest.raises(SystemExit) as ended:
        load(PollerSettings)

    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert str(file) in line
    assert reason in line
    assert "sesa" not in line


def test_secrets_of_several_lines_are_json(secrets: Path) -> None:
    """A list of gateways may be formatted for people."""
    (secrets / "envoys").write_text('[\n  {"host": "10.0.0.2"},\n  {"host": "10.0.0.3"}\n]\n')

    assert [gateway.host for gateway in load(PollerSettings).gateways] == ["10.0.0.2", "10.0.0.3"]


def test_files_of_others_are_not_read(secrets: Path) -> None:
    """A certificate or another service's secret may be anything."""
    (secrets / "ca.crt").write_bytes(b"\xff")
    (secrets / "server_key").write_bytes(b"\xff")
    (secrets / ".hidden").write_bytes(b"\xff")

    assert load(PollerSettings).mqtt.password is None


def test_a_misspelled_secret_file_is_refused(secrets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a misspelled variable is."""
    (secrets / "mqtt_pasword").write_text("sesame")

    with pytest.raises(SystemExit):
        load(PollerSettings)

    assert "MQTT_PASWORD: no such setting" in capsys.readouterr().err


def test_a_variable_that_is_no_text_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal with another encoding set it; Python shows its bytes as lone surrogates."""
    monkeypatch.setenv("MQTT_PASSWORD", "s\udce9same")

    with pytest.raises(SystemExit) as ended:
        load(PollerSettings)

    assert ended.value.code == 2
    assert "MQTT_PASSWORD: is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("base_topic", ["a b", "a&b", "a|b", "a\nb", "a\\b", "a$b", "a'b"])
def test_a_base_topic_that_breaks_the_access_rules_is_refused(base_topic: str) -> None:
    """The broker's start script puts it into them with sed."""
    with pytest.raises(ValidationError):
        PollerSettings.model_validate({"mqtt": {"base_topic": base_topic}})
