from pathlib import Path

import pytest

from deploy.local.settings import LocalSettings


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the developer's environment."""
    for field_name in LocalSettings.model_fields:
        monkeypatch.delenv(field_name.upper(), raising=False)


def test_without_a_gateway_the_services_connect_to_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator receives neither the password of a real account nor the token of a real gateway."""
    monkeypatch.setenv("SIMULATOR_ENVOY_PORT", "9443")
    environment = LocalSettings().service_environment(
        {"ENLIGHTEN_PASSWORD": "real", "ENVOY_TOKEN": "real", "LANG": "C"}
    )
    assert environment["ENVOY_HOST"] == "https://127.0.0.1:9443"
    assert environment["ENLIGHTEN_TOKENS_URL"] == "http://127.0.0.1:8444/tokens"
    assert environment["ENLIGHTEN_PASSWORD"] == "sunshine"
    assert "ENVOY_TOKEN" not in environment
    assert environment["LANG"] == "C"


def test_firmware_5_is_polled_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no TLS."""
    monkeypatch.setenv("SIMULATOR_FIRMWARE", "5")
    assert LocalSettings().service_environment({})["ENVOY_HOST"] == "http://127.0.0.1:8443"


def test_with_a_gateway_the_users_settings_are_passed_to_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real gateway is polled with the user's account; broker and Carbon are those of make run."""
    monkeypatch.setenv("ENVOY_HOST", "envoy.local")
    settings = LocalSettings()
    user = {
        "ENVOY_HOST": "envoy.local",
        "ENLIGHTEN_EMAIL": "me@example.com",
        "MQTT_HOST": "elsewhere",
        "MQTT_TLS": "true",
    }
    environment = settings.service_environment(user)
    assert not settings.simulated
    assert list(settings.ports()) == ["MQTT_PORT", "CARBON_PORT", "GRAPHITE_PORT"]
    assert (environment["ENVOY_HOST"], environment["ENLIGHTEN_EMAIL"]) == ("envoy.local", "me@example.com")
    assert environment["MQTT_HOST"] == "127.0.0.1"
    assert "MQTT_TLS" not in environment


def test_a_relative_state_directory_is_the_callers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The services have another working directory, and get an absolute path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", "here")
    assert LocalSettings().service_environment({})["STATE_DIR"] == str(tmp_path / "here")
