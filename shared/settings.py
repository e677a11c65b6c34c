"""Settings from environment variables and ``/run/secrets``, validated before anything is started.

A section is a model whose fields become variables with the section's name in front: ``mqtt.host`` is ``MQTT_HOST``, or
the file ``/run/secrets/mqtt_host``. A variable takes precedence over a file. Each service has one class of settings.

pydantic-settings has a command line of its own, ``CliApp``, which makes an option of every setting, passwords included,
and any user of the machine could read these in ``ps``. Its help does not mention the files and takes up to four lines
for a setting where :func:`command_line` takes one, and it ends in a traceback where :func:`load` prints a line.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args, get_origin

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
    """Settings whose variables start with the same word; an unknown variable of that word is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class MqttSettings(Section):
    """The MQTT broker."""

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
    format: Literal["text", "json"] = Field("text", description="format of the log")


class JournalSettings(Section):
    """How a publisher keeps readings until they are stored."""

    # systemd sets JOURNAL_STREAM.
    model_config = ConfigDict(extra="ignore")

    receipts_from: Name = Field(
        "carbon-sink",
        description="client id of the sink whose receipts remove readings from the journal; "
        f"`{NO_SINK}`: the broker's acknowledgement is enough",
    )
    resend_after_s: float = Field(120.0, ge=1, description="seconds without a receipt after which a reading is resent")
    keep_days: float = Field(7.0, gt=0, description="days after which a reading without a receipt expires")
    max_mb: float = Field(256.0, ge=1, description="maximum size of the journal in megabytes")


class Settings(BaseSettings):
    """Sections, and single settings, of a program."""

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the sources have it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - compose reads .env
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources by precedence; the secret files are also those of sections."""
        secrets = SecretFiles(file_secret_settings, secrets_dir_missing="ok", secrets_nested_delimiter="_")
        return init_settings, env_settings, secrets


class ServiceSettings(Settings):
    """The settings that every service of the pipeline has."""

    mqtt: MqttSettings = MqttSettings()
    state_dir: Path = Field(Path("state"), description="folder for everything that must survive a restart")
    log: LogSettings = LogSettings()


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def load(settings_class: type[AnySettings], options: Mapping[str, Any] | None = None) -> AnySettings:
    """Return the settings, or exit with code 2 and one line on standard error for each invalid one.

    Args:
        settings_class: which settings.
        options: values of the command line, by section; they take precedence over variables and files.
    """
    if errors := [f"{name}: {message}" for name, message in _undecodable_variables(settings_class)]:
        refuse(*errors)
    try:
        return settings_class(**(options or {}))
    except ValidationError as error:
        refuse(*(_describe_error(part["loc"], part["type"], part["msg"]) for part in error.errors(include_input=False)))
    except SettingsError as error:
        refuse(str(error))


def refuse(*errors: str) -> NoReturn:
    """Exit with code 2 and one line on standard error for each invalid setting, ``NAME: what is wrong``."""
    for error in errors:
        print(escape(f"bad setting {error}"), file=sys.stderr)  # noqa: T201 - the log is not configured yet
    raise SystemExit(ExitCode.BAD_SETTINGS)


def command_line(name: str, description: str, settings_class: type[BaseSettings]) -> argparse.ArgumentParser:
    """Return the parser of a service's command line, whose ``--help`` lists every setting with its default."""
    settings = "\n".join(f"  {name:<26} {describe(field)}" for name, field in settings_by_name(settings_class))
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{name}",
        description=description,
        epilog=f"settings (environment variables, or files of the same name in lower case in {SECRETS_DIR}):\n"
        f"{settings}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--health", action="store_true", help="print the running service's health and exit")
    return parser


def settings_by_name(settings_class: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the name of each variable with its field, also of sections."""
    for field_name, field in settings_class.model_fields.items():
        name = f"{prefix}{field_name}".upper()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from settings_by_name(field.annotation, f"{name}_")
        else:
            yield name, field


def describe(field: FieldInfo) -> str:
    """Return a setting's description, with its choices and its default."""
    choices = f": {', '.join(get_args(field.annotation))}" if get_origin(field.annotation) is Literal else ""
    if field.default in (None, "", (), [], PydanticUndefined):
        return f"{field.description}{choices}"
    default = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"{field.description}{choices} [{default}]"


def _undecodable_variables(settings_class: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield the variables that are not text, which Python represents by lone surrogates."""
    for name, _field in settings_by_name(settings_class):
        if any("\ud800" <= letter <= "\udfff" for letter in os.environ.get(name, "")):
            yield name, "is not UTF-8 text; set it in a terminal that uses UTF-8, or write it into a file"


def _describe_error(location: tuple[int | str, ...], error_type: str, message: str) -> str:
    name = "_".join(part for part in location if isinstance(part, str)).upper()
    return f"{name}: {'no such setting' if error_type == 'extra_forbidden' else message.removeprefix('Value error, ')}"
