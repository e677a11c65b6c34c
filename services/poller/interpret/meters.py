"""Meters: every enabled meter, and each of its phases."""

from collections.abc import Iterator

from services.poller.interpret import quirks
from services.poller.models import MeterValues
from services.poller.snapshot import STORAGE, MeasuredMeter, SiteView
from shared.readings import Meter, MeterPhase


def interpret_meters(view: SiteView) -> Iterator[Meter | MeterPhase]:
    """Yield the reading of each meter and, where it has several phases, of each phase."""
    for measurement_type, meter in view.meters.items():
        missing_phase = missing_storage_phase(view) if measurement_type == STORAGE else None
        if missing_phase is None:
            yield Meter(type=measurement_type, timestamp=view.moment, **_values(meter.reading))
        yield from _phases(measurement_type, meter, missing_phase, view.moment)


def missing_storage_phase(view: SiteView) -> int | None:
    """Return which phase of the storage meter is missing in its total, counted from 0; None if none is."""
    storage = view.meters.get(STORAGE)
    if storage is None or storage.details.phaseMode != "split":
        return None
    values = (storage.reading, *_channels(storage))
    energies_wh = [(each.actEnergyDlvd, each.actEnergyRcvd) for each in values if each is not None]
    return quirks.missing_storage_phase(view.site.identity.version, energies_wh)


def _phases(
    measurement_type: str, meter: MeasuredMeter, missing_phase: int | None, moment: int
) -> Iterator[MeterPhase]:
    if meter.details.phaseCount == 1:
        return
    for index, channel in enumerate(_channels(meter)):
        if channel is not None and index != missing_phase:
            yield MeterPhase(type=measurement_type, phase=index + 1, timestamp=moment, **_values(channel))


def _channels(meter: MeasuredMeter) -> tuple[MeterValues | None, ...]:
    """Return the channels of a meter; those beyond ``phaseCount`` are zero or another meter's (fixture 8.2.4286)."""
    return (meter.reading.channels or ())[: meter.details.phaseCount]


def _values(values: MeterValues) -> dict[str, float | None]:
    return {
        "active_power_w": values.activePower,
        "apparent_power_va": values.apparentPower,
        "reactive_power_var": values.reactivePower,
        "power_factor": values.pwrFactor,
        "voltage_v": values.voltage,
        "current_a": values.current,
        "frequency_hz": None if quirks.frequency_is_missing(values.freq) else values.freq,
        "energy_delivered_wh": values.actEnergyDlvd,
        "energy_received_wh": values.actEnergyRcvd,
    }
