"""Gateways that do not exist, described by what they measure, and the responses that such a gateway gives.

They replace real recordings in the tests of `make test`. Shapes and oddities are facts of real gateways
(`docs/gateways.md`); every serial number and every figure is made up, and the figures add up: powers and energies of
phases make those of the meter, production and grid make consumption. `catalog.py` holds the gateways themselves.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

NOON = 1_750_500_000
"""The time at every gateway, epoch seconds: a day in June 2025, at noon in Europe."""

WRAP_WH = 2**32 // 3600
CHANNELS = 3
FIRST_METER_EID = 704_643_328
FIRST_CHANNEL_EID = 1_778_385_169
EID_STEP = 256


@dataclass(frozen=True)
class Phase:
    """What a meter measures on one phase; positive power and delivered energy go towards the house."""

    power_w: float
    delivered_wh: float
    received_wh: float
    voltage_v: float = 230.0
    reactive_var: float = 50.0


@dataclass(frozen=True)
class Meter:
    """A meter, which has one phase, two or three."""

    kind: str
    phases: tuple[Phase, ...]
    state: str = "enabled"
    frequency_hz: float = 50.0

    @property
    def power_w(self) -> float:
        """The power of all phases."""
        return round(sum(phase.power_w for phase in self.phases), 3)

    @property
    def delivered_wh(self) -> float:
        """The energy towards the house on all phases."""
        return round(sum(phase.delivered_wh for phase in self.phases), 3)

    @property
    def received_wh(self) -> float:
        """The energy from the house on all phases."""
        return round(sum(phase.received_wh for phase in self.phases), 3)


@dataclass(frozen=True)
class Inverter:
    """The last report of an inverter."""

    serial: str
    power_w: int
    lifetime_wh: int
    reported_at: int = NOON - 120
    dev_type: int | None = 1
    is_active: bool = True


@dataclass(frozen=True)
class Battery:
    """An IQ Battery; positive power is discharge."""

    serial: str
    charge_percent: int
    capacity_wh: int
    power_w: float
    temperature_c: int = 21


@dataclass(frozen=True)
class Counts:
    """Energies of a day, of seven days and of a lifetime."""

    today_wh: float
    week_wh: float
    lifetime_wh: float


@dataclass(frozen=True)
class Response:
    """The response of a gateway to one path: JSON, or text where the body is text."""

    body: Any
    status: int = HTTPStatus.OK
    content_type: str = "application/json"

    def encoded(self) -> bytes:
        """Return the body as it is sent."""
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


Responses = dict[str, Response]
"""By file name: the path with `_` for `/`, as in recordings of real gateways."""

Change = Callable[[Responses], None]
"""An oddity: it changes the responses of a regular gateway."""


@dataclass(frozen=True)
class Expected:
    """What is to be read of a gateway: power, then lifetime energy or energies, None where it is wrong."""

    source: str | None
    production: tuple[float, float | None] | None
    consumption: tuple[float, float | None] | None = None
    grid: tuple[float, float | None, float | None] | None = None
    meters: Mapping[str, int] = field(default_factory=dict)
    """How many phases are published of which meter."""
    lone_phases: tuple[str, ...] = ()
    """Phases that are published without the meter's total."""
    inverters: int = 0
    batteries: int = 0
    battery: Mapping[str, float] | None = None
    """Fields of the reading of all batteries."""
    energy: Mapping[str, float] = field(default_factory=dict)
    """The energies of day and week that are right."""


@dataclass(frozen=True)
class Gateway:
    """A gateway with a house."""

    name: str
    serial: str
    firmware: str
    expected: Expected
    is_metered_hardware: bool | None = None
    """What /info reports; None where it does not."""
    meters: tuple[Meter, ...] = ()
    inverters: tuple[Inverter, ...] = ()
    batteries: tuple[Battery, ...] = ()
    production_counts: Counts | None = None
    """The gateway's own counts; None where it has none but those of its meters and inverters."""
    consumption_counts: Counts | None = None
    oddities: tuple[Change, ...] = ()

    @property
    def version(self) -> tuple[int, ...]:
        """The firmware as numbers."""
        return tuple(map(int, self.firmware.split(".")))

    def meter(self, kind: str) -> Meter | None:
        """Return its enabled meter of a kind."""
        return next((meter for meter in self.meters if meter.kind == kind and meter.state == "enabled"), None)

    def responses(self) -> Responses:
        """Return all of its responses, by file name."""
        responses = {"info": _info(self), **_production(self), **_meters(self), **_inverters(self), **_batteries(self)}
        for change in self.oddities:
            change(responses)
        return responses

    def write(self, folder: Path) -> Path:
        """Write the responses as the simulator reads recordings, and return the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, response in self.responses().items():
            (folder / name).write_bytes(response.encoded())
            log = {"headers": {"content-type": response.content_type}, "code": int(response.status)}
            (folder / f"{name}_log.json").write_text(json.dumps(log))
        return folder


def inverters(
    serial: str, count: int, *, power_w: int, lifetime_wh: int, dev_type: int | None = 1
) -> tuple[Inverter, ...]:
    """Return inverters that all make the same, with consecutive serial numbers."""
    first = int(serial)
    return tuple(Inverter(str(first + number), power_w, lifetime_wh, dev_type=dev_type) for number in range(count))


def html(status: int, title: str) -> Response:
    """Return a page for people, which a gateway serves where a program requests JSON."""
    return Response(
        f"<html><head><title>{title}</title></head><body><h2>{title}</h2></body></html>", status, "text/html"
    )


NOT_FOUND = Response({"error": "404 - Not Found"}, HTTPStatus.NOT_FOUND)
UNAUTHORIZED = html(HTTPStatus.UNAUTHORIZED, "401 Authorization Required")


def _info(gateway: Gateway) -> Response:
    letter = "R" if gateway.version < (4,) else "D"
    part_number = "800-00654-r06" if gateway.is_metered_hardware else "800-00551-r02"
    imeter = (
        "" if gateway.is_metered_hardware is None else f"<imeter>{str(gateway.is_metered_hardware).lower()}</imeter>"
    )
    web_tokens = "<web-tokens>true</web-tokens>" if gateway.version >= (7,) else ""
    body = f"""<?xml version='1.0' encoding='UTF-8'?>
<envoy_info>
  <time>{NOON}</time>
  <device>
    <sn>{gateway.serial}</sn>
    <pn>{part_number}</pn>
    <software>{letter}{gateway.firmware}</software>
    <euaid>51a002</euaid>
    <seqnum>0</seqnum>
    <apiver>1</apiver>
    {imeter}
  </device>
  {web_tokens}
  <build_info>
    <build_id>made-up</build_id>
    <build_time_gmt>{NOON - 400 * 86_400}</build_time_gmt>
  </build_info>
</envoy_info>
"""
    return Response(body, content_type="text/xml")


# --- Meters ---


def _meters(gateway: Gateway) -> Responses:
    if gateway.version < (4,):
        return {"ivp_meters": NOT_FOUND, "ivp_meters_readings": NOT_FOUND}
    details: list[dict[str, object]] = [
        {
            "eid": FIRST_METER_EID + EID_STEP * number,
            "state": meter.state,
            "measurementType": meter.kind,
            # One phase is called "three", too; only the count is right.
            "phaseMode": "split" if len(meter.phases) == 2 else "three",
            "phaseCount": len(meter.phases),
            "meteringStatus": "normal",
            "statusFlags": [],
        }
        for number, meter in enumerate(gateway.meters)
    ]
    readings = [_meter_reading(number, meter) for number, meter in enumerate(gateway.meters)]
    return {"ivp_meters": Response(details), "ivp_meters_readings": Response(readings)}


def _meter_reading(number: int, meter: Meter) -> dict[str, object]:
    phases = [_measured(phase, meter.frequency_hz) for phase in meter.phases]
    unused = dict.fromkeys(phases[0], 0.0) | {"freq": meter.frequency_hz}
    channels = [*phases, *[unused] * (CHANNELS - len(phases))]
    total = {name: round(sum(phase[name] for phase in phases), 3) for name in phases[0]}
    total |= {"freq": meter.frequency_hz, "pwrFactor": phases[0]["pwrFactor"]}
    first_channel = FIRST_CHANNEL_EID + EID_STEP * number
    return {
        "eid": FIRST_METER_EID + EID_STEP * number,
        "timestamp": NOON,
        **total,
        "channels": [
            {"eid": first_channel + place, "timestamp": NOON, **values} for place, values in enumerate(channels)
        ],
    }


def _measured(phase: Phase, frequency_hz: float) -> dict[str, float]:
    apparent_va = math.hypot(phase.power_w, phase.reactive_var)
    energy_wh = phase.delivered_wh + phase.received_wh
    return {
        "actEnergyDlvd": phase.delivered_wh,
        "actEnergyRcvd": phase.received_wh,
        "apparentEnergy": round(1.08 * energy_wh, 3),
        "reactEnergyLagg": round(0.11 * energy_wh, 3),
        "reactEnergyLead": round(0.01 * energy_wh, 3),
        "instantaneousDemand": phase.power_w,
        "activePower": phase.power_w,
        "apparentPower": round(apparent_va, 3),
        "reactivePower": phase.reactive_var,
        "pwrFactor": round(phase.power_w / apparent_va, 3) if apparent_va else 0.0,
        "voltage": phase.voltage_v,
        "current": round(apparent_va / phase.voltage_v, 3) if phase.voltage_v else 0.0,
        "freq": frequency_hz,
    }


# --- Production and consumption ---


def _production(gateway: Gateway) -> Responses:
    if gateway.version < (4,):
        # A page for people with status 200, whatever is requested.
        page = html(HTTPStatus.OK, "production")
        return {"api_v1_production": _v1_production(gateway), "production.json": page, "production": page}
    brief, detailed = (Response(_production_json(gateway, with_lines=lines)) for lines in (False, True))
    return {
        "api_v1_production": _v1_production(gateway),
        "production.json": brief,
        "production.json_details_1": detailed,
        "production": brief if gateway.version >= (7,) else UNAUTHORIZED,
    }


def _inverters_counts(gateway: Gateway) -> tuple[int, int]:
    """Return power and lifetime energy of all inverters; their sum wraps below firmware 8."""
    lifetime_wh = sum(inverter.lifetime_wh for inverter in gateway.inverters)
    power_w = sum(inverter.power_w for inverter in gateway.inverters)
    return power_w, lifetime_wh % WRAP_WH if gateway.version < (8,) else lifetime_wh


def _v1_production(gateway: Gateway) -> Response:
    meter, counts = gateway.meter("production"), gateway.production_counts
    power_w = meter.power_w if meter else sum(inverter.power_w for inverter in gateway.inverters)
    lifetime_wh = counts.lifetime_wh if counts else 0
    return Response(
        {
            "wattHoursToday": round(counts.today_wh) if counts else 0,
            "wattHoursSevenDays": round(counts.week_wh) if counts else 0,
            "wattHoursLifetime": round(meter.delivered_wh if meter else lifetime_wh),
            "wattsNow": round(power_w),
        }
    )


def _production_json(gateway: Gateway, *, with_lines: bool) -> dict[str, object]:
    power_w, lifetime_wh = _inverters_counts(gateway)
    production: list[dict[str, object]] = [
        {
            "type": "inverters",
            "activeCount": len(gateway.inverters),
            "readingTime": NOON - 120,
            "wNow": power_w,
            "whLifetime": lifetime_wh,
        }
    ]
    storage = [{"type": "acb", "activeCount": 0, "readingTime": 0, "wNow": 0, "whNow": 0, "state": "idle"}]
    meters = {meter.kind: meter for meter in gateway.meters}
    if "production" not in meters:
        return {"production": production, "storage": storage}
    production.append(_eim(meters["production"], "production", gateway.production_counts, with_lines=with_lines))
    if "net-consumption" not in meters:
        return {"production": production, "storage": storage}
    net = meters["net-consumption"]
    total = _total_consumption(meters["production"], net, gateway.consumption_counts)
    consumption = [
        _eim(total, "total-consumption", gateway.consumption_counts, with_lines=with_lines),
        _eim(net, "net-consumption", None, with_lines=with_lines),
    ]
    return {"production": production, "consumption": consumption, "storage": storage}


def _total_consumption(production: Meter, net: Meter, counts: Counts | None) -> Meter:
    """Return what the gateway computes: the power of both meters; its lifetime count is its own."""
    lifetime_wh = (counts.lifetime_wh if counts else 0.0) / len(net.phases)
    phases = tuple(
        Phase(
            round(made.power_w + bought.power_w, 3),
            round(lifetime_wh, 3),
            0.0,
            bought.voltage_v,
            made.reactive_var + bought.reactive_var,
        )
        for made, bought in zip(production.phases, net.phases, strict=True)
    )
    return Meter("total-consumption", phases, net.state, net.frequency_hz)


def _eim(meter: Meter, kind: str, counts: Counts | None, *, with_lines: bool) -> dict[str, object]:
    lines = [_eim_line(phase, kind, counts, len(meter.phases)) for phase in meter.phases]
    total = {name: round(sum(line[name] for line in lines), 3) for name in lines[0]}
    return {
        "type": "eim",
        "activeCount": int(meter.state == "enabled"),
        "measurementType": kind,
        "readingTime": NOON - 1,
        **total,
        "pwrFactor": lines[0]["pwrFactor"],
        **({"lines": lines} if with_lines else {}),
    }


def _eim_line(phase: Phase, kind: str, counts: Counts | None, phases: int) -> dict[str, float]:
    apparent_va = math.hypot(phase.power_w, phase.reactive_var)
    net_wh = phase.delivered_wh - (phase.received_wh if kind == "net-consumption" else 0)
    today_wh = counts.today_wh / phases if counts else 0
    return {
        "wNow": phase.power_w,
        "whLifetime": round(net_wh, 3),
        "varhLeadLifetime": 0.01 * phase.delivered_wh,
        "varhLagLifetime": 0.11 * phase.delivered_wh,
        "vahLifetime": 1.08 * phase.delivered_wh,
        "rmsCurrent": round(apparent_va / phase.voltage_v, 3) if phase.voltage_v else 0.0,
        "rmsVoltage": phase.voltage_v,
        "reactPwr": phase.reactive_var,
        "apprntPwr": round(apparent_va, 3),
        "pwrFactor": round(phase.power_w / apparent_va, 2) if apparent_va else 0.0,
        "whToday": today_wh,
        "whLastSevenDays": counts.week_wh / phases if counts else 0,
        "vahToday": 1.08 * today_wh,
        "varhLeadToday": 0.01 * today_wh,
        "varhLagToday": 0.11 * today_wh,
    }


# --- Inverters ---


def _inverters(gateway: Gateway) -> Responses:
    reports = [
        {"serialNumber": inverter.serial, "lastReportDate": inverter.reported_at}
        | ({} if inverter.dev_type is None else {"devType": inverter.dev_type})
        | {"lastReportWatts": inverter.power_w, "maxReportWatts": 2 * inverter.power_w}
        for inverter in gateway.inverters
    ]
    responses = {"api_v1_production_inverters": Response(reports)}
    if gateway.version >= (8, 2, 4345):
        responses["ivp_pdm_device_data"] = Response(_device_data(gateway.inverters))
    if gateway.version >= (8,):
        responses["ivp_pdm_energy"] = Response(_pdm_energy(gateway))
    return responses


def _device_data(inverters: Sequence[Inverter], limit: int = 50) -> dict[str, object]:
    listed = [inverter for inverter in inverters if inverter.dev_type == 1][:limit]
    devices: dict[str, object] = {str(553_648_384 + EID_STEP * n): _device(n, each) for n, each in enumerate(listed)}
    return devices | {"deviceCount": len(listed), "deviceDataLimit": limit}


def _device(number: int, inverter: Inverter) -> dict[str, object]:
    power_w = inverter.power_w
    reading = {
        "eid": 1_627_390_225 + EID_STEP * number,
        "endDate": inverter.reported_at,
        "duration": 300,
        "joulesProduced": 300 * power_w,
        "acVoltageINmV": 231_000,
        "acFrequencyINmHz": 50_010,
        "dcVoltageINmV": 38_000,
        "dcCurrentINmA": round(power_w / 38 * 1000),
        "channelTemp": 31,
    }
    channel = {
        "chanEid": 1_627_390_225 + EID_STEP * number,
        "created": inverter.reported_at,
        "wattHours": {"today": 4 * power_w, "yesterday": 6 * power_w, "week": 40 * power_w},
        "watts": {"now": power_w, "nowUsed": 0, "max": 2 * power_w},
        "lastReading": reading if inverter.is_active else {},
        "lifetime": {"joulesProduced": 3600 * inverter.lifetime_wh} if inverter.is_active else {},
    }
    return {
        "devName": "pcu",
        "sn": inverter.serial,
        "active": inverter.is_active,
        "modGone": not inverter.is_active,
        "channels": [channel],
    }


def _pdm_energy(gateway: Gateway) -> dict[str, object]:
    def summary(counts: Counts | None, power_w: float) -> dict[str, int]:
        counts = counts or Counts(0, 0, 0)
        return {
            "wattHoursToday": round(counts.today_wh),
            "wattHoursSevenDays": round(counts.week_wh),
            "wattHoursLifetime": round(counts.lifetime_wh),
            # Negative watts come unsigned: -4 as 4294967292.
            "wattsNow": round(power_w) % 2**32,
        }

    power_w, lifetime_wh = _inverters_counts(gateway)
    production, net = gateway.meter("production"), gateway.meter("net-consumption")
    counts = gateway.production_counts
    inverters_counts = Counts(counts.today_wh, counts.week_wh, lifetime_wh) if counts else Counts(0, 0, lifetime_wh)
    used_w = production.power_w + net.power_w if production and net else 0
    return {
        "production": {
            "pcu": summary(inverters_counts, power_w),
            "rgm": summary(None, 0),
            "eim": summary(counts, production.power_w) if production else summary(None, 0),
        },
        "consumption": {"eim": summary(gateway.consumption_counts, used_w)},
    }


# --- Batteries ---


def _batteries(gateway: Gateway) -> Responses:
    if gateway.version < (5,):
        return dict.fromkeys(("ivp_ensemble_inventory", "ivp_ensemble_power", "ivp_ensemble_secctrl"), NOT_FOUND)
    inventory = [{"type": "ENCHARGE", "devices": [_battery(battery) for battery in gateway.batteries]}]
    powers = [
        {
            "serial_num": battery.serial,
            "real_power_mw": round(1000 * battery.power_w),
            "apparent_power_mva": round(1000 * battery.power_w),
            "soc": battery.charge_percent,
        }
        for battery in gateway.batteries
    ]
    return {
        "ivp_ensemble_inventory": Response(inventory if gateway.batteries else []),
        "ivp_ensemble_power": Response({"devices:": powers}),  # the colon is part of the name
        "ivp_ensemble_secctrl": Response(_battery_totals(gateway.batteries)),
    }


def _battery(battery: Battery) -> dict[str, object]:
    return {
        "part_num": "830-00000-r01",
        "serial_num": battery.serial,
        "installed": NOON - 90 * 86_400,
        "device_status": ["envoy.global.ok", "prop.done"],
        "last_rpt_date": NOON - 60,
        "admin_state": 6,
        "admin_state_str": "ENCHG_STATE_READY",
        "img_load_date": NOON - 90 * 86_400,
        "img_pnum_running": "0.0.1_rel/00.01",
        "bmu_fw_version": "0.0.1",
        "communicating": True,
        "percentFull": battery.charge_percent,
        "temperature": battery.temperature_c,
        "maxCellTemp": battery.temperature_c + 1,
        "comm_level_sub_ghz": 3,
        "comm_level_2_4_ghz": 3,
        "led_status": 12,
        "dc_switch_off": False,
        "encharge_rev": 2,
        "encharge_capacity": battery.capacity_wh,
    }


def _battery_totals(batteries: Sequence[Battery]) -> dict[str, object]:
    capacity_wh = sum(battery.capacity_wh for battery in batteries)
    available_wh = sum(battery.charge_percent * battery.capacity_wh for battery in batteries) // 100
    percent = round(100 * available_wh / capacity_wh) if capacity_wh else 0
    return {
        "shutdown": False,
        "configured_backup_soc": 20,
        "adjusted_backup_soc": 20,
        "agg_soc": percent,
        "Max_energy": capacity_wh,
        "ENC_agg_soc": percent,
        "ENC_agg_soh": 100,
        "ENC_agg_backup_energy": capacity_wh // 5,
        "ENC_agg_avail_energy": available_wh,
        "Enc_commissioned_capacity": capacity_wh,
        "Enc_max_available_capacity": capacity_wh,
        "ACB_agg_soc": 0,
        "ACB_agg_energy": 0,
    }
