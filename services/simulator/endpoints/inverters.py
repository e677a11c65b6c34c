"""The inverters: ``/api/v1/production/inverters``, ``/ivp/pdm/device_data`` and ``/inventory``."""

from typing import NamedTuple

from services.simulator.gateway import Model, State
from services.simulator.inverters import REPORT_INTERVAL_S, Report
from services.simulator.meters import frequency_hz, voltage_v

PCU_DEVICE_ID = 553648384
PCU_CHANNEL_EID = 1627390225
PART_NUMBER = "800-01331-r02"
SILENT_AFTER_S = 900
MAX_DEVICES = 50
"""``device_data`` leaves out more devices (pyenphase, docs/known_issues.md)."""


class Totals(NamedTuple):
    """The sums of all inverters."""

    time: int
    """Of the newest report; 0 if all inverters are silent."""
    power_w: int
    """0 if all are silent."""
    energy_wh: int


def sum_reports(state: State) -> Totals:
    """Return the sums of the inverters' newest reports."""
    newest = max((report.time for report in state.reports), default=0)
    energy_wh = sum(report.lifetime_j for report in state.reports) // 3600
    if state.time - newest > SILENT_AFTER_S:
        return Totals(0, 0, energy_wh)
    return Totals(newest, sum(report.power_w for report in state.reports), energy_wh)


def _v1_inverters(_: Model, state: State) -> list[dict[str, object]]:
    return [
        {
            "serialNumber": report.inverter.serial,
            "lastReportDate": report.time,
            "devType": 1,
            "lastReportWatts": report.power_w,
            "maxReportWatts": report.inverter.max_report_w,
        }
        for report in state.reports
    ]


def _device_data(model: Model, state: State) -> dict[str, object]:
    """Return the inverters in detail, without those beyond MAX_DEVICES."""
    count = min(MAX_DEVICES, len(state.reports))
    devices: dict[str, object] = {
        str(PCU_DEVICE_ID + 256 * number): _device(model, state, number, report)
        for number, report in enumerate(state.reports[:count])
    }
    return devices | {"deviceCount": count, "deviceDataLimit": MAX_DEVICES}


def _device(model: Model, state: State, number: int, report: Report) -> dict[str, object]:
    eid = PCU_CHANNEL_EID + 256 * number
    volts = voltage_v(model.phases, number % model.phases, report.time, 0)
    dc_volts = 38 - 4 * report.power_w / max(1, report.inverter.max_report_w)
    return {
        "devName": "pcu",
        "sn": report.inverter.serial,
        "active": True,
        "modGone": state.time - report.time > SILENT_AFTER_S,
        "channels": [
            {
                "chanEid": eid,
                "created": report.time,
                "wattHours": {"today": report.today_wh, "yesterday": 0, "week": 0},
                "watts": {"now": report.power_w, "nowUsed": 0, "max": report.inverter.max_report_w},
                "lastReading": {
                    "eid": eid,
                    "interval_type": 0,
                    "endDate": report.time,
                    "duration": REPORT_INTERVAL_S,
                    "flags": 0,
                    "flags_hex": "0x0000000000000000",
                    "joulesProduced": report.energy_j,
                    "acVoltageINmV": round(volts * 1000),
                    "acFrequencyINmHz": round(frequency_hz(model.phases, report.time) * 1000),
                    "dcVoltageINmV": round(dc_volts * 1000),
                    "dcCurrentINmA": round(report.power_w / 0.97 / dc_volts * 1000),
                    "channelTemp": round(15 + 35 * report.power_w / max(1, report.inverter.max_report_w)),
                    "pwrConvErrSecs": 0,
                    "pwrConvMaxErrCycles": 0,
                    "joulesUsed": 0,
                    "leadingVArs": 0,
                    "laggingVArs": round(report.power_w * 0.02),
                    "acCurrentInmA": round(report.power_w / volts * 1000),
                    "l1NAcVoltageInmV": 0,
                    "l2NAcVoltageInmV": 0,
                    "l3NAcVoltageInmV": 0,
                    "rssi": 100 + number % 20,
                    "issi": 70,
                },
                "lifetime": {
                    "createdTime": model.commissioned_at,
                    "duration": max(0, report.time - model.commissioned_at),
                    "joulesProduced": report.lifetime_j,
                },
            }
        ],
    }


def _inventory(model: Model, state: State) -> list[dict[str, object]]:
    pcu = [
        {
            "part_num": PART_NUMBER,
            "installed": str(model.commissioned_at),
            "serial_num": report.inverter.serial,
            "device_status": ["envoy.global.ok"],
            "last_rpt_date": str(report.time),
            "admin_state": 1,
            "dev_type": 1,
            "created_date": str(model.commissioned_at),
            "img_load_date": str(model.commissioned_at),
            "img_pnum_running": "520-00082-r01-v04.30.12",
            "ptpn": "540-00169-r01-v04.30.07",
            "chaneid": PCU_CHANNEL_EID + 256 * number,
            "device_control": [{"gficlearset": False}],
            "producing": state.time - report.time <= SILENT_AFTER_S,
            "communicating": state.time - report.time <= SILENT_AFTER_S,
            "provisioned": True,
            "operating": True,
            "phase": f"ph-{'abc'[number % model.phases]}",
        }
        for number, report in enumerate(state.reports)
    ]
    return [{"type": "PCU", "devices": pcu}, {"type": "ACB", "devices": []}, {"type": "NSRB", "devices": []}]


ENDPOINTS = {
    "/api/v1/production/inverters": _v1_inverters,
    "/ivp/pdm/device_data": _device_data,
    "/inventory": _inventory,
    "/inventory.json": _inventory,
}
