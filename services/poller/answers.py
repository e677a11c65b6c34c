"""The shapes of a gateway's answers, as far as they are read; what they mean stands in ``sources.py``.

A number is a finite number within reason: neither text nor true or false is taken for one, nor a power of gigawatts.
A field that is none is dropped and the rest kept; an entry without what it is for is skipped and the others kept. What
was dropped is told to the caller of :func:`read_answer`. The names are the gateway's own.
Shapes and units: pyenphase/pyenphase (tests/fixtures) and Matthew1471/Enphase-API (Documentation).
"""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from services.poller.quirks import signed_power
from shared.readings import Name

Shape = TypeVar("Shape")

MAX_POWER = 10_000_000.0
"""Ten megawatts, or as many VA or VAR: no house, and no Envoy's meters (3 phases of 200 A transformers), reach it."""

MAX_ENERGY = 1e12
"""A terawatt-hour, in Wh."""

MAX_ENTRIES = 2_000
"""Enphase sells a gateway for 600 inverters; what lists more entries than this lists none."""


def _drop(value: object, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:  # noqa: ANN401 - any field
    """Return the field, or None where it is not what it should be."""
    try:
        return validate(value)
    except ValidationError as error:
        if value is not None and isinstance(info.context, list):
            info.context.append(f"{info.field_name or 'entry'}: {error.errors(include_input=False)[0]['msg']}")
        return None


def _without_none(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(entry for entry in entries if entry is not None)


def _or_nothing(entries: object) -> object:
    """Return the list; a gateway says null or nothing where a list is empty."""
    return [] if entries is None else entries


_number = AfterValidator(lambda value: value + 0.0)
"""Minus zero, which gateways tell at night, is zero."""

Power = Annotated[float, Field(ge=-MAX_POWER, le=MAX_POWER), _number, BeforeValidator(signed_power)]
Energy = Annotated[float, Field(ge=0, le=MAX_ENERGY), _number]
Wide = Annotated[float, Field(ge=-MAX_POWER, le=MAX_POWER), _number]
Percent = Annotated[float, Field(ge=0, le=100), _number]
Epoch = Annotated[int, Field(ge=0, le=2**32 - 1)]

MaybePower = Annotated[Power | None, WrapValidator(_drop)]
MaybeEnergy = Annotated[Energy | None, WrapValidator(_drop)]
MaybeNumber = Annotated[Wide | None, WrapValidator(_drop)]
MaybePercent = Annotated[Percent | None, WrapValidator(_drop)]
MaybeEpoch = Annotated[Epoch | None, WrapValidator(_drop)]
MaybeFlag = Annotated[bool | None, WrapValidator(_drop)]
MaybeText = Annotated[str | None, WrapValidator(_drop)]


Places = Annotated[tuple[Annotated[Shape | None, WrapValidator(_drop)], ...], Strict(strict=False)]
"""A list of which the entries that cannot be read are None, so that the others keep their places."""

Entries = Annotated[
    tuple[Annotated[Shape, WrapValidator(_drop)], ...],
    Strict(strict=False),  # a list of JSON's will do; what is in it stays strict
    Field(max_length=MAX_ENTRIES),
    AfterValidator(_without_none),
    BeforeValidator(_or_nothing),
]
"""A list of which the entries that cannot be read are skipped."""


Phases = Annotated[int, Field(ge=1, le=3), WrapValidator(_drop), AfterValidator(lambda phases: phases or 1)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class MeterValues(_Answer):
    """What a meter, or a channel of it, measures. Power and energy count positive toward the switchboard."""

    activePower: Power
    apparentPower: MaybePower = None
    reactivePower: MaybePower = None
    pwrFactor: MaybeNumber = None
    voltage: MaybeNumber = None
    current: MaybeNumber = None
    freq: MaybeNumber = None
    actEnergyDlvd: MaybeEnergy = None
    actEnergyRcvd: MaybeEnergy = None


class MeterReading(MeterValues):
    """One entry of ``/ivp/meters/readings``; three channels, of which a gateway uses as many as the site has phases."""

    eid: int
    timestamp: MaybeEpoch = None
    channels: Annotated[Places[MeterValues] | None, WrapValidator(_drop)] = ()


class MeterDetails(_Answer):
    """One entry of ``/ivp/meters``: what the meter with this eid is."""

    eid: int
    state: str
    measurementType: Name
    phaseCount: Phases = 1
    """One where the gateway tells none: the whole meter is right however many phases it has."""
    phaseMode: MaybeText = None


class GatewayProduction(_Answer):
    """``/api/v1/production``: the gateway's own count, Wh and W."""

    wattHoursToday: MaybeEnergy = None
    wattHoursSevenDays: MaybeEnergy = None
    wattHoursLifetime: MaybeEnergy = None
    wattsNow: Power


class Counted(_Answer):
    """One entry of ``/production.json``: ``inverters``, an ``eim``, that is a meter, or ``acb``, AC Batteries."""

    type: str
    measurementType: MaybeText = None
    activeCount: int = 0
    readingTime: MaybeEpoch = None
    wNow: MaybePower = None
    whLifetime: Annotated[
        Annotated[float, Field(ge=-MAX_ENERGY, le=MAX_ENERGY), _number] | None, WrapValidator(_drop)
    ] = None
    """Of net-consumption it is a difference and may be negative."""
    whToday: MaybeEnergy = None
    whLastSevenDays: MaybeEnergy = None
    whNow: MaybeEnergy = None
    percentFull: MaybePercent = None
    state: MaybeText = None


class ProductionJson(_Answer):
    """``/production.json``."""

    production: Entries[Counted] = ()
    consumption: Entries[Counted] = ()
    storage: Entries[Counted] = ()


class InverterReport(_Answer):
    """One entry of ``/api/v1/production/inverters``: the last report of one inverter."""

    serialNumber: Name
    lastReportDate: Epoch
    devType: Annotated[int | None, WrapValidator(_drop)] = None
    lastReportWatts: Power
    maxReportWatts: MaybePower = None


class LastReading(_Answer):
    """The last report of an inverter's channel in ``/ivp/pdm/device_data``; thousandths of V, A and Hz."""

    endDate: Epoch
    acVoltageINmV: MaybeNumber = None
    acFrequencyINmHz: MaybeNumber = None
    dcVoltageINmV: MaybeNumber = None
    dcCurrentINmA: MaybeNumber = None
    channelTemp: MaybeNumber = None


class ChannelWatts(_Answer):
    """The power of an inverter's channel."""

    now: Power
    max: MaybePower = None


class ChannelLifetime(_Answer):
    """The energy of an inverter's channel."""

    joulesProduced: Annotated[float | None, Field(ge=0, le=MAX_ENERGY * 3600), WrapValidator(_drop)] = None


class DeviceChannel(_Answer):
    """What an inverter's channel tells."""

    watts: ChannelWatts
    lastReading: LastReading
    lifetime: Annotated[ChannelLifetime | None, WrapValidator(_drop)] = None


class Device(_Answer):
    """One device of ``/ivp/pdm/device_data``."""

    devName: str
    sn: Name
    active: bool = False
    channels: Places[DeviceChannel] = ()

    @property
    def channel(self) -> DeviceChannel | None:
        """What the inverter tells; None if it has told nothing, as one that is not active."""
        return self.channels[0] if self.channels else None


class DeviceData(_Answer):
    """``/ivp/pdm/device_data``: devices by their ids, and how many of them it can list."""

    deviceCount: int
    deviceDataLimit: int
    devices: Places[Device] = ()


def _devices_together(answer: object) -> object:
    """Return the answer with its devices in a list: the gateway mixes them with the counts in one object."""
    if not isinstance(answer, dict):
        return answer
    devices = [value for value in answer.values() if isinstance(value, dict) and value.get("devName") == "pcu"]
    return {key: answer.get(key) for key in ("deviceCount", "deviceDataLimit")} | {"devices": devices}


class EnergyCount(_Answer):
    """One count of ``/ivp/pdm/energy``."""

    wattHoursToday: MaybeEnergy = None
    wattHoursSevenDays: MaybeEnergy = None
    wattHoursLifetime: MaybeEnergy = None


class PdmProduction(_Answer):
    """The production in ``/ivp/pdm/energy``: ``pcu`` is the sum of the inverters."""

    pcu: Annotated[EnergyCount | None, WrapValidator(_drop)] = None


class PdmEnergy(_Answer):
    """``/ivp/pdm/energy``."""

    production: PdmProduction


class BatteryDetails(_Answer):
    """One IQ Battery in ``/ivp/ensemble/inventory``."""

    serial_num: Name
    percentFull: MaybePercent = None
    temperature: MaybeNumber = None
    encharge_capacity: MaybeEnergy = None
    last_rpt_date: MaybeEpoch = None


class BatteryPower(_Answer):
    """One battery in ``/ivp/ensemble/power``: mW, discharge positive."""

    serial_num: Name
    real_power_mw: Annotated[float, Field(ge=-1000 * MAX_POWER, le=1000 * MAX_POWER), _number]
    soc: MaybePercent = None


class EnsemblePower(_Answer):
    """``/ivp/ensemble/power``; the colon is part of the key."""

    devices: Entries[BatteryPower] = Field((), alias="devices:")


class BatteryTotals(_Answer):
    """``/ivp/ensemble/secctrl``: IQ Batteries (ENC), AC Batteries (ACB) and both together (agg)."""

    ENC_agg_soc: MaybePercent = None
    ENC_agg_avail_energy: MaybeEnergy = None
    Enc_max_available_capacity: MaybeEnergy = None
    agg_soc: MaybePercent = None
    Max_energy: MaybeEnergy = None
    ACB_agg_energy: MaybeEnergy = None


def _batteries_of(groups: object) -> object:
    """Return the IQ Batteries: the inventory lists relays and system controllers beside them, those in Fahrenheit."""
    if groups is None:
        return []
    if not isinstance(groups, list):
        return groups
    batteries = [
        group.get("devices") for group in groups if isinstance(group, dict) and group.get("type") == "ENCHARGE"
    ]
    return [device for devices in batteries if isinstance(devices, list) for device in devices]


METER_DETAILS: TypeAdapter[tuple[MeterDetails, ...]] = TypeAdapter(Entries[MeterDetails])
METER_READINGS: TypeAdapter[tuple[MeterReading, ...]] = TypeAdapter(Entries[MeterReading])
GATEWAY_PRODUCTION: TypeAdapter[GatewayProduction] = TypeAdapter(GatewayProduction)
PRODUCTION_JSON: TypeAdapter[ProductionJson] = TypeAdapter(ProductionJson)
INVERTER_REPORTS: TypeAdapter[tuple[InverterReport, ...]] = TypeAdapter(Entries[InverterReport])
DEVICE_DATA: TypeAdapter[DeviceData] = TypeAdapter(Annotated[DeviceData, BeforeValidator(_devices_together)])
PDM_ENERGY: TypeAdapter[PdmEnergy] = TypeAdapter(PdmEnergy)
BATTERIES: TypeAdapter[tuple[BatteryDetails, ...]] = TypeAdapter(
    Annotated[Entries[BatteryDetails], BeforeValidator(_batteries_of)]
)
BATTERY_POWER: TypeAdapter[EnsemblePower] = TypeAdapter(EnsemblePower)
BATTERY_TOTALS: TypeAdapter[BatteryTotals] = TypeAdapter(BatteryTotals)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a gateway answered in one poll; None or empty where it was not asked or had nothing to say."""

    meter_details: tuple[MeterDetails, ...] = ()
    meter_readings: tuple[MeterReading, ...] = ()
    production_json: ProductionJson | None = None
    gateway_production: GatewayProduction | None = None
    inverters: tuple[InverterReport, ...] = ()
    device_data: DeviceData | None = None
    pdm_energy: PdmEnergy | None = None
    batteries: tuple[BatteryDetails, ...] = ()
    battery_power: EnsemblePower | None = None
    battery_totals: BatteryTotals | None = None
    batteries_answer: bool = False
    """Whether batteries are asked in some polls, and those without need not stand in for them."""
    production_json_answers: bool = False
    """Whether production.json is answered in some polls, and nothing else need stand in for it."""


def read_answer(shape: TypeAdapter[Shape], body: bytes) -> tuple[Shape, list[str]]:
    """Return an answer, and what of it was dropped.

    Raises:
        ValidationError: nothing of it can be read.
    """
    dropped: list[str] = []
    return shape.validate_json(body, context=dropped), dropped
