"""The simulator is read by pyenphase, the library of Home Assistant, like a real gateway."""

import asyncio
import json
from pathlib import Path

import pytest
import requests
from pyenphase import Envoy, EnvoyData

from services.simulator.settings import SimulatorSettings
from services.simulator.simulator import Simulator
from tests.gateways import Gateway
from tests.gateways.catalog import GATEWAYS
from tests.recordings import NAMES, RECORDINGS

MODELS = [
    *((model, firmware, 0) for model in ("metered-single", "metered-split", "metered-three") for firmware in "875"),
    *(("unmetered", firmware, 0) for firmware in "875"),
    ("metered-single", "8", 1),
    ("metered-split", "8", 5),
    ("metered-three", "7", 2),
]


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one state folder for all tests, so that past days are computed once."""
    return tmp_path_factory.mktemp("state")


def settings(state_dir: Path, **changes: object) -> SimulatorSettings:
    """Return settings with free ports and without delays."""
    defaults = {"envoy_port": 0, "enlighten_port": 0, "control_port": 0, "slow_answers_s": 0, "state_dir": state_dir}
    return SimulatorSettings.model_validate(defaults | changes)


def enlighten_token(simulator: Simulator) -> str:
    """Return a token, after a log-in as an owner's program does it."""
    login = requests.post(
        f"{simulator.enlighten_url}/login/login.json?",
        data={"user[email]": "owner@example.com", "user[password]": "sunshine"},
        timeout=5,
    )
    login.raise_for_status()
    body = {
        "session_id": login.json()["session_id"],
        "serial_num": simulator.serial,
        "username": "owner@example.com",
    }
    tokens = requests.post(f"{simulator.enlighten_url}/tokens", json=body, timeout=5)
    tokens.raise_for_status()
    return tokens.text


async def read_with_pyenphase(simulator: Simulator) -> EnvoyData:
    """Return what pyenphase reads from the gateway."""
    scheme, _, host = simulator.envoy_url.partition("://")
    envoy = Envoy(host)
    try:
        await envoy.setup()
        if scheme == "https":
            await envoy.authenticate(token=enlighten_token(simulator))
        else:
            await envoy.authenticate(username="envoy")
        await envoy.update()
        if simulator.gateway is not None:  # few recordings hold /home
            interface = await envoy.interface_settings()
            assert interface is not None
            assert interface.primary_interface == "eth0"
        assert envoy.data is not None
        return envoy.data
    finally:
        await envoy.close()


def newest(simulator: Simulator, path: str) -> object:
    """Return the newest response for a path."""
    return json.loads(str(simulator.request_log.served("envoy", path)[-1]["body"]))


@pytest.mark.parametrize(("model", "firmware", "batteries"), MODELS)
def test_every_model_is_read_by_pyenphase_without_error(
    state_dir: Path, model: str, firmware: str, batteries: int
) -> None:
    """Its numbers arrive unchanged."""
    chosen = settings(
        state_dir, model=model, firmware=firmware, batteries=batteries, start="2026-06-21T15:20", inverters=10
    )
    with Simulator(chosen) as simulator:
        data = asyncio.run(read_with_pyenphase(simulator))

        assert data.system_production is not None
        assert data.system_production.watts_now > 100
        assert data.tariff is not None
        inverters = newest(simulator, "/ivp/pdm/device_data" if firmware == "8" else "/api/v1/production/inverters")
        if isinstance(inverters, list):
            assert {i["serialNumber"]: i["lastReportWatts"] for i in inverters} == {
                serial: inverter.last_report_watts for serial, inverter in data.inverters.items()
            }
        else:
            assert isinstance(inverters, dict)
            assert inverters["deviceCount"] == 10 == len(data.inverters)
        if model == "unmetered":
            served = newest(simulator, "/api/v1/production")
            assert isinstance(served, dict)
            assert served["wattsNow"] == data.system_production.watts_now
            assert served["wattHoursLifetime"] == data.system_production.watt_hours_lifetime
            assert not data.ctmeters
            return
        production = newest(simulator, "/production.json")
        assert isinstance(production, dict)
        eim = production["production"][1]
        assert round(eim["wNow"]) == data.system_production.watts_now
        assert round(eim["whLifetime"]) == data.system_production.watt_hours_lifetime
        assert data.system_consumption is not None
        assert data.system_net_consumption is not None
        assert [round(section["wNow"]) for section in production["consumption"]] == [
            data.system_consumption.watts_now,
            data.system_net_consumption.watts_now,
        ]
        meters, readings = newest(simulator, "/ivp/meters"), newest(simulator, "/ivp/meters/readings")
        assert isinstance(meters, list)
        assert isinstance(readings, list)
        assert [meter["measurementType"] for meter in meters] == list(data.ctmeters)
        for meter, reading in zip(meters, readings, strict=True):
            read = data.ctmeters[meter["measurementType"]]
            assert read is not None
            assert (read.eid, read.timestamp, read.voltage) == (
                reading["eid"],
                reading["timestamp"],
                reading["voltage"],
            )
            assert read.active_power == round(reading["activePower"])
            assert read.energy_delivered == round(reading["actEnergyDlvd"])
        phases = {"metered-single": 0, "metered-split": 2, "metered-three": 3}[model]
        assert all(len(lines) == phases for lines in data.ctmeters_phases.values())
        assert phases == len(data.system_production_phases or {})
        if batteries:
            power = newest(simulator, "/ivp/ensemble/power")
            assert isinstance(power, dict)
            assert data.encharge_power is not None
            assert {device["serial_num"]: device["real_power_mw"] for device in power["devices:"]} == {
                serial: battery.real_power_mw for serial, battery in data.encharge_power.items()
            }
            assert data.encharge_inventory is not None
            assert len(data.encharge_inventory) == batteries
            assert data.encharge_aggregate is not None
            assert data.encharge_aggregate.max_available_capacity == 5000 * batteries
            assert data.enpower is not None
            assert data.enpower.mains_oper_state == "closed"


@pytest.mark.parametrize("gateway", GATEWAYS, ids=lambda gateway: gateway.name)
def test_every_gateway_served_from_a_folder_is_read_by_pyenphase(
    state_dir: Path, gateway: Gateway, tmp_path: Path
) -> None:
    """Log-in included, and with the bodies of the folder."""
    data = read_folder_with_pyenphase(gateway.write(tmp_path / "gateway"), state_dir)

    # pyenphase counts AC Batteries among the inverters.
    ac_batteries = sum(inverter.dev_type == 11 for inverter in gateway.inverters)
    assert len(data.inverters) == gateway.expected.inverters + ac_batteries
    # pyenphase drops the production of a meter whose count of active transformers is zero for a moment.
    assert (data.system_production is None) == gateway.name.endswith("active_count_zero")


@pytest.mark.recordings
@pytest.mark.parametrize("name", NAMES)
def test_every_recording_is_read_by_pyenphase(state_dir: Path, name: str) -> None:
    """With the log-in and the recorded responses."""
    data = read_folder_with_pyenphase(RECORDINGS / name, state_dir)

    assert data.system_production is not None
    assert data.inverters


def read_folder_with_pyenphase(folder: Path, state_dir: Path) -> EnvoyData:
    """Return what pyenphase reads of a folder's responses, and check that they are served as they are."""
    with Simulator(settings(state_dir, recording=folder)) as simulator:
        data = asyncio.run(read_with_pyenphase(simulator))

        served = simulator.request_log.served("envoy", "/api/v1/production")
        bodies = {response["body"] for response in served if response["status"] == 200}
        assert bodies <= {(folder / "api_v1_production").read_text()}
        return data
