"""The shapes of a gateway's JSON responses, as far as they are used, under the gateway's own names.

A response is validated leniently, because firmware differs: a field that is not what it should be is dropped and the
rest is kept; an entry without the value that it exists for is skipped and the others are kept. :func:`parse_json`
returns what was dropped. Numbers are strict: text, booleans, NaN, infinity and impossibly large values are no numbers.

Shapes and units: pyenphase/pyenphase (tests/fixtures) and Matthew1471/Enphase-API (Documentation).
"""

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

from services.poller.errors import BadResponse
from services.poller.interpret.quirks import signed_power
from shared.readings import Name

T = TypeVar("T")

MAX_POWER = 10_000_000.0
"""W, VA or VAR: ten megawatts, which no Envoy's meters (3 phases of 200 A transformers) reach."""

MAX_ENERGY = 1e12
"""Wh: a terawatt-hour."""

MAX_ENTRIES = 2_000
"""Enphase sells a gateway for 600 inverters; a longer list is rejected as a whole."""


def _drop_invalid(value: object, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:  # noqa: ANN401 - any field
    """Return the field, or None where it is not valid."""
    try:
        return validate(value)
    except ValidationError as error:
        if value is not None and isinstance(info.context, list):
            info.context.append(f"{info.field_name or 'entry'}: {error.errors(include_input=False)[0]['msg']}")
        return None


def _without_none(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(entry for entry in entries if entry is not None)


def _null_as_empty(entries: object) -> object:
    """Return the list; some gateways send null where a list is empty."""
    return [] if entries is None else entries


_no_negative_zero = AfterValidator(lambda value: value + 0.0)
"""Gateways send -0.0 at night."""

Power = Annotated[float, Field(ge=-MAX_POWER, le=MAX_POWER), _no_negative_zero, BeforeValidator(signed_power)]
Energy = Annotated[float, Field(ge=0, le=MAX_ENERGY), _no_negative_zero]
SignedEnergy = Annotated[float, Field(ge=-MAX_ENERGY, le=MAX_ENERGY), _no_negative_zero]
Number = Annotated[float, Field(ge=-MAX_POWER, le=MAX_POWER), _no_negative_zero]
Percent = Annotated[float, Field(ge=0, le=100), _no_negative_zero]
Epoch = Annotated[int, Field(ge=0, le=2**32 - 1)]

OptionalPower = Annotated[Power | None, WrapValidator(_drop_invalid)]
OptionalEnergy = Annotated[Energy | None, WrapValidator(_drop_invalid)]
OptionalNumber = Annotated[Number | None, WrapValidator(_drop_invalid)]
OptionalPercent = Annotated[Percent | None, WrapValidator(_drop_invalid)]
OptionalEpoch = Annotated[Epoch | None, WrapValidator(_drop_invalid)]
OptionalText = Annotated[str | None, WrapValidator(_drop_invalid)]

PositionalEntries = Annotated[tuple[Annotated[T | None, WrapValidator(_drop_invalid)], ...], Strict(strict=False)]
"""A list in which an invalid entry becomes None, so that the others keep their positions."""

Entries = Annotated[
    tuple[Annotated[T, WrapValidator(_drop_invalid)], ...],
    Strict(strict=False),  # accepts JSON's list for a tuple; the entries stay strict
    Field(max_length=MAX_ENTRIES),
    AfterValidator(_without_none),
    BeforeValidator(_null_as_empty),
]
"""A list without its invalid entries."""

PhaseCount = Annotated[int, Field(ge=1, le=3), WrapValidator(_drop_invalid), AfterValidator(lambda count: count or 1)]
"""One where the gateway sends none: the meter's total is right however many phases it has."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class MeterValues(_Model):
    """The values of a meter or of one of its channels; power and energy are positive toward the switchboard."""

    activePower: Power
    apparentPower: OptionalPower = None
    reactivePower: OptionalPower = None
    pwrFactor: OptionalNumber = None
    voltage: OptionalNumber = None
    current: OptionalNumber = None
    freq: OptionalNumber = None
    actEnergyDlvd: OptionalEnergy = None
    actEnergyRcvd: OptionalEnergy = None


class MeterReading(MeterValues):
    """One entry of ``/ivp/meters/readings``; three channels, of which a gateway uses as many as the site has phases."""

    eid: int
    timestamp: OptionalEpoch = None
    channels: Annotated[PositionalEntries[MeterValues] | None, WrapValidator(_drop_invalid)] = ()


class MeterDetails(_Model):
    """One entry of ``/ivp/meters``: type and state of the meter with this eid."""

    eid: int
    state: str
    measurementType: Name
    phaseCount: PhaseCount = 1
    phaseMode: OptionalText = None


class GatewayProduction(_Model):
    """``/api/v1/production``: the gateway's own production counters."""

    wattHoursToday: OptionalEnergy = None
    wattHoursSevenDays: OptionalEnergy = None
    wattHoursLifetime: OptionalEnergy = None
    wattsNow: Power


class ProductionEntry(_Model):
    """One entry of ``/production.json``; its type is ``inverters``, ``eim`` (a meter) or ``acb`` (AC Batteries)."""

    type: str
    measurementType: OptionalText = None
    activeCount: int = 0
    readingTime: OptionalEpoch = None
    wNow: OptionalPower = None
    whLifetime: Annotated[SignedEnergy | None, WrapValidator(_drop_invalid)] = None
    """Negative where net-consumption is a difference that the export outweighs."""
    whToday: OptionalEnergy = None
    whLastSevenDays: OptionalEnergy = None
    whNow: OptionalEnergy = None
    percentFull: OptionalPercent = None
    state: OptionalText = None


class ProductionJson(_Model):
    """``/production.json``."""

    production: Entries[ProductionEntry] = ()
    consumption: Entries[ProductionEntry] = ()
    storage: Entries[ProductionEntry] = ()


class InverterReport(_Model):
    """One entry of ``/api/v1/production/inverters``: the last report of one inverter."""

    serialNumber: Name
    lastReportDate: Epoch
    devType: Annotated[int | None, WrapValidator(_drop_invalid)] = None
    lastReportWatts: Power
    maxReportWatts: OptionalPower = None


class LastReading(_Model):
    """The last report of an inverter's channel in ``/ivp/pdm/device_data``; thousandths of V, A and Hz."""

    endDate: Epoch
    acVoltageINmV: OptionalNumber = None
    acFrequencyINmHz: OptionalNumber = None
    dcVoltageINmV: OptionalNumber = None
    dcCurrentINmA: OptionalNumber = None
    channelTemp: OptionalNumber = None


class ChannelWatts(_Model):
    """The power of an inverter's channel."""

    now: Power
    max: OptionalPower = None


class ChannelLifetime(_Model):
    """The energy of an inverter's channel."""

    joulesProduced: Annotated[float | None, Field(ge=0, le=MAX_ENERGY * 3600), WrapValidator(_drop_invalid)] = None


class DeviceChannel(_Model):
    """One input of an inverter."""

    watts: ChannelWatts
    lastReading: LastReading
    lifetime: Annotated[ChannelLifetime | None, WrapValidator(_drop_invalid)] = None


class Device(_Model):
    """One device of ``/ivp/pdm/device_data``; one that is not active may have no channels."""

    devName: str
    sn: Name
    active: bool = False
    channels: PositionalEntries[DeviceChannel] = ()

    @property
    def channel(self) -> DeviceChannel | None:
        """The first channel; None if it is missing or invalid."""
        return self.channels[0] if self.channels else None


class DeviceData(_Model):
    """``/ivp/pdm/device_data``: the inverters, and how many devices the response can list."""

    deviceCount: int
    deviceDataLimit: int
    devices: PositionalEntries[Device] = ()

    @property
    def lists_all_inverters(self) -> bool:
        """Whether every active inverter is listed and valid.

        From ``deviceDataLimit`` devices on, the list is truncated (pyenphase, docs/known_issues.md).
        """
        if self.deviceCount >= self.deviceDataLimit:
            return False
        active = [device for device in self.devices if device is None or device.active]
        return bool(active) and all(device is not None and device.channel is not None for device in active)


def _devices_as_list(response: object) -> object:
    """Return the response with its inverters in a list: the gateway sends devices and counts as keys of one object."""
    if not isinstance(response, dict):
        return response
    devices = [value for value in response.values() if isinstance(value, dict) and value.get("devName") == "pcu"]
    return {key: response.get(key) for key in ("deviceCount", "deviceDataLimit")} | {"devices": devices}


class PdmEnergyCounter(_Model):
    """The counters of one source in ``/ivp/pdm/energy``."""

    wattHoursToday: OptionalEnergy = None
    wattHoursSevenDays: OptionalEnergy = None
    wattHoursLifetime: OptionalEnergy = None


class PdmProduction(_Model):
    """The production part of ``/ivp/pdm/energy``; ``pcu`` is the sum of the inverters."""

    pcu: Annotated[PdmEnergyCounter | None, WrapValidator(_drop_invalid)] = None


class PdmEnergy(_Model):
    """``/ivp/pdm/energy``."""

    production: PdmProduction


class BatteryDetails(_Model):
    """One IQ Battery in ``/ivp/ensemble/inventory``."""

    serial_num: Name
    percentFull: OptionalPercent = None
    temperature: OptionalNumber = None
    encharge_capacity: OptionalEnergy = None
    last_rpt_date: OptionalEpoch = None


class BatteryPower(_Model):
    """One battery in ``/ivp/ensemble/power``; discharge is positive."""

    serial_num: Name
    real_power_mw: Annotated[float, Field(ge=-1000 * MAX_POWER, le=1000 * MAX_POWER), _no_negative_zero]
    soc: OptionalPercent = None


class EnsemblePower(_Model):
    """``/ivp/ensemble/power``; the colon is part of the key."""

    devices: Entries[BatteryPower] = Field((), alias="devices:")


class BatteryTotals(_Model):
    """``/ivp/ensemble/secctrl``: IQ Batteries (ENC), AC Batteries (ACB) and both together (agg)."""

    ENC_agg_soc: OptionalPercent = None
    ENC_agg_avail_energy: OptionalEnergy = None
    Enc_max_available_capacity: OptionalEnergy = None
    agg_soc: OptionalPercent = None
    Max_energy: OptionalEnergy = None
    ACB_agg_energy: OptionalEnergy = None


def _batteries_of(groups: object) -> object:
    """Return the IQ Batteries: the inventory also lists relays and system controllers, the latter in Fahrenheit."""
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
DEVICE_DATA: TypeAdapter[DeviceData] = TypeAdapter(Annotated[DeviceData, BeforeValidator(_devices_as_list)])
PDM_ENERGY: TypeAdapter[PdmEnergy] = TypeAdapter(PdmEnergy)
BATTERIES: TypeAdapter[tuple[BatteryDetails, ...]] = TypeAdapter(
    Annotated[Entries[BatteryDetails], BeforeValidator(_batteries_of)]
)
BATTERY_POWER: TypeAdapter[EnsemblePower] = TypeAdapter(EnsemblePower)
BATTERY_TOTALS: TypeAdapter[BatteryTotals] = TypeAdapter(BatteryTotals)


def parse_json(adapter: TypeAdapter[T], body: bytes) -> tuple[T, list[str]]:
    """Return a response, and what was dropped from it.

    Raises:
        BadResponse: none of it is valid.
    """
    dropped: list[str] = []
    try:
        return adapter.validate_json(body, context=dropped), dropped
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        location = ".".join(str(part) for part in fault["loc"])
        raise BadResponse(f"{location}: {fault['msg']}" if location else fault["msg"]) from None
