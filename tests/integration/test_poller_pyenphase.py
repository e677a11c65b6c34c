"""The numbers of pyenphase, the library behind Home Assistant: the same, except where it is known to be wrong."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr
from pyenphase import Envoy as PyenphaseEnvoy
from pyenphase import EnvoyData

from services.poller.once import read_once
from services.poller.session import Session
from services.poller.settings import EnvoySettings
from services.poller.trust import TrustStore
from services.simulator.simulator import Simulator
from shared.readings import Reading
from shared.settings import MqttSettings
from tests.gateways import Gateway
from tests.gateways.catalog import GATEWAYS
from tests.programs import simulator
from tests.recordings import NAMES, RECORDINGS

Numbers = dict[str, float | None]

WRAPPED = "the inverters' sum wraps at 2^32 J below firmware 8, so it is no lifetime"
DISABLED = "pyenphase takes it from a disabled meter"
LIFETIME = "it is the lifetime before today"
TOO_LOW = "the counter of seven days is below that of today"
NOTHING = "it stays at zero while the lifetime grows"
AC_BATTERY = "an AC Battery is no inverter"
ONE_PATH = "pyenphase fetches only paths that this firmware rejects or this recording lacks"

DELIBERATE: dict[str, dict[str, str]] = {
    "4.10.35": {
        "consumption.power_w": ONE_PATH,
        "consumption.energy_lifetime_wh": ONE_PATH,
        "energy.consumption_today_wh": ONE_PATH,
        "energy.consumption_last_7_days_wh": ONE_PATH,
    },
    "7.3.466_metered_disabled_cts": {
        "production.energy_lifetime_wh": WRAPPED,
        "energy.production_today_wh": DISABLED,
        "energy.production_last_7_days_wh": DISABLED,
    },
    "7.6.175_with_cts": {"energy.consumption_last_7_days_wh": TOO_LOW},
    "7.6.185_with_cts_and_battery_3t": {"energy.consumption_last_7_days_wh": TOO_LOW},
    "8.2.4286_with_3cts_and_battery_split": {
        "energy.production_last_7_days_wh": LIFETIME,
        "energy.consumption_today_wh": NOTHING,
        "energy.consumption_last_7_days_wh": NOTHING,
    },
    "8.2.4382_ACB": {
        "energy.consumption_last_7_days_wh": TOO_LOW,
        **{
            f"inverter/{serial}.{field}": AC_BATTERY
            for serial in ("122175278843", "122232250088", "122029463357")
            for field in ("power_w", "max_power_w")
        },
    },
}
"""All numbers of the recordings that are deliberately not pyenphase's, and why."""


PRODUCTION_ENERGIES = ("energy.production_today_wh", "energy.production_last_7_days_wh")
CONSUMPTION_ENERGIES = ("energy.consumption_today_wh", "energy.consumption_last_7_days_wh")

DELIBERATE_DESCRIBED: dict[str, dict[str, str]] = {
    "4.2.33_fewer_readings_than_meters": dict.fromkeys(
        ("grid.power_w", "consumption.power_w"), "pyenphase takes the grid from its meter alone"
    ),
    "7.3.130_production_meter_alone": dict.fromkeys(PRODUCTION_ENERGIES, LIFETIME),
    "7.3.466_disabled_meters": {
        "production.energy_lifetime_wh": WRAPPED,
        **dict.fromkeys(PRODUCTION_ENERGIES, NOTHING),
    },
    "7.6.175_three_phases": {"energy.consumption_last_7_days_wh": TOO_LOW},
    "7.6.185_battery_at_night": {"energy.consumption_last_7_days_wh": TOO_LOW},
    "8.2.4264_count_stalls_without_transformers": dict.fromkeys(PRODUCTION_ENERGIES, NOTHING),
    "8.2.4264_count_far_below_the_inverters": dict.fromkeys(
        ("production.energy_lifetime_wh", *PRODUCTION_ENERGIES), "pyenphase uses a counter that stalls"
    ),
    "8.2.4286_split_phase_storage_meter": {
        "energy.production_last_7_days_wh": LIFETIME,
        **dict.fromkeys(CONSUMPTION_ENERGIES, NOTHING),
    },
    "8.2.4382_ac_batteries": {
        f"inverter/{serial}.{field}": AC_BATTERY
        for serial in ("122099008490", "122099008491")
        for field in ("power_w", "max_power_w")
    },
    "8.3.1598_disabled_car_charger_meter": {
        f"meter/backfeed{phase}.frequency_hz": "no grid has 0 Hz" for phase in ("", "/phase/1", "/phase/2")
    },
    "8.3.5169_unsigned_negative_power": dict.fromkeys(
        ("production.power_w", "meter/production.active_power_w", "consumption.power_w"),
        "a negative power that comes unsigned",
    ),
    "8.3.5422_unmetered_counts_nothing": dict.fromkeys(PRODUCTION_ENERGIES, NOTHING),
    "8.3.5433_net_in_place_of_total": dict.fromkeys(CONSUMPTION_ENERGIES, LIFETIME),
    "8.3.5528_active_count_zero": dict.fromkeys(
        ("production.power_w", "production.energy_lifetime_wh"), "pyenphase drops a meter that is enabled"
    ),
    "8.3.5286_no_production_json": {"consumption.power_w": "pyenphase takes it from /production.json alone"},
    "8.3.6000_storage_phase_lost": dict.fromkeys(
        (
            f"meter/storage/phase/2.{field}"
            for field in (
                *("active_power_w", "energy_delivered_wh", "energy_received_wh"),
                *("power_factor", "voltage_v", "current_a", "frequency_hz"),
            )
        ),
        "pyenphase drops the good phase, too",
    ),
}
"""The same of the made-up gateways."""


async def read_with_pyenphase(roof: Simulator) -> EnvoyData:
    """Return what pyenphase reads."""
    scheme, _, host = roof.envoy_url.partition("://")
    envoy = PyenphaseEnvoy(host)
    try:
        await envoy.setup()
        await (envoy.authenticate(token=roof.token()) if scheme == "https" else envoy.authenticate(username="envoy"))
        await envoy.update()
        assert envoy.data is not None
        return envoy.data
    finally:
        await envoy.close()


def read_with_poller(roof: Simulator, state: Path) -> Sequence[Reading]:
    """Return what the poller reads."""
    token = SecretStr(roof.token()) if roof.envoy_url.startswith("https") else None
    session = Session(EnvoySettings(host=roof.envoy_url, token=token), TrustStore(state))
    session.find()
    result = read_once(session, MqttSettings())
    assert result.error == ""
    return result.readings


def numbers_of_poller(readings: Sequence[Reading]) -> Numbers:
    """Return all numbers of the readings, by kind and field."""
    return {f"{reading.kind}.{name}": value for reading in readings for name, value in reading.numbers().items()}


def numbers_of_batteries(data: EnvoyData) -> Numbers:
    """Return the batteries' numbers; those of all together include AC Batteries."""
    numbers: Numbers = {}
    for serial, power in (data.encharge_power or {}).items():
        numbers[f"battery/{serial}.power_w"] = power.real_power_mw / 1000
        numbers[f"battery/{serial}.charge_percent"] = power.soc
    for serial, battery in (data.encharge_inventory or {}).items():
        numbers[f"battery/{serial}.temperature_c"] = battery.temperature
        numbers[f"battery/{serial}.capacity_wh"] = battery.encharge_capacity
    if data.encharge_power and (together := data.encharge_aggregate) is not None:
        storage = data.ctmeters.get("storage")
        numbers |= {
            "battery.power_w": storage.active_power
            if storage
            else sum(power.real_power_mw for power in data.encharge_power.values()) / 1000,
            "battery.charge_percent": (data.battery_aggregate or together).state_of_charge,
            "battery.available_energy_wh": (data.battery_aggregate or together).available_energy,
            "battery.capacity_wh": (data.battery_aggregate or together).max_available_capacity,
        }
        if storage:
            numbers["battery.charge_lifetime_wh"] = storage.energy_received
            numbers["battery.discharge_lifetime_wh"] = storage.energy_delivered
    return numbers


def numbers_of_pyenphase(data: EnvoyData) -> Numbers:
    """Return pyenphase's numbers under the poller's names."""
    numbers: Numbers = {}
    meters = {kind: meter for kind, meter in data.ctmeters.items() if meter is not None}
    for kind, meter in meters.items():
        named = {f"meter/{kind}": meter}
        lines = data.ctmeters_phases.get(kind) or {}
        named |= {f"meter/{kind}/phase/{phase[-1]}": line for phase, line in lines.items() if line is not None}
        for name, each in named.items():
            numbers |= {
                f"{name}.active_power_w": each.active_power,
                f"{name}.energy_delivered_wh": each.energy_delivered,
                f"{name}.energy_received_wh": each.energy_received,
                f"{name}.power_factor": each.power_factor,
                f"{name}.voltage_v": each.voltage,
                f"{name}.current_a": each.current,
                f"{name}.frequency_hz": each.frequency,
            }
    if (made := data.system_production) is not None:
        own = meters.get("production")
        numbers |= {
            "production.power_w": own.active_power if own else made.watts_now,
            "production.energy_lifetime_wh": own.energy_delivered if own else made.watt_hours_lifetime,
            "energy.production_today_wh": made.watt_hours_today,
            "energy.production_last_7_days_wh": made.watt_hours_last_7_days,
        }
    if (used := data.system_consumption) is not None:
        numbers |= {
            "consumption.energy_lifetime_wh": used.watt_hours_lifetime,
            "energy.consumption_today_wh": used.watt_hours_today,
            "energy.consumption_last_7_days_wh": used.watt_hours_last_7_days,
        }
        if {"production", "net-consumption"} <= meters.keys():
            numbers["consumption.power_w"] = meters["production"].active_power + meters["net-consumption"].active_power
    if net := meters.get("net-consumption"):
        numbers |= {
            "grid.power_w": net.active_power,
            "grid.import_lifetime_wh": net.energy_delivered,
            "grid.export_lifetime_wh": net.energy_received,
        }
    for serial, inverter in data.inverters.items():
        numbers |= {
            f"inverter/{serial}.power_w": inverter.last_report_watts,
            f"inverter/{serial}.max_power_w": inverter.max_report_watts,
            f"inverter/{serial}.dc_voltage_v": inverter.dc_voltage,
            f"inverter/{serial}.dc_current_a": inverter.dc_current,
            f"inverter/{serial}.ac_voltage_v": inverter.ac_voltage,
            f"inverter/{serial}.ac_frequency_hz": inverter.ac_frequency,
            f"inverter/{serial}.temperature_c": inverter.temperature,
            f"inverter/{serial}.energy_lifetime_wh": inverter.lifetime_energy,
        }
    numbers |= numbers_of_batteries(data)
    return {name: value for name, value in numbers.items() if value is not None}


def allowance(name: str) -> float:
    """Return how far the numbers may be apart.

    pyenphase rounds to whole watts, and takes what production.json counts from another response, some seconds apart.
    """
    return 40 if name.startswith("energy.") or name == "consumption.energy_lifetime_wh" else 0.51


NOT_PYENPHASES = ("apparent_power_va", "reactive_power_var", "import_power_w", "export_power_w")
"""What pyenphase does not have, or has as one number with a sign."""


@pytest.mark.recordings
@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_gateway_gives_the_numbers_of_pyenphase(name: str, tmp_path: Path) -> None:
    """Every number of either is the other's, to the watt that pyenphase rounds to, or is a deliberate difference."""
    different = differences(RECORDINGS / name, tmp_path)

    assert different.keys() == DELIBERATE.get(name, {}).keys(), different


@pytest.mark.parametrize("gateway", GATEWAYS, ids=lambda gateway: gateway.name)
def test_a_described_gateway_gives_the_numbers_of_pyenphase(gateway: Gateway, tmp_path: Path) -> None:
    """The same of the made-up gateways, which every machine has."""
    different = differences(gateway.write(tmp_path / "gateway"), tmp_path)

    assert different.keys() == DELIBERATE_DESCRIBED.get(gateway.name, {}).keys(), different


def differences(folder: Path, state: Path) -> dict[str, tuple[float | None, float | None]]:
    """Return the numbers that the poller and pyenphase do not have in common, for a folder of responses."""
    with simulator(state, recording=folder) as roof:
        theirs = numbers_of_pyenphase(asyncio.run(read_with_pyenphase(roof)))
        ours = numbers_of_poller(read_with_poller(roof, state))
    return {
        name: (ours.get(name), theirs.get(name))
        for name in ours.keys() | theirs.keys()
        if not name.endswith(NOT_PYENPHASES)
        and (name not in ours or name not in theirs or abs((ours[name] or 0) - (theirs[name] or 0)) > allowance(name))
    }
