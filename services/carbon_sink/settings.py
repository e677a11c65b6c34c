"""The settings of carbon_sink."""

from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

from services.carbon_sink.points import is_carbon_path
from shared.settings import MqttSettings, Port, Section, ServiceSettings


def _carbon_path(path: str) -> str:
    if not is_carbon_path(path):
        raise ValueError("must be names of letters, digits, '_' and '-', separated by dots")
    return path


def _urls(hosts: str) -> list[SplitResult]:
    return [urlsplit(f"//{host.strip()}") for host in hosts.split(",")]


def _carbon_hosts(hosts: str) -> str:
    try:
        well_formed = all(url.hostname and (url.port is None or url.port > 0) and not url.path for url in _urls(hosts))
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ValueError("must be host or host:port, several separated by commas")
    return hosts


CarbonHosts = Annotated[str, AfterValidator(_carbon_hosts)]
CarbonPath = Annotated[str, AfterValidator(_carbon_path)]


class CarbonSettings(Section):
    """Carbon, and what is written to it."""

    host: CarbonHosts = Field(
        "localhost", description="Carbon's host or host:port; of several, separated by commas, the first that responds"
    )
    port: Port = Field(2004, description="Carbon's pickle port, for hosts without one")
    prefix: CarbonPath = Field("enphase", description="first part of every path")
    aliases: dict[str, CarbonPath] = Field(
        {}, description='additional paths as JSON: {"production.power_w": "stats.solar.production"}'
    )
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = Field(500, description="points after which a batch is written")
    flush_s: Annotated[float, Field(gt=0, le=60)] = Field(1.0, description="seconds after which a batch is written")
    settle_s: Annotated[float, Field(ge=1, le=3600)] = Field(
        30.0, description="seconds after which Carbon has written to disk what it read; see docs/delivery.md"
    )

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each Carbon, in the order in which they are tried."""
        return [(url.hostname or "", url.port or self.port) for url in _urls(self.host)]


class CarbonSinkSettings(ServiceSettings):
    """All settings of carbon_sink."""

    mqtt: MqttSettings = MqttSettings(client_id="carbon-sink")
    carbon: CarbonSettings = CarbonSettings()
