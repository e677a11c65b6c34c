"""Create passwords, certificates and the demo's settings in the volumes of docker-compose.yml.

``python -m deploy.compose`` runs before any service. Each service has a folder of its own, mounted at ``/run/secrets``
in its container only; existing files are kept. A setting in ``.env`` takes precedence over a file.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.compose.accounts import load_or_create_password, mosquitto_password_file, write_secret
from shared.certificates import create_with_authority
from shared.lifecycle import ExitCode
from shared.settings import load

VOLUMES = Path("/volumes")
ACCOUNTS = {"token-broker": "token_broker", "poller": "poller", "carbon-sink": "carbon_sink", "viewer": "viewer"}
"""The folder of each account of the broker; deploy/mosquitto/acl has its permissions."""

MQTT_FOLDERS = ("mosquitto", *ACCOUNTS.values())
BROKER_NAMES = ("mosquitto", "localhost", "127.0.0.1")
TLS_SETTINGS = {"mqtt_tls": "true", "mqtt_port": "8883", "mqtt_ca_file": "/run/secrets/ca.crt"}
DEMO_SETTINGS = {
    "poller": {"envoy_host": "https://simulator:8443"},
    "token_broker": {
        "enlighten_email": "owner@example.com",
        "enlighten_password": "sunshine",
        "enlighten_login_url": "http://simulator:8444/login/login.json",
        "enlighten_tokens_url": "http://simulator:8444/tokens",
    },
}
"""The simulated gateway of the profile ``demo``, used until ``.env`` names a real one."""


class SetupSettings(BaseSettings):
    """The settings of ``.env`` that determine the files."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")

    envoy_host: str | None = Field(None, description="address of the gateway")
    envoys: str | None = Field(None, description="several gateways")
    envoy_token: str | None = Field(None, description="a manually fetched token")
    enlighten_email: str | None = Field(None, description="e-mail of the Enlighten account")
    enlighten_password: str | None = Field(None, description="password of the Enlighten account")
    mqtt_tls: bool = Field(default=False, description="TLS for MQTT")

    @property
    def is_demo(self) -> bool:
        """Whether neither a gateway nor an account is set."""
        return not any((self.envoy_host, self.envoys, self.envoy_token, self.enlighten_email, self.enlighten_password))


def main() -> int:
    """Prepare the volumes and print what is new; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.compose", description="Prepare the volumes of the stack.")
    parser.add_argument(
        "--certificates",
        nargs="+",
        metavar="NAME",
        help="create new certificates for MQTT_TLS, valid for these names and addresses too; then restart the stack",
    )
    arguments = parser.parse_args()
    settings = load(SetupSettings)
    try:
        if arguments.certificates:
            create_certificates(VOLUMES, (*BROKER_NAMES, *arguments.certificates))
        prepare(VOLUMES, settings)
    except PermissionError as error:
        folder = Path(error.filename).parent
        print(f"{folder} cannot be written; check whether another program uses this volume", file=sys.stderr)
        return ExitCode.FAILED
    return ExitCode.STOPPED


def prepare(volumes: Path, settings: SetupSettings) -> None:
    """Create, replace or remove the files of each folder as the settings require."""
    create_accounts(volumes)
    for service, demo_settings in DEMO_SETTINGS.items():
        write_or_remove(volumes / service, demo_settings, wanted=settings.is_demo)
    if settings.is_demo:
        print("no gateway is set in .env; using the simulated one (docker compose --profile demo up)")
    if settings.mqtt_tls and not (volumes / "mosquitto" / "server.crt").exists():
        create_certificates(volumes, BROKER_NAMES)
    for folder in MQTT_FOLDERS:
        write_or_remove(volumes / folder, TLS_SETTINGS, wanted=settings.mqtt_tls)


def create_accounts(volumes: Path) -> None:
    """Create the missing passwords, and print the new ones that a user needs."""
    passwords = {
        account: load_or_create_password(volumes / folder / "mqtt_password") for account, folder in ACCOUNTS.items()
    }
    passwords["health"] = load_or_create_password(volumes / "mosquitto" / "health_password")
    accounts = [(account, password) for account, (password, _is_new) in passwords.items()]
    write_secret(volumes / "mosquitto" / "passwords", mosquitto_password_file(accounts))
    load_or_create_password(volumes / "grafana" / "secret_key")
    log_ins = {
        "MQTT, read-only, user viewer": passwords["viewer"],
        "Grafana, user admin": load_or_create_password(volumes / "grafana" / "admin_password"),
        "Node-RED, user admin": load_or_create_password(volumes / "viewer" / "editor_password"),
    }
    for log_in, (password, is_new) in log_ins.items():
        if is_new:
            print(f"{log_in}: password {password}  (shown once)")


def create_certificates(volumes: Path, names: tuple[str, ...]) -> None:
    """Create a certificate for the broker, and give its authority's to every MQTT client."""
    created = create_with_authority(names)
    write_secret(volumes / "mosquitto" / "server.crt", created.certificate)
    write_secret(volumes / "mosquitto" / "server.key", created.key)
    for folder in MQTT_FOLDERS:
        write_secret(volumes / folder / "ca.crt", created.authority)
    print(f"new certificates for {', '.join(names)}; MQTT_CA_FILE of clients outside the stack:\n{created.authority}")


def write_or_remove(folder: Path, files: Mapping[str, str], *, wanted: bool) -> None:
    """Write files into a folder, or remove them from it."""
    for name, text in files.items():
        if wanted:
            write_secret(folder / name, text)
        else:
            (folder / name).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
