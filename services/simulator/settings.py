"""What the simulator can be told, as `SIMULATOR_` environment variables or as command line options."""

import time
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from services.simulator.faults import check_fault

_DESCRIPTION = """
A pretend Envoy and Enlighten log-in: a house with solar panels whose numbers add up, recorded gateways, and faults on
demand. Options win over environment variables.
"""

Port = Annotated[int, Field(ge=0, le=65535)]


class BadSettings(Exception):
    """Settings that cannot be used; `lines` says what is wrong, one setting a line."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class SimulatorSettings(BaseSettings):
    """All settings of the simulator."""

    model_config = SettingsConfigDict(
        env_prefix="SIMULATOR_",
        env_ignore_empty=True,
        hide_input_in_errors=True,
        frozen=True,
        extra="forbid",
        cli_prog_name="python -m services.simulator",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_show_env_vars=True,
        cli_exit_on_error=False,
    )

    model: Literal["metered-single", "metered-split", "metered-three", "unmetered"] = Field(
        "metered-single", description="what is measured, and on how many phases"
    )
    firmware: Literal["8", "7", "5"] = Field("8", description="7 and 8: HTTPS and tokens; 5: HTTP and digest")
    inverters: int = Field(12, ge=1, le=500, description="number of inverters")
    batteries: int = Field(0, ge=0, le=40, description="number of 5 kWh batteries")
    serial: str = Field("122098765432", pattern=r"^\d{12}$", description="serial number of the gateway")
    recording: Path | None = Field(None, description="answer from this folder of recorded answers instead")
    auth: bool = Field(default=True, description="check tokens or passwords; without it everyone reads the gateway")
    installer_password: str | None = Field(None, description="password of the user installer, firmware 5 only")
    slow_answers_s: float = Field(0.3, ge=0, description="what /production*, /home and /inventory* take longer")

    host: str = Field("127.0.0.1", description="address to listen on")
    envoy_port: Port | None = Field(None, description="0 takes a free one; 8443, or 8080 for HTTP, if not given")
    enlighten_port: Port = Field(8444, description="0 takes a free one")
    enlighten_tls: bool = Field(default=False, description="let Enlighten speak HTTPS")
    control_port: Port = Field(8445, description="0 takes a free one")
    state_dir: Path = Field(Path("state/simulator"), description="keeps certificate, signing key and day totals")

    email: str = Field("owner@example.com", description="the Enlighten account's e-mail")
    password: str = Field("sunshine", description="and its password: made up, therefore shown")
    account: Literal["owner", "installer"] = Field("owner", description="kind of account: tokens for a year or 12 h")
    token_lifetime_s: float | None = Field(None, gt=0, description="lifetime of tokens, if not the account's")

    seed: int = Field(1, description="another number is another house and other weather")
    latitude: float = Field(47.66, ge=-66, le=66, description="degrees north")
    longitude: float = Field(9.18, ge=-180, le=180, description="degrees east")
    timezone: str = Field("Europe/Berlin", description="for midnight and habits")
    commissioned: date = Field(date(2026, 1, 1), description="the day on which the counters were zero")
    start: datetime | None = Field(None, description="time at the house, such as 2026-06-21T06:00; now if not given")
    speed: float = Field(1.0, gt=0, le=86400, description="how many times faster time passes")

    fault: Annotated[
        list[Annotated[str, AfterValidator(check_fault)]],
        Field(description="NAME[:key=value]..., repeatable; keys are server, path, count and the fault's own"),
    ] = []

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="log_level", description="least important message told"
    )
    log_format: Literal["text", "json"] = Field(
        "text", validation_alias="log_format", description="for people or machines"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, OSError, ValueError) as error:
            raise ValueError(f"timezone: this system knows no {self.timezone!r}") from error
        begins = time.time() if self.start_time is None else self.start_time
        if datetime.fromtimestamp(begins, ZoneInfo(self.timezone)).date() < self.commissioned:
            raise ValueError(f"start: before the house was commissioned on {self.commissioned}")
        if self.recording is not None and not self.recording.is_dir():
            raise ValueError(f"recording: there is no folder {self.recording}")
        return self

    @property
    def start_time(self) -> float | None:
        """Return where the clock begins, in epoch seconds; a time without an offset is the house's own."""
        if self.start is None:
            return None
        return (self.start if self.start.tzinfo else self.start.replace(tzinfo=ZoneInfo(self.timezone))).timestamp()


def load_settings(arguments: Sequence[str]) -> SimulatorSettings:
    """Return the settings out of options and environment. Raises BadSettings."""
    try:
        return SimulatorSettings(_cli_parse_args=list(arguments))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"] if not isinstance(part, int))
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}" if name else message)
        raise BadSettings(lines) from error
    except SettingsError as error:
        raise BadSettings([" ".join(str(error).split())]) from error
