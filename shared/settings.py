"""Settings from environment variables and ``/run/secrets``; each invalid one is reported in a line, before any work.

A shared part is a ``BaseModel`` whose fields become variables with its name in front: ``mqtt.host`` is ``MQTT_HOST``,
or a file ``/run/secrets/mqtt_host``. A variable beats a file. Each service has one ``ServiceSettings`` of its own.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeGuard, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from shared.escape import escape
from shared.lifecycle import ExitCode
from shared.readings import Name
from shared.secret_files import SecretFiles

SECRETS_DIR = Path("/run/secrets")

NO_SINK = "none"
"""In place of a sink's client id: no receipts, the broker's acknowledgement is enough."""

Port = Annotated[int, Field(ge=1, le=65535)]


def _topic_levels(base_topic: str) -> str:
    if not re.fullmatch(r"[\w.~@:-]+(/[\w.~@:-]+)*", base_topic):
        raise ValueError(
            "must be topic levels such as 'enphase' or 'home/enphase', of letters, digits and any of ._~@:-"
        )
    return base_topic


class Section(BaseModel):
    """A part of the settings whose variables share the beginning of their names; an unknown one is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class MqttSettings(Section):
    """The broker and how to reach it."""

    host: str = Field("localhost", description="host of the MQTT broker")
    port: Port = Field(1883, description="port of the MQTT broker")
    username: str | None = Field(None, description="user name at the broker")
    password: SecretStr | None = Field(None, description="password at the broker")
    tls: bool = Field(default=False, description="use TLS for the connection to the broker")
    ca_file: Path | None = Field(None, description="file with the certificate authority for MQTT_TLS [the system's]")
    base_topic: Annotated[str, AfterValidator(_topic_levels)] = Field("enphase", description="beginning of every topic")
    client_id: str = Field("", description="MQTT client id [the service's name]")


class LogSettings(Section):
    """What is logged, and how."""

    # Other programs set LOG_ variables of their own.
    model_config = ConfigDict(extra="ignore")

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="minimum level to log")
    format: Literal["text", "json"] = Field("text", description="format of the log: for people or for programs")


class JournalSettings(Section):
    """How a publisher keeps readings until they are stored."""

    # systemd sets JOURNAL_STREAM.
    model_config = ConfigDict(extra="ignore")

    receipts_from: Name = Field(
        "carbon-sink",
        description="client id of the sink whose receipts remove readings from the journal; "
        f"'{NO_SINK}': the broker's acknowledgement is enough",
    )
    resend_after_s: float = Field(120.0, ge=1, description="seconds without a receipt after which a reading is resent")
    keep_days: float = Field(7.0, gt=0, description="days after which a reading without a receipt expires")
    max_mb: float = Field(256.0, ge=1, description="maximum size of the journal in megabytes")


class ServiceSettings(BaseSettings):
    """The settings that every service has."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        nested_model_default_partial_update=True,
        secrets_dir=SECRETS_DIR,
        hide_input_in_errors=True,
        frozen=True,
        extra="ignore",
    )

    mqtt: MqttSettings = MqttSettings()
    state_dir: Path = Field(Path("state"), description="folder for everything that must survive a restart")
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the secrets know it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - compose reads .env
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read secret files for the nested sections too."""
        secrets = SecretFiles(file_secret_settings, secrets_dir_missing="ok", secrets_nested_delimiter="_")
        return init_settings, env_settings, secrets


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def load(settings_class: type[AnySettings]) -> AnySettings:
    """Return the settings, or exit with code 2 after one line on standard error for each invalid one."""
    if faults := [f"{name}: {fault}" for name, fault in _environment_faults(settings_class)]:
        refuse(*faults)
    try:
        return settings_class()
    except ValidationError as error:
        refuse(*(_describe(fault["loc"], fault["type"], fault["msg"]) for fault in error.errors(include_input=False)))
    except SettingsError as error:
        refuse(str(error))


def _environment_faults(settings_class: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield the variables that are not text, which Python represents by lone surrogates."""
    for name, _field in settings_by_name(settings_class):
        if any("\ud800" <= letter <= "\udfff" for letter in os.environ.get(name, "")):
            yield name, "is not UTF-8 text; set it in a terminal that uses UTF-8, or write it into a file"


def refuse(*faults: str) -> NoReturn:
    """Exit with code 2 because of invalid settings, after one line on standard error for each.

    Args:
        faults: each ``NAME: what is wrong with it``.
    """
    for fault in faults:
        print(escape(f"bad setting {fault}"), file=sys.stderr)  # noqa: T201 - the log is not configured yet
    raise SystemExit(ExitCode.BAD_SETTINGS)


def _describe(location: tuple[int | str, ...], fault_type: str, message: str) -> str:
    name = "_".join(part for part in location if isinstance(part, str)).upper()
    return f"{name}: {'no such setting' if fault_type == 'extra_forbidden' else message.removeprefix('Value error, ')}"


def command_line(name: str, what_it_does: str, settings_class: type[BaseSettings]) -> argparse.ArgumentParser:
    """Return a parser with the options of every service; ``--help`` lists every setting with its default."""
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{name}",
        description=what_it_does,
        epilog="settings (environment variables, or files of the same name in lower case in "
        f"{SECRETS_DIR}):\n{_settings_table(settings_class)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--health", action="store_true", help="print the running service's health and exit")
    return parser


def settings_by_name(settings_class: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every setting of a class and its sections: the variable's name, and what it is."""
    for field_name, field in settings_class.model_fields.items():
        name = f"{prefix}{field_name}".upper()
        # A list of sections is one variable that holds JSON.
        parts = () if get_origin(field.annotation) in (list, tuple) else (field.annotation, *get_args(field.annotation))
        section = next((part for part in parts if _is_section(part)), None)
        if section is not None:
            yield from settings_by_name(section, f"{name}_")
        else:
            yield name, field


def _settings_table(settings_class: type[BaseModel]) -> str:
    lines = []
    for name, field in settings_by_name(settings_class):
        default = "" if field.default in (None, "", (), PydanticUndefined) else f" [{_shown(field.default)}]"
        lines.append(f"  {name:<26} {field.description or ''}{default}")
    return "\n".join(lines)


def _is_section(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _shown(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)
