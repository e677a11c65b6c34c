import re
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from deploy.compose.__main__ import ACCOUNTS, SetupSettings
from services.carbon_sink.settings import CarbonSinkSettings
from services.poller.settings import PollerSettings
from services.token_broker.settings import TokenBrokerSettings
from shared.settings import settings_by_name
from tests.programs import ROOT

TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
SET_BY_THE_STACK = {"MQTT_PORT", "MQTT_PASSWORD", "MQTT_CA_FILE", "MQTT_CLIENT_ID", "STATE_DIR"}
"""Set by files in /run/secrets, by the image or by the service's default, and not by ``.env``."""


@pytest.mark.parametrize(
    ("service", "settings"),
    [
        ("token_broker", TokenBrokerSettings),
        ("poller", PollerSettings),
        ("carbon_sink", CarbonSinkSettings),
        ("setup", SetupSettings),
    ],
)
def test_every_setting_of_a_service_can_be_set_in_env(service: str, settings: type[BaseModel]) -> None:
    """Each of its settings is passed to the service, and no other variable."""
    passed = set(SERVICES[service]["environment"])

    assert passed == {name for name, _field in settings_by_name(settings)} - SET_BY_THE_STACK - not_passed(service)


def not_passed(service: str) -> set[str]:
    """Return the settings of a service that the stack does not use: the poller receives tokens over MQTT only."""
    return {"ENVOY_TOKEN"} if service == "poller" else set()


def test_every_variable_of_the_example_is_read() -> None:
    """Each one in .env.example is used by the compose file, or by compose itself."""
    in_example = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    read = set(re.findall(r"\$\{([A-Z_]+)", TEXT)) | {"COMPOSE_PROFILES"}

    assert in_example <= read
    assert len(in_example) > 10


def test_accounts_secrets_and_access_rules_are_of_the_same_users() -> None:
    """Each account with a password has rules, and the service that uses it mounts its secrets."""
    rules = (ROOT / "deploy/mosquitto/acl").read_text()

    assert set(re.findall(r"^user (\S+)$", rules, re.MULTILINE)) == {*ACCOUNTS, "health"}
    for account, folder in ACCOUNTS.items():
        if account != "viewer":
            assert SERVICES[folder]["environment"]["MQTT_USERNAME"] == account
            assert f"{folder}_secrets:/run/secrets:ro" in SERVICES[folder]["volumes"]


@pytest.mark.parametrize("service", SERVICES)
def test_each_container_is_hardened_and_limited(service: str) -> None:
    """Also those whose images are not available everywhere."""
    container = SERVICES[service]

    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["user"].split(":")[0] not in ("0", "root")
    assert container["mem_limit"]
    assert container["logging"]["options"]["max-size"]
    for port in container.get("ports", []):
        assert re.fullmatch(r"\$\{[A-Z_]+:-127\.0\.0\.1:\d+\}:\d+", port)
    assert service == "setup" or container.get("healthcheck") or service == "node_red"


def test_every_test_of_the_security_page_exists() -> None:
    """Each row of docs/security.md has one."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text()))
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))

    assert len(named) > 10
    assert {name for name in named if f"def {name}(" not in tests} == set()
