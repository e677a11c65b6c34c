"""The readings of the MQTT contract: one frozen class for each kind, a unit in every name.

A reading's *kind* is the end of its topic: ``production``, ``inverter/<serial>``, ``meter/<type>/phase/<1..3>``.
What is part of the kind (a serial, a type, a phase) is a field of the object and not in the payload.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationInfo, model_validator

from shared.payload import InvalidPayload, Payload
from shared.topics import SERIAL_PATTERN

Timestamp = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""Epoch seconds. Whisper has 32 bits for them (graphite-project/whisper, whisper.py), so milliseconds are rejected."""

Percent = Annotated[float, Field(ge=0, le=100)]
Serial = Annotated[str, Field(pattern=f"^{SERIAL_PATTERN.pattern}$")]
"""A gateway's serial number."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Phase = Annotated[int, Field(ge=1, le=3, strict=False)]


class Reading(Payload):
    """What was measured at one time."""

    kind_template: ClassVar[str]
    """The kind, with the names of the fields that are part of it in braces."""

    timestamp: Timestamp

    @property
    def kind(self) -> str:
        """The end of the topic, such as ``inverter/122012345678``."""
        return self.kind_template.format_map({name: getattr(self, name) for name in self.identity})

    def numbers(self) -> dict[str, float]:
        """Return the fields that are numbers, without the timestamp: those that a time series can store."""
        fields: dict[str, Any] = self.model_dump(exclude={"timestamp", *self.identity}, exclude_none=True)
        return {name: value for name, value in fields.items() if isinstance(value, int | float)}


class IdentifiedReading(Reading):
    """A reading of one device or phase of several; the kind identifies which."""

    @model_validator(mode="before")
    @classmethod
    def _add_identity(cls, fields: object, topic: ValidationInfo) -> object:
        return fields | topic.context if topic.context and isinstance(fields, dict) else fields


class Production(Reading):
    """What the solar panels produce."""

    kind_template = "production"
    power_w: float | None = None
    energy_lifetime_wh: float | None = None
    source: Literal["meter", "gateway", "inverters"]
    """Where it comes from: the production CT, the gateway's own estimate, or the sum over the inverters."""


class Consumption(Reading):
    """What the house consumes, as the gateway counts it: production plus net-consumption."""

    kind_template = "consumption"
    power_w: float | None = None
    energy_lifetime_wh: float | None = None


class Grid(Reading):
    """What is imported from the grid and exported to it."""

    kind_template = "grid"
    power_w: float
    """Import is positive, export negative."""
    import_power_w: float
    export_power_w: float
    import_lifetime_wh: float | None = None
    export_lifetime_wh: float | None = None


class Batteries(Reading):
    """All batteries of the site together."""

    kind_template = "battery"
    power_w: float | None = None
    """Discharge is positive, charge negative."""
    charge_percent: Percent | None = None
    available_energy_wh: float | None = None
    capacity_wh: float | None = None
    charge_lifetime_wh: float | None = None
    discharge_lifetime_wh: float | None = None


class Battery(IdentifiedReading):
    """One battery."""

    kind_template = "battery/{serial}"
    identity = frozenset({"serial"})
    serial: Name
    power_w: float | None = None
    charge_percent: Percent | None = None
    temperature_c: float | None = None
    capacity_wh: float | None = None


class MeterValues(IdentifiedReading):
    """What one meter, or one phase of it, measures; power and energy are positive toward the switchboard."""

    active_power_w: float | None = None
    apparent_power_va: float | None = None
    reactive_power_var: float | None = None
    power_factor: float | None = None
    voltage_v: float | None = None
    current_a: float | None = None
    frequency_hz: float | None = None
    energy_delivered_wh: float | None = None
    energy_received_wh: float | None = None


class Meter(MeterValues):
    """A meter over all its phases; voltage and current are the gateway's sums."""

    kind_template = "meter/{type}"
    identity = frozenset({"type"})
    type: Name
    """As the gateway names it: ``production``, ``net-consumption``, ``storage``, …"""


class MeterPhase(MeterValues):
    """One phase of a meter."""

    kind_template = "meter/{type}/phase/{phase}"
    identity = frozenset({"type", "phase"})
    type: Name
    phase: Phase


class Inverter(IdentifiedReading):
    """One inverter, at the time of its last report."""

    kind_template = "inverter/{serial}"
    identity = frozenset({"serial"})
    serial: Name
    power_w: float
    max_power_w: float | None = None
    dc_voltage_v: float | None = None
    dc_current_a: float | None = None
    ac_voltage_v: float | None = None
    ac_frequency_hz: float | None = None
    temperature_c: float | None = None
    energy_lifetime_wh: float | None = None


class Energy(Reading):
    """The energy of the day and of seven days, as the gateway counts it."""

    kind_template = "energy"
    production_today_wh: float | None = None
    production_last_7_days_wh: float | None = None
    consumption_today_wh: float | None = None
    consumption_last_7_days_wh: float | None = None


class Interval(Reading):
    """One closed quarter-hour; the timestamp is its end."""

    kind_template = "interval"
    duration_s: Annotated[int, Field(gt=0)]
    production_wh: float | None = None
    consumption_wh: float | None = None
    import_wh: float | None = None
    export_wh: float | None = None
    charge_wh: float | None = None
    discharge_wh: float | None = None
    source: Literal["local", "cloud"]


class Metrics(Reading):
    """A service's own counters and gauges, under names that the service chooses."""

    model_config = ConfigDict(extra="allow")
    kind_template = "metrics"
    __pydantic_extra__: dict[Name, float]


READINGS: tuple[type[Reading], ...] = (
    Production,
    Consumption,
    Grid,
    Batteries,
    Battery,
    Meter,
    MeterPhase,
    Inverter,
    Energy,
    Interval,
    Metrics,
)


@lru_cache(maxsize=4096)
def _class_and_identity(kind: str) -> tuple[type[Reading], Mapping[str, str]]:
    for reading_class in READINGS:
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", reading_class.kind_template)
        if match := re.fullmatch(pattern, kind):
            return reading_class, match.groupdict()
    raise InvalidPayload(f"unknown kind of reading: {kind!r}")


def reading_from_json(kind: str, payload: bytes) -> Reading:
    """Return the reading of a kind, which is part of the topic, from its payload.

    Raises:
        InvalidPayload: the kind is unknown, or the payload does not fit it.
    """
    reading_class, identity = _class_and_identity(kind)
    return reading_class.from_json(payload, identity)
