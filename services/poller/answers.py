"""The shapes of a gateway's answers, as far as they are read; what they mean stands in ``sources.py``.

Numbers must be finite numbers: neither text nor true or false is taken for one. The names are the gateway's own.
Shapes and units: pyenphase/pyenphase (tests/fixtures) and Matthew1471/Enphase-API (Documentation).
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class MeterValues(_Answer):
    """What a meter, or a channel of it, measures. Power and energy count positive toward the switchboard."""

    activePower: float
    apparentPower: float | None = None
    reactivePower: float | None = None
    pwrFactor: float | None = None
    voltage: float | None = None
    current: float | None = None
    freq: float | None = None
    actEnergyDlvd: float | None = None
    actEnergyRcvd: float | None = None


class MeterReading(MeterValues):
    """One entry of ``/ivp/meters/readings``; three channels, of which a gateway uses as many as the site has phases."""

    eid: int
    timestamp: int
    channels: tuple[MeterValues, ...] = ()


class MeterDetails(_Answer):
    """One entry of ``/ivp/meters``: what the meter with this eid is."""

    eid: int
    state: str
    measurementType: str
    phaseCount: Annotated[int, Field(ge=1, le=3)] = 1


class GatewayProduction(_Answer):
    """``/api/v1/production``: the gateway's own count, Wh and W."""

    wattHoursToday: float
    wattHoursSevenDays: float
    wattHoursLifetime: float
    wattsNow: float


class Counted(_Answer):
    """One entry of ``/production.json``: ``inverters``, or an ``eim``, that is a meter; W, Wh and epoch seconds."""

    type: str
    measurementType: str | None = None
    activeCount: int = 0
    readingTime: int = 0
    wNow: float = 0.0
    whLifetime: float | None = None


class ProductionJson(_Answer):
    """``/production.json``."""

    production: tuple[Counted, ...] = ()
    consumption: tuple[Counted, ...] = ()


class InverterReport(_Answer):
    """One entry of ``/api/v1/production/inverters``: the last report of one inverter."""

    serialNumber: str
    lastReportDate: int
    devType: int | None = None
    lastReportWatts: float
    maxReportWatts: float | None = None


METER_DETAILS: TypeAdapter[tuple[MeterDetails, ...]] = TypeAdapter(tuple[MeterDetails, ...])
METER_READINGS: TypeAdapter[tuple[MeterReading, ...]] = TypeAdapter(tuple[MeterReading, ...])
GATEWAY_PRODUCTION: TypeAdapter[GatewayProduction] = TypeAdapter(GatewayProduction)
PRODUCTION_JSON: TypeAdapter[ProductionJson] = TypeAdapter(ProductionJson)
INVERTER_REPORTS: TypeAdapter[tuple[InverterReport, ...]] = TypeAdapter(tuple[InverterReport, ...])
