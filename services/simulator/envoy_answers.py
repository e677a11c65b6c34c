"""What the gateway answers at each address: its view turned into the bodies that real gateways send.

The shapes, and the quirks kept in them on purpose, are those of pyenphase's recordings and documentation
(docs/endpoint_json.md, docs/known_issues.md) and of Matthew1471's Enphase-API documentation.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from zoneinfo import ZoneInfo

from services.simulator.answer import HTML, JSON, XML, Answer, html_answer, json_answer
from services.simulator.battery import RESERVE_SHARE
from services.simulator.energy import Energy
from services.simulator.gateway import Model, View
from services.simulator.inverters import REPORT_INTERVAL_S, Report
from services.simulator.meters import Line, Meter, frequency_hz, voltage_v

_METER_EID = 704643328
_CHANNEL_EID = 1778385169
_PCU_DEVICE_ID = 553648384
_PCU_CHANNEL_EID = 1627390225
_DEVICE_DATA_LIMIT = 50
_WRAP_WH = 2**32 // 3600
"""Below firmware 8 the sum of the inverters' joules wraps at 2^32."""
_SILENT_AFTER_S = 900
_FIRMWARE_WITH_DEVICE_DATA = 8
_BATTERY_PART, _INVERTER_PART = "830-01760-r37", "800-01331-r02"


def not_found(path: str) -> Answer:
    """Return what a path that is not there gets: JSON under /ivp and /admin, elsewhere a redirect to an error page."""
    if path.startswith(("/ivp/", "/admin/", "/api/")):
        answer = json_answer({"error": "404 - Not Found"}, HTTPStatus.NOT_FOUND)
        return Answer(answer.status, answer.body, f"{JSON}; charset=ISO-8859-4")
    if path == "/":
        return html_answer(HTTPStatus.NOT_FOUND, "404 Not Found")
    page = html_answer(HTTPStatus.MOVED_PERMANENTLY, "301 Moved Permanently")
    return Answer(page.status, page.body, HTML, (("Location", "/error/404"),))


def envoy_answer(model: Model, view: View, path: str, query: str) -> Answer:
    """Return the answer to a GET that was let in."""
    if path in ("/info", "/info.xml"):
        return Answer(HTTPStatus.OK, _info(model, view).encode(), XML)
    if path == "/production" and not model.takes_tokens:
        # Firmware 4 and 5 refuse it while /production.json works (pyenphase recordings 4.10.35, 5.0.62).
        return html_answer(HTTPStatus.UNAUTHORIZED, "401 Unauthorized")
    if path in ("/production", "/production.json"):
        details = "details=1" in query.split("&")
        return json_answer(_production(model, view, details=details))
    build = ADDRESSES.get(path)
    if (
        build is None
        or (path in _TOKEN_FIRMWARE_ONLY and not model.takes_tokens)
        or (path == "/ivp/pdm/device_data" and model.firmware < _FIRMWARE_WITH_DEVICE_DATA)
    ):
        return not_found(path)
    return json_answer(build(model, view))


def _info(model: Model, view: View) -> str:
    part = "800-00654-r08" if model.metered else "800-00551-r02"
    web_tokens = "  <web-tokens>true</web-tokens>\n" if model.takes_tokens else ""
    major, minor, build = model.software[1:].split(".")
    return (
        "<?xml version='1.0' encoding='UTF-8'?>\n"
        "<envoy_info>\n"
        f"  <time>{view.time}</time>\n"
        "  <device>\n"
        f"    <sn>{model.serial}</sn>\n"
        f"    <pn>{part}</pn>\n"
        f"    <software>{model.software}</software>\n"
        "    <euaid>51a001</euaid>\n"
        "    <seqnum>0</seqnum>\n"
        "    <apiver>1</apiver>\n"
        f"    <imeter>{str(model.metered).lower()}</imeter>\n"
        "  </device>\n"
        f"{web_tokens}"
        "  <package name='app'>\n"
        "    <pn>500-00002-r01</pn>\n"
        f"    <version>{int(major):02d}.{int(minor):02d}.{build}</version>\n"
        "    <build>51a001</build>\n"
        "  </package>\n"
        "  <build_info>\n"
        "    <build_id>simulator</build_id>\n"
        f"    <build_time_gmt>{model.commissioned_at}</build_time_gmt>\n"
        "  </build_info>\n"
        "</envoy_info>\n"
    )


def _inverter_sums(view: View) -> tuple[int, int, int]:
    """Return the inverters' newest report time and summed power, both 0 once all are silent, and their energy."""
    newest = max((report.time for report in view.reports), default=0)
    energy_wh = sum(report.lifetime_j for report in view.reports) // 3600
    if view.time - newest > _SILENT_AFTER_S:
        return 0, 0, energy_wh
    return newest, sum(report.power_w for report in view.reports), energy_wh


def _production(model: Model, view: View, *, details: bool) -> dict[str, object]:
    reading_time, power_w, energy_wh = _inverter_sums(view)
    inverters = {
        "type": "inverters",
        "activeCount": len(view.reports),
        "readingTime": reading_time,
        "wNow": power_w,
        "whLifetime": energy_wh % _WRAP_WH if model.firmware < _FIRMWARE_WITH_DEVICE_DATA else energy_wh,
    }
    storage = {"type": "acb", "activeCount": 0, "readingTime": 0, "wNow": 0, "whNow": 0, "state": "idle"}
    if not view.meters:
        return {"production": [inverters], "storage": [storage]}
    eims = _eims(view, details=details)
    return {"production": [inverters, eims[0]], "consumption": eims[1:], "storage": [storage]}


def _eims(view: View, *, details: bool) -> list[dict[str, object]]:
    """Return the eim sections: production as measured, total-consumption as computed, net-consumption as measured."""
    production, net = view.meters[:2]
    phases = len(production.lines)
    made, used, bought = [], [], []
    for phase, (inner, outer) in enumerate(zip(production.lines, net.lines, strict=True)):
        days_wh = view.today.produced_wh / phases, view.last_seven_days.produced_wh / phases
        made.append(_eim_line(inner, inner.delivered_wh, *days_wh))
        bought.append(_eim_line(outer, outer.delivered_wh - outer.received_wh, 0, 0))
        used.append(
            _sum_of((made[-1], bought[-1]))
            | {
                "whLifetime": _used_wh(view.lifetime, phase),
                "rmsVoltage": outer.voltage_v,
                "whToday": _used_wh(view.today, phase),
                "whLastSevenDays": _used_wh(view.last_seven_days, phase),
            }
        )
    sections = []
    for kind, lines in (("production", made), ("total-consumption", used), ("net-consumption", bought)):
        section: dict[str, object] = {"type": "eim", "activeCount": 1, "measurementType": kind}
        section |= {"readingTime": view.time, **_eim_numbers(_sum_of(lines), kind)}
        if details:
            section["lines"] = [_eim_numbers(line, kind) for line in lines]
        sections.append(section)
    return sections


def _used_wh(energy: Energy, phase: int) -> float:
    own_wh = (energy.produced_wh - energy.drawn_wh) / len(energy.imported_wh)
    return own_wh + energy.imported_wh[phase] - energy.exported_wh[phase]


def _eim_line(line: Line, lifetime_wh: float, today_wh: float, last_seven_days_wh: float) -> dict[str, float]:
    """Return one phase; other than in the meter readings, current and apparent power are negative on export."""
    sign = -1 if line.active_w < 0 else 1
    return {
        "wNow": line.active_w,
        "whLifetime": lifetime_wh,
        "varhLeadLifetime": line.leading_varh,
        "varhLagLifetime": line.lagging_varh,
        "vahLifetime": line.apparent_vah,
        "rmsCurrent": sign * line.current_a,
        "rmsVoltage": line.voltage_v,
        "reactPwr": line.reactive_var,
        "apprntPwr": sign * line.apparent_va,
        "whToday": today_wh,
        "whLastSevenDays": last_seven_days_wh,
    }


def _sum_of(lines: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: sum(line[key] for line in lines) for key in lines[0]}


def _eim_numbers(values: dict[str, float], kind: str) -> dict[str, float]:
    numbers = {key: round(value, 3) for key, value in values.items()}
    apparent_va = abs(values["apprntPwr"])
    numbers["pwrFactor"] = round(max(-1.0, min(1.0, values["wNow"] / apparent_va)), 2) if apparent_va else 0.0
    if kind == "net-consumption":  # it has no day counters: integer zeros in every recording
        return numbers | dict.fromkeys(_DAY_COUNTERS, 0)
    return numbers | {"vahToday": round(values["whToday"] * 1.02, 3), "varhLeadToday": 0.0, "varhLagToday": 0.0}


def _v1_production(_: Model, view: View) -> dict[str, int]:
    if view.meters:
        power_w, lifetime_wh = view.power.production_w, view.meters[0].total.delivered_wh
        today_wh, week_wh = view.today.produced_wh, view.last_seven_days.produced_wh
    else:
        power_w, lifetime_wh = _inverter_sums(view)[1:]
        today_wh = sum(report.today_wh for report in view.reports)
        week_wh = view.last_seven_days.produced_wh
    return {
        "wattHoursToday": round(today_wh),
        "wattHoursSevenDays": round(week_wh),
        "wattHoursLifetime": round(lifetime_wh),
        "wattsNow": round(power_w),
    }


def _v1_inverters(_: Model, view: View) -> list[dict[str, object]]:
    return [
        {
            "serialNumber": report.inverter.serial,
            "lastReportDate": report.time,
            "devType": 1,
            "lastReportWatts": report.power_w,
            "maxReportWatts": report.inverter.max_report_w,
        }
        for report in view.reports
    ]


def _meters(_: Model, view: View) -> list[dict[str, object]]:
    return [
        {
            "eid": _METER_EID + 256 * number,
            "state": "enabled",
            "measurementType": meter.kind,
            # A single-phase gateway says "three" too; only phaseCount tells.
            "phaseMode": "split" if len(meter.lines) == 2 else "three",  # noqa: PLR2004 - two legs
            "phaseCount": len(meter.lines),
            "meteringStatus": "normal",
            "statusFlags": [],
        }
        for number, meter in enumerate(view.meters)
    ]


def _reading(eid: int, time: int, line: Line) -> dict[str, object]:
    return {
        "eid": eid,
        "timestamp": time,
        "actEnergyDlvd": round(line.delivered_wh, 3),
        "actEnergyRcvd": round(line.received_wh, 3),
        "apparentEnergy": round(line.apparent_vah, 3),
        "reactEnergyLagg": round(line.lagging_varh, 3),
        "reactEnergyLead": round(line.leading_varh, 3),
        "instantaneousDemand": round(line.active_w, 3),
        "activePower": round(line.active_w, 3),
        "apparentPower": round(line.apparent_va, 3),
        "reactivePower": round(line.reactive_var, 3),
        "pwrFactor": round(line.power_factor, 3),
        "voltage": round(line.voltage_v, 3),
        "current": round(line.current_a, 3),
        "freq": round(line.frequency_hz, 3),
    }


def _channels(meter: Meter) -> list[Line]:
    """Return three channels: the gateway always tells three, those without a phase all zero but the frequency."""
    unused = Line(0.0, 0.0, 0.0, 0.0, 0.0, meter.lines[0].frequency_hz, 0.0, 0.0, 0.0, 0.0, 0.0)
    return [*meter.lines, unused, unused][:3]


def _readings(_: Model, view: View) -> list[dict[str, object]]:
    return [
        _reading(_METER_EID + 256 * number, view.time, meter.total)
        | {
            "channels": [
                _reading(_CHANNEL_EID + 256 * number + place, view.time, line)
                for place, line in enumerate(_channels(meter))
            ]
        }
        for number, meter in enumerate(view.meters)
    ]


def _report_line(line: Line) -> dict[str, float]:
    return {
        "currW": round(line.active_w, 3),
        "actPower": round(line.active_w, 3),
        "apprntPwr": round(line.apparent_va, 3),
        "reactPwr": round(line.reactive_var, 3),
        "whDlvdCum": round(line.delivered_wh, 3),
        "whRcvdCum": round(line.received_wh, 3),
        "varhLagCum": round(line.lagging_varh, 3),
        "varhLeadCum": round(line.leading_varh, 3),
        "vahCum": round(line.apparent_vah, 3),
        "rmsVoltage": round(line.voltage_v, 3),
        "rmsCurrent": round(line.current_a, 3),
        "pwrFactor": round(line.power_factor, 2),
        "freqHz": round(line.frequency_hz, 2),
    }


def _reports(_: Model, view: View) -> list[dict[str, object]]:
    if not view.meters:
        return []
    production, net = view.meters[:2]
    used = Meter(
        "total-consumption",
        tuple(
            replace(
                outer,
                active_w=inner.active_w + outer.active_w,
                reactive_var=inner.reactive_var + outer.reactive_var,
                apparent_va=inner.apparent_va + outer.apparent_va,
                current_a=inner.current_a + outer.current_a,
                delivered_wh=_used_wh(view.lifetime, phase),
                received_wh=0.0,
            )
            for phase, (inner, outer) in enumerate(zip(production.lines, net.lines, strict=True))
        ),
    )
    return [
        {
            "createdAt": view.time,
            "reportType": meter.kind,
            "cumulative": _report_line(meter.total),
            "lines": [_report_line(line) for line in meter.lines],
        }
        for meter in (production, net, used)
    ]


def _pdm_energy(_: Model, view: View) -> dict[str, object]:
    inverters_w, inverters_wh = _inverter_sums(view)[1:]
    eim = _energy_summary(0, 0, 0, 0)
    consumption = eim
    if view.meters:
        made, bought = view.meters[0].total, view.meters[1].total
        eim = _energy_summary(
            view.today.produced_wh,
            view.last_seven_days.produced_wh,
            made.delivered_wh,
            # The power is unsigned here: -4 W shows as 4294967292.
            round(made.active_w) % 2**32,
        )
        consumption = _energy_summary(
            view.today.consumed_wh,
            view.last_seven_days.consumed_wh,
            view.lifetime.consumed_wh,
            made.active_w + bought.active_w,
        )
    pcu = _energy_summary(
        sum(report.today_wh for report in view.reports), view.last_seven_days.produced_wh, inverters_wh, inverters_w
    )
    return {
        "production": {"pcu": pcu, "rgm": _energy_summary(0, 0, 0, 0), "eim": eim},
        "consumption": {"eim": consumption},
    }


def _energy_summary(today_wh: float, week_wh: float, lifetime_wh: float, power_w: float) -> dict[str, int]:
    names = ("wattHoursToday", "wattHoursSevenDays", "wattHoursLifetime", "wattsNow")
    return dict(zip(names, map(round, (today_wh, week_wh, lifetime_wh, power_w)), strict=True))


def _device_data(model: Model, view: View) -> dict[str, object]:
    """Return the inverters in detail; more than fifty devices are cut off (pyenphase docs/known_issues.md)."""
    count = min(_DEVICE_DATA_LIMIT, len(view.reports))
    devices: dict[str, object] = {
        str(_PCU_DEVICE_ID + 256 * number): _device(model, view, number, report)
        for number, report in enumerate(view.reports[:count])
    }
    return devices | {"deviceCount": count, "deviceDataLimit": _DEVICE_DATA_LIMIT}


def _device(model: Model, view: View, number: int, report: Report) -> dict[str, object]:
    eid = _PCU_CHANNEL_EID + 256 * number
    volts = voltage_v(model.phases, number % model.phases, report.time, 0)
    dc_volts = 38 - 4 * report.power_w / max(1, report.inverter.max_report_w)
    return {
        "devName": "pcu",
        "sn": report.inverter.serial,
        "active": True,
        "modGone": view.time - report.time > _SILENT_AFTER_S,
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


def _charge_percent(model: Model, view: View) -> int:
    return round(100 * view.power.stored_wh / model.battery.capacity_wh) if model.batteries else 0


def _ensemble_inventory(model: Model, view: View) -> list[dict[str, object]]:
    if not model.batteries:
        return []
    common: dict[str, object] = {
        "installed": model.commissioned_at,
        "device_status": ["envoy.global.ok", "prop.done"],
        "created_date": model.commissioned_at,
        "img_load_date": model.commissioned_at,
        "communicating": True,
        "sleep_enabled": False,
        "comm_level_sub_ghz": 0 if model.firmware >= _FIRMWARE_WITH_DEVICE_DATA else 4,
        "comm_level_2_4_ghz": 0 if model.firmware >= _FIRMWARE_WITH_DEVICE_DATA else 4,
    }
    if model.firmware < _FIRMWARE_WITH_DEVICE_DATA:  # firmware 8 dropped these
        common |= {"operating": True, "zigbee_dongle_fw_version": "100F"}
    charge = _charge_percent(model, view)
    capacity_wh = round(model.battery.capacity_wh / model.batteries)
    temperature_c = 18 + round(abs(view.power.battery_w) / model.batteries / 200)
    encharge = [
        {
            "part_num": _BATTERY_PART,
            "serial_num": serial,
            "last_rpt_date": view.time - view.time % 60,
            "admin_state": 6,
            "admin_state_str": "ENCHG_STATE_READY",
            "img_pnum_running": "3.0.7545_rel/31.33",
            "bmu_fw_version": "3.8.63",
            "percentFull": charge,
            "temperature": temperature_c,
            "maxCellTemp": temperature_c + 1,
            "reported_enc_grid_state": "grid-tied",
            "led_status": 12 if view.power.battery_w < 0 else 13,
            "dc_switch_off": False,
            "encharge_rev": 2,
            "encharge_capacity": capacity_wh,
            "phase": f"ph-{'abc'[number % model.phases]}",
            "der_index": 2,
            **common,
        }
        for number, serial in enumerate(model.battery_serials)
    ]
    enpower = {
        "part_num": "865-00378-r27",
        "serial_num": _system_controller(model),
        "last_rpt_date": view.time - view.time % 60,
        "admin_state": 24,
        "admin_state_str": "ENPWR_STATE_OPER_CLOSED",
        "img_pnum_running": "3.0.6297_rel/31.33",
        "temperature": 79,  # other than the batteries', in Fahrenheit
        "mains_admin_state": "closed",
        "mains_oper_state": "closed",
        "Enpwr_grid_mode": "multimode-ongrid",
        "Enchg_grid_mode": "multimode-ongrid",
        "Enpwr_relay_state_bm": 15868,
        "Enpwr_curr_state_id": 16,
        **common,
    }
    return [{"type": "ENCHARGE", "devices": encharge}, {"type": "ENPOWER", "devices": [enpower]}]


def _system_controller(model: Model) -> str:
    return f"4823{model.battery_serials[0][4:]}"


def _ensemble_power(model: Model, view: View) -> dict[str, object]:
    each_mw = round(view.power.battery_w * 1000 / model.batteries) if model.batteries else 0
    charge = _charge_percent(model, view)
    return {
        # The colon is part of the name, on every firmware.
        "devices:": [
            {"serial_num": serial, "real_power_mw": each_mw, "apparent_power_mva": each_mw, "soc": charge}
            for serial in model.battery_serials
        ]
    }


def _ensemble_secctrl(model: Model, view: View) -> dict[str, object]:
    capacity_wh = round(model.battery.capacity_wh)
    charge = _charge_percent(model, view)
    reserve = round(100 * RESERVE_SHARE) if model.batteries else 0
    return {
        "shutdown": False,
        "freq_bias_hz": 0.0,
        "voltage_bias_v": 0.0,
        "freq_bias_hz_q8": 0,
        "voltage_bias_v_q5": 0,
        "configured_backup_soc": reserve,
        "adjusted_backup_soc": reserve,
        "agg_soc": charge,
        "Max_energy": capacity_wh,
        "ENC_agg_soc": charge,
        "ENC_agg_soh": 100 if model.batteries else 0,
        "ENC_agg_backup_energy": round(model.battery.reserve_wh),
        "ENC_agg_avail_energy": round(view.power.stored_wh),
        "Enc_commissioned_capacity": capacity_wh,
        "Enc_max_available_capacity": capacity_wh,
        "ACB_agg_soc": 0,
        "ACB_agg_energy": 0,
    }


def _ensemble_status(model: Model, view: View) -> dict[str, object]:
    devices = {
        serial: {
            "device_type": 13,
            "com_interface_str": "CAN",
            "device_id": serial,
            "admin_state": 6,
            "admin_state_str": "ENCHG_STATE_READY",
            "msg_retry_count": 0,
            "part_number": _BATTERY_PART,
            "submodule_count": 0,
            "submodules": {},
        }
        for serial in model.battery_serials
    }
    return {
        "inventory": {"serial_nums": devices},
        "counters": {"rest_StatusGet": 1},
        "secctrl": _ensemble_secctrl(model, view),
        "relay": _ensemble_relay(model, view),
    }


def _ensemble_relay(model: Model, _: View) -> dict[str, object]:
    if not model.batteries:
        return {"mains_admin_state": "unknown", "mains_oper_state": "unknown", "der1_state": 0, "Enchg_grid_mode": ""}
    return {
        "mains_admin_state": "closed",
        "mains_oper_state": "closed",
        "der1_state": 1,
        "der2_state": 1,
        "der3_state": 1,
        "Enchg_grid_mode": "multimode-ongrid",
        "Solar_grid_mode": "multimode-ongrid",
    }


def _dry_contacts(model: Model, _: View) -> dict[str, object]:
    status = "closed" if model.batteries else "open"
    return {"dry_contacts": [{"id": name, "status": status} for name in _DRY_CONTACTS]}


def _dry_contact_settings(_: Model, __: View) -> dict[str, object]:
    return {
        "dry_contacts": [
            {
                "id": name,
                "type": "NONE",
                "grid_action": "none",
                "micro_grid_action": "none",
                "gen_action": "none",
                "essential_start_time": 32400.0,
                "essential_end_time": 57600.0,
                "priority": 1.0,
                "black_s_start": 5.0,
                "override": "false",
                "manual_override": "true",
                "load_name": "",
                "mode": "manual",
                "soc_low": 30.0,
                "soc_high": 70.0,
                "pv_serial_nb": [],
            }
            for name in _DRY_CONTACTS
        ]
    }


def _generator(_: Model, __: View) -> dict[str, object]:
    return {
        "admin_state": "unknown",
        "oper_state": "open",
        "admin_mode": 0,
        "schedule": 0,
        "start_soc": 100,
        "stop_soc": -1,
        "exc_on": 0,
        "present": 0,
        "type": 1,
    }


def _tariff(model: Model, _: View) -> dict[str, object]:
    tariff: dict[str, object] = {
        "currency": {"code": "EUR"},
        "logger": "mylogger",
        "date": str(model.commissioned_at),
        "single_rate": {"rate": 0.31, "sell": 0.08},
        "seasons": [],
        "seasons_sell": [],
    }
    if model.batteries:
        tariff["storage_settings"] = {
            "mode": "self-consumption",
            "operation_mode_sub_type": "",
            "reserved_soc": 100 * RESERVE_SHARE,
            "very_low_soc": 5,
            "charge_from_grid": False,
            "date": str(model.commissioned_at),
        }
    return {"tariff": tariff, "schedule": {"source": "Tariff", "version": "00.00.02"}}


def _inventory(model: Model, view: View) -> list[dict[str, object]]:
    pcu = [
        {
            "part_num": _INVERTER_PART,
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
            "chaneid": _PCU_CHANNEL_EID + 256 * number,
            "device_control": [{"gficlearset": False}],
            "producing": view.time - report.time <= _SILENT_AFTER_S,
            "communicating": view.time - report.time <= _SILENT_AFTER_S,
            "provisioned": True,
            "operating": True,
            "phase": f"ph-{'abc'[number % model.phases]}",
        }
        for number, report in enumerate(view.reports)
    ]
    return [{"type": "PCU", "devices": pcu}, {"type": "ACB", "devices": []}, {"type": "NSRB", "devices": []}]


def _home(model: Model, view: View) -> dict[str, object]:
    local = datetime.fromtimestamp(view.time, ZoneInfo(model.timezone))
    count = len(view.reports)
    return {
        "software_build_epoch": model.commissioned_at,
        "timezone": model.timezone,
        "current_date": f"{local:%m/%d/%Y}",
        "current_time": f"{local:%H:%M}",
        "network": {
            "web_comm": True,
            "ever_reported_to_enlighten": True,
            "last_enlighten_report_time": view.time - view.time % 900,
            "primary_interface": "eth0",
            "interfaces": [
                {
                    "type": "ethernet",
                    "interface": "eth0",
                    "mac": "00:1D:C0:51:A0:01",
                    "dhcp": True,
                    "ip": "192.0.2.1",
                    "signal_strength": 1,
                    "signal_strength_max": 1,
                    "carrier": True,
                }
            ],
        },
        "tariff": "single_rate",
        "comm": {"num": count, "level": 5, "pcu": {"num": count, "level": 5}, "acb": {"num": 0, "level": 0}},
    }


def _line_readings(meter: Meter) -> list[dict[str, object]]:
    return [
        {
            "channels": [
                {
                    "phase": f"L{place}",
                    "activePower": round(line.active_w, 3),
                    "reactivePower": round(line.reactive_var, 3),
                    "voltage": round(line.voltage_v, 3),
                    "current": round(line.current_a, 3),
                    "freq": round(line.frequency_hz, 3),
                }
                for place, line in enumerate(_channels(meter), 1)
            ]
        }
    ]


_DAY_COUNTERS = ("whToday", "whLastSevenDays", "vahToday", "varhLeadToday", "varhLagToday")
_DRY_CONTACTS = ("NC1", "NC2", "NO1", "NO2")

ADDRESSES: dict[str, Callable[[Model, View], object]] = {
    "/api/v1/production": _v1_production,
    "/api/v1/production/inverters": _v1_inverters,
    "/ivp/meters": _meters,
    "/ivp/meters/readings": _readings,
    "/ivp/meters/reports": _reports,
    "/ivp/meters/pvReading": lambda _, view: _line_readings(view.meters[0]) if view.meters else [],
    "/ivp/meters/gridReading": lambda _, view: _line_readings(view.meters[1]) if view.meters else [],
    "/ivp/pdm/energy": _pdm_energy,
    "/ivp/pdm/device_data": _device_data,
    "/ivp/ensemble/inventory": _ensemble_inventory,
    "/ivp/ensemble/power": _ensemble_power,
    "/ivp/ensemble/secctrl": _ensemble_secctrl,
    "/ivp/ensemble/status": _ensemble_status,
    "/ivp/ensemble/relay": _ensemble_relay,
    "/ivp/ensemble/dry_contacts": _dry_contacts,
    "/ivp/ensemble/generator": _generator,
    "/ivp/ss/dry_contact_settings": _dry_contact_settings,
    "/ivp/ss/gen_config": lambda _, __: {},
    "/ivp/ss/gen_schedule": lambda _, __: {},
    "/ivp/ss/gen_mode": lambda _, __: {"gen_cmd": "off", "last_updated_by": "ITK"},
    "/ivp/ss/pel_settings": lambda _, __: {"PEL": False},
    "/ivp/sc/pvlimit": lambda _, __: {"enable": False, "pv_limit_pct": 100},
    "/admin/lib/tariff": _tariff,
    "/inventory": _inventory,
    "/inventory.json": _inventory,
    "/home": _home,
    "/home.json": _home,
}
"""What builds the answer at each address; /info and /production* have their own ways."""

# Firmware 5 answers 404 to these (pyenphase recording 5.0.62).
_TOKEN_FIRMWARE_ONLY = {
    path for path in ADDRESSES if path.startswith(("/ivp/ensemble", "/ivp/ss", "/ivp/sc", "/ivp/pdm"))
}
