"""The readings of the inverters: each at the time of its own report."""

from collections.abc import Iterator

from services.poller import quirks
from services.poller.answers import Device, DeviceChannel, DeviceData, InverterReport
from shared.readings import Inverter

JOULES_A_WH = 3600
MICROWATT_HOURS = 3


def inverter_readings(device_data: DeviceData | None, reports: tuple[InverterReport, ...]) -> Iterator[Inverter]:
    """Yield each inverter's last report, out of the more detailed answer where that is whole."""
    if device_data is not None and lists_all_inverters(device_data):
        for device in device_data.devices:
            channel = device.channel if device is not None else None
            if device is not None and device.active and channel is not None and channel.lastReading.endDate:
                yield _detailed(device, channel)
        return
    for report in reports:
        # Without a time it has never reported.
        if report.lastReportDate and not quirks.is_ac_battery(report.devType):
            yield Inverter(
                serial=report.serialNumber,
                timestamp=report.lastReportDate,
                power_w=report.lastReportWatts,
                max_power_w=report.maxReportWatts,
            )


def lists_all_inverters(device_data: DeviceData) -> bool:
    """Return whether all inverters are listed, and can be read.

    From its limit on, the list is cut (pyenphase, docs/known_issues.md). One that cannot be read is in the plain list.
    """
    if device_data.deviceCount >= device_data.deviceDataLimit:
        return False
    active = [device for device in device_data.devices if device is None or device.active]
    return bool(active) and all(device is not None and device.channel is not None for device in active)


def _detailed(device: Device, channel: DeviceChannel) -> Inverter:
    last = channel.lastReading
    joules = channel.lifetime.joulesProduced if channel.lifetime else None
    return Inverter(
        serial=device.sn,
        timestamp=last.endDate,
        power_w=channel.watts.now,
        max_power_w=channel.watts.max,
        dc_voltage_v=_thousandths(last.dcVoltageINmV),
        dc_current_a=_thousandths(last.dcCurrentINmA),
        ac_voltage_v=_thousandths(last.acVoltageINmV),
        ac_frequency_hz=_thousandths(last.acFrequencyINmHz),
        temperature_c=last.channelTemp,
        energy_lifetime_wh=round(joules / JOULES_A_WH, MICROWATT_HOURS) if joules else None,
    )


def _thousandths(value: float | None) -> float | None:
    return value / 1000 if value is not None else None
