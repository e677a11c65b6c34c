"""The settings of the simulator: ``SIMULATOR_`` environment variables, or options of the command line."""

import time
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, DirectoryPath, Field, ValidationInfo, field_validator

from services.simulator.faults import check_fault
from shared.settings import LogSettings, Section, Settings

AnyPort = Annotated[int, Field(ge=0, le=65535)]


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError, ValueError) as error:
        raise ValueError(f"unknown time zone {name!r}") from error
    return name


class SimulatorSettings(Section):
    """The simulated house, gateway and account, and where the simulator listens."""

    model: Literal["metered-single", "metered-split", "metered-three", "unmetered"] = Field(
        "metered-single", description="meters and phases"
    )
    firmware: Literal["8", "7", "5"] = Field(
        "8", description="major version; from 7 HTTPS and tokens, before HTTP and digest"
    )
    inverters: int = Field(12, ge=1, le=500, description="number of inverters")
    batteries: int = Field(0, ge=0, le=40, description="number of 5 kWh batteries")
    serial: str = Field("122098765432", pattern=r"^\d{12}$", description="serial number of the gateway")
    recording: DirectoryPath | None = Field(None, description="folder of recorded responses, in place of the house")
    auth: bool = Field(default=True, description="authentication of requests to the gateway")
    installer_password: str | None = Field(None, description="password of the user installer, firmware 5 only")
    slow_answers_s: float = Field(
        0.3, ge=0, description="seconds by which /production*, /home and /inventory* are slower than the rest"
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    envoy_port: AnyPort | None = Field(
        None, description="port of the gateway; 0 for a free one [8443, or 8080 for HTTP]"
    )
    enlighten_port: AnyPort = Field(8444, description="port of Enlighten; 0 for a free one")
    enlighten_tls: bool = Field(default=False, description="HTTPS for Enlighten")
    control_port: AnyPort = Field(8445, description="port of the control endpoint; 0 for a free one")
    state_dir: Path = Field(Path("state/simulator"), description="folder for certificates, signing key and day totals")

    email: str = Field("owner@example.com", description="e-mail of the Enlighten account")
    password: str = Field("sunshine", description="password of the Enlighten account; not a secret")
    account: Literal["owner", "installer"] = Field(
        "owner", description="kind of account; tokens expire after a year or after 12 hours"
    )
    token_lifetime_s: float | None = Field(
        None, gt=0, description="seconds after which tokens expire, in place of the account's"
    )

    seed: int = Field(1, description="seed of weather and household")
    latitude: float = Field(47.66, ge=-66, le=66, description="degrees north")
    longitude: float = Field(9.18, ge=-180, le=180, description="degrees east")
    timezone: Annotated[str, AfterValidator(_time_zone)] = Field(
        "Europe/Berlin", description="time zone, for midnight and the household"
    )
    commissioned: date = Field(date(2026, 1, 1), description="date on which the counters were zero")
    start: datetime | None = Field(
        None, validate_default=True, description="simulated time at the start, such as 2026-06-21T06:00 [now]"
    )
    speed: float = Field(1.0, gt=0, le=86400, description="simulated seconds in a real one")

    fault: tuple[Annotated[str, AfterValidator(check_fault)], ...] = Field(
        (),
        description="NAME[:key=value]..., repeatable (as a variable a JSON list); "
        "keys are server, path, count and the fault's own",
    )

    @field_validator("start")
    @classmethod
    def _not_before_the_commissioning(cls, start: datetime | None, info: ValidationInfo) -> datetime | None:
        """Return the start with its time zone, which is the house's if it is not given."""
        if not {"timezone", "commissioned"} <= info.data.keys():
            return start  # one of them is invalid, which is reported
        zone, commissioned = ZoneInfo(info.data["timezone"]), info.data["commissioned"]
        start = start.replace(tzinfo=zone) if start and start.tzinfo is None else start
        starts_at = time.time() if start is None else start.timestamp()
        if datetime.fromtimestamp(starts_at, zone).date() < commissioned:
            raise ValueError(f"before the house was commissioned on {commissioned}")
        return start

    @property
    def start_time(self) -> float | None:
        """The simulated time at the start, in epoch seconds; None for the real time."""
        return self.start.timestamp() if self.start else None


class CommandSettings(Settings):
    """All settings of ``python -m services.simulator``."""

    simulator: SimulatorSettings
    log: LogSettings = LogSettings()
