from pathlib import Path

import pytest

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
