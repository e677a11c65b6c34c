"""The settings of carbon_sink."""

from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

from services.carbon_sink.points import is_carbon_path
from shared.settings import MqttSettings, Port, Section, ServiceSettings


def _carbon_path(path: str) -> str:
    if not is_carbon_path(path):
        raise ValueError("must be names of letters, digits, '_' and '-' with dots between them")
    return path


def _urls(hosts: str) -> list[SplitResult]:
    return [urlsplit(f"//{host.strip()}") for host in hosts.split(",")]


def _carbon_hosts(hosts: str) -> str:
    try:
        well_formed = all(url.hostname and (url.port is None or url.port > 0) and not url.path for url in _urls(hosts))
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ValueError("must be host or host:port, several with commas between")
    return hosts


CarbonHosts = Annotated[str, AfterValidator(_carbon_hosts)]
CarbonPath = Annotated[str, AfterValidator(_carbon_path)]


class CarbonSettings(Section):
    """Carbon and what is written to it."""

    host: CarbonHosts = Field("localhost", description="where Carbon is; several with commas, the first that answers")
    port: Port = Field(2004, description="its pickle port, where CARBON_HOST names none")
    prefix: CarbonPath = Field("enphase", description="what every path begins with")
    aliases: dict[str, CarbonPath] = Field(
        {}, description='more paths, JSON: {"production.power_w": "stats.solar.production"}'
    )
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = Field(500, description="points written at once, at most")
    flush_s: Annotated[float, Field(gt=0, le=60)] = Field(1.0, description="seconds a point waits for more, at most")
    settle_s: Annotated[float, Field(ge=1, le=3600)] = Field(
        30.0, description="seconds after which Carbon has written what it read; docs/delivery.md"
    )

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where to look for Carbon, in this order."""
        return [(url.hostname or "", url.port or self.port) for url in _urls(self.host)]


class CarbonSinkSettings(ServiceSettings):
    """What carbon_sink can be told."""

    mqtt: MqttSettings = MqttSettings(client_id="carbon-sink")
    carbon: CarbonSettings = CarbonSettings()
