"""Inverters: the last report of each, at its own time."""

from collections.abc import Iterator

from services.poller.endpoints import DEVICE_DATA, INVERTERS
from services.poller.interpret import quirks
from services.poller.models import Device, DeviceChannel
from services.poller.snapshot import SiteView
from shared.readings import Inverter

JOULES_PER_WH = 3600
DECIMALS = 3


def interpret_inverters(view: SiteView) -> Iterator[Inverter]:
    """Yield each inverter's last report, from the more detailed endpoint where that lists all of them."""
    devices = view.snapshot.get(DEVICE_DATA)
    if devices is not None and devices.lists_all_inverters:
        for device in devices.devices:
            channel = device.channel if device is not None else None
            if device is not None and device.active and channel is not None and channel.lastReading.endDate:
                yield _detailed(device, channel)
        return
    for report in view.snapshot.get(INVERTERS) or ():
        # Without a time it has never reported.
        if report.lastReportDate and not quirks.is_ac_battery(report.devType):
            yield Inverter(
                serial=report.serialNumber,
                timestamp=report.lastReportDate,
                power_w=report.lastReportWatts,
                max_power_w=report.maxReportWatts,
            )


def _detailed(device: Device, channel: DeviceChannel) -> Inverter:
    last = channel.lastReading
    joules = channel.lifetime.joulesProduced if channel.lifetime else None
    return Inverter(
        serial=device.sn,
        timestamp=last.endDate,
        power_w=channel.watts.now,
        max_power_w=channel.watts.max,
        dc_voltage_v=_from_thousandths(last.dcVoltageINmV),
        dc_current_a=_from_thousandths(last.dcCurrentINmA),
        ac_voltage_v=_from_thousandths(last.acVoltageINmV),
        ac_frequency_hz=_from_thousandths(last.acFrequencyINmHz),
        temperature_c=last.channelTemp,
        energy_lifetime_wh=round(joules / JOULES_PER_WH, DECIMALS) if joules else None,
    )


def _from_thousandths(value: float | None) -> float | None:
    return value / 1000 if value is not None else None
