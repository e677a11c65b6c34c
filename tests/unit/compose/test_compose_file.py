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
SETTLED_BY_THE_STACK = {"MQTT_PORT", "MQTT_PASSWORD", "MQTT_CA_FILE", "MQTT_CLIENT_ID", "STATE_DIR"}
"""Not to be set from outside: files in /run/secrets, the image, or the service's own default tell them."""


@pytest.mark.parametrize(
    ("service", "settings"),
    [
        ("token_broker", TokenBrokerSettings),
        ("poller", PollerSettings),
        ("carbon_sink", CarbonSinkSettings),
        ("setup", SetupSettings),
    ],
)
def test_every_setting_of_a_service_can_be_given_in_env(service: str, settings: type[BaseModel]) -> None:
    """What the service understands is passed on to it, and nothing that it does not."""
    passed_on = set(SERVICES[service]["environment"])

    assert passed_on == {name for name, _field in settings_by_name(settings)} - SETTLED_BY_THE_STACK - kept_apart(
        service
    )


def kept_apart(service: str) -> set[str]:
    """Return what a service could be told and is not: tokens come to the poller over MQTT alone."""
    return {"ENVOY_TOKEN"} if service == "poller" else set()


def test_every_line_of_the_example_means_something() -> None:
    """Each variable in .env.example is one that the compose file, or compose itself, reads."""
    offered = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    read = set(re.findall(r"\$\{([A-Z_]+)", TEXT)) | {"COMPOSE_PROFILES"}

    assert offered <= read
    assert len(offered) > 10


def test_accounts_secrets_and_access_rules_name_the_same_people() -> None:
    """Whoever has a password has rules, and the service that uses an account mounts its secrets."""
    rules = (ROOT / "deploy/mosquitto/acl").read_text()

    assert set(re.findall(r"^user (\S+)$", rules, re.MULTILINE)) == {*ACCOUNTS, "health"}
    for account, folder in ACCOUNTS.items():
        if account != "viewer":
            assert SERVICES[folder]["environment"]["MQTT_USERNAME"] == account
            assert f"{folder}_secrets:/run/secrets:ro" in SERVICES[folder]["volumes"]


@pytest.mark.parametrize("service", SERVICES)
def test_each_container_is_closed_and_bounded(service: str) -> None:
    """Also those whose images cannot be had everywhere."""
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


def test_every_test_that_the_security_page_names_is_there() -> None:
    """A row of docs/security.md is as good as its test."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text()))
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))

    assert len(named) > 10
    assert {name for name in named if f"def {name}(" not in tests} == set()
