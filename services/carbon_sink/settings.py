"""The settings of carbon_sink."""

from typing import Annotated

from pydantic import AfterValidator, Field

from services.carbon_sink.points import is_carbon_path
from shared.settings import MqttSettings, Port, Section, ServiceSettings


def _carbon_path(path: str) -> str:
    if not is_carbon_path(path):
        raise ValueError("must be names of letters, digits, '_' and '-' with dots between them")
    return path


CarbonPath = Annotated[str, AfterValidator(_carbon_path)]


class CarbonSettings(Section):
    """Carbon and what is written to it."""

    host: str = Field("localhost", description="where Carbon is")
    port: Port = Field(2004, description="its pickle port")
    prefix: CarbonPath = Field("enphase", description="what every path begins with")
    aliases: dict[str, CarbonPath] = Field(
        {}, description='more paths, JSON: {"production.power_w": "stats.solar.production"}'
    )
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = Field(500, description="points written at once, at most")
    flush_s: Annotated[float, Field(gt=0, le=60)] = Field(1.0, description="seconds a point waits for more, at most")


class CarbonSinkSettings(ServiceSettings):
    """What carbon_sink can be told."""

    mqtt: MqttSettings = MqttSettings(client_id="carbon-sink")
    carbon: CarbonSettings = CarbonSettings()
