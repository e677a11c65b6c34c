"""Prepares the volumes of docker-compose.yml before anything else starts: ``python -m deploy.compose``.

Each service has a folder of its own, which it finds at ``/run/secrets`` and nobody else does; what is there already
stays. Settings from there are weaker than those of ``.env``.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.compose.accounts import mosquitto_password_file, password, write
from deploy.compose.certificates import make_certificates
from shared.lifecycle import ExitCode
from shared.settings import load

VOLUMES = Path("/volumes")
ACCOUNTS = {"token-broker": "token_broker", "poller": "poller", "carbon-sink": "carbon_sink", "viewer": "viewer"}
"""The folder of each of the broker's accounts; what each may do stands in deploy/mosquitto/acl."""

SPEAK_MQTT = ("mosquitto", *ACCOUNTS.values())
BROKERS_NAMES = ("mosquitto", "localhost", "127.0.0.1")
TLS = {"mqtt_tls": "true", "mqtt_port": "8883", "mqtt_ca_file": "/run/secrets/ca.crt"}
DEMO = {
    "poller": {"envoy_host": "https://simulator:8443"},
    "token_broker": {
        "enlighten_email": "owner@example.com",
        "enlighten_password": "sunshine",
        "enlighten_login_url": "http://simulator:8444/login/login.json",
        "enlighten_tokens_url": "http://simulator:8444/tokens",
    },
}
"""The simulated house of the profile ``demo``, which is read until ``.env`` names another."""


class SetupSettings(BaseSettings):
    """What of ``.env`` decides here."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")

    envoy_host: str | None = Field(None, description="the gateway")
    envoys: str | None = Field(None, description="several gateways")
    envoy_token: str | None = Field(None, description="a token by hand")
    enlighten_email: str | None = Field(None, description="the account")
    enlighten_password: str | None = Field(None, description="its password")
    mqtt_tls: bool = Field(default=False, description="the broker speaks TLS")

    @property
    def a_house_is_named(self) -> bool:
        """Whether somebody has filled in anything about a house of their own."""
        return any((self.envoy_host, self.envoys, self.envoy_token, self.enlighten_email, self.enlighten_password))


def main() -> int:
    """Prepare the volumes; tell what is new."""
    parser = argparse.ArgumentParser(prog="python -m deploy.compose", description="Prepare the volumes of the stack.")
    parser.add_argument(
        "--certificates",
        nargs="+",
        metavar="NAME",
        help="make new certificates for MQTT_TLS, good for these names or addresses too; then restart the stack",
    )
    arguments = parser.parse_args()
    settings = load(SetupSettings)
    try:
        if arguments.certificates:
            new_certificates(VOLUMES, (*BROKERS_NAMES, *arguments.certificates))
        prepare(VOLUMES, settings)
    except PermissionError as error:
        print(f"{error.filename} cannot be written: is the volume another program's?", file=sys.stderr)
        return ExitCode.FAILED
    return ExitCode.STOPPED


def prepare(volumes: Path, settings: SetupSettings) -> None:
    """Bring every folder to what the settings say."""
    make_accounts(volumes)
    for service, demo in DEMO.items():
        set_apart(volumes / service, demo, wanted=not settings.a_house_is_named)
    if not settings.a_house_is_named:
        print("no house is named in .env: looking for the simulated one (docker compose --profile demo up)")
    if settings.mqtt_tls and not (volumes / "mosquitto" / "server.crt").exists():
        new_certificates(volumes, BROKERS_NAMES)
    for service in SPEAK_MQTT:
        set_apart(volumes / service, TLS, wanted=settings.mqtt_tls)


def make_accounts(volumes: Path) -> None:
    """Make the passwords that are missing, and tell those that people need, once."""
    passwords = {account: password(volumes / folder / "mqtt_password") for account, folder in ACCOUNTS.items()}
    passwords["health"] = password(volumes / "mosquitto" / "health_password")
    accounts = [(account, secret) for account, (secret, _is_new) in passwords.items()]
    write(volumes / "mosquitto" / "passwords", mosquitto_password_file(accounts))
    password(volumes / "grafana" / "secret_key")
    for_people = {
        "MQTT, to look on with, user viewer": passwords["viewer"],
        "Grafana, user admin": password(volumes / "grafana" / "admin_password"),
        "Node-RED, user admin": password(volumes / "viewer" / "editor_password"),
    }
    for what, (secret, is_new) in for_people.items():
        if is_new:
            print(f"{what}: password {secret}  (told this once)")


def new_certificates(volumes: Path, names: tuple[str, ...]) -> None:
    """Make certificates for the broker, and give its authority's to everyone who speaks with it."""
    made = make_certificates(names)
    write(volumes / "mosquitto" / "server.crt", made.server)
    write(volumes / "mosquitto" / "server.key", made.server_key)
    for service in SPEAK_MQTT:
        write(volumes / service / "ca.crt", made.authority)
    print(f"new certificates for {', '.join(names)}; clients outside need this as MQTT_CA_FILE:\n{made.authority}")


def set_apart(folder: Path, files: Mapping[str, str], *, wanted: bool) -> None:
    """Write the files into a folder, or remove them from it."""
    for name, text in files.items():
        if wanted:
            write(folder / name, text)
        else:
            (folder / name).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
