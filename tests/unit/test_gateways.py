"""The gateways that the tests use are consistent, and none of them is a real one."""

import re

import pytest

from tests.gateways import NOON, Gateway
from tests.gateways.catalog import GATEWAYS
from tests.recordings import NAMES, RECORDINGS

REGULAR = [gateway for gateway in GATEWAYS if gateway.meters and not gateway.oddities]


def test_names_and_serial_numbers_are_unique() -> None:
    """A gateway is identified by its name, and each device by its serial number."""
    serials = [gateway.serial for gateway in GATEWAYS]
    serials += [inverter.serial for gateway in GATEWAYS for inverter in gateway.inverters]
    serials += [battery.serial for gateway in GATEWAYS for battery in gateway.batteries]

    assert len({gateway.name for gateway in GATEWAYS}) == len(GATEWAYS)
    assert len(set(serials)) == len(serials)


def test_every_generation_of_firmware_is_there() -> None:
    """Firmware 3, 4, 5, 7 and 8, with and without meters."""
    generations = {(gateway.version[0], bool(gateway.meters)) for gateway in GATEWAYS}

    assert {generation for generation, _ in generations} == {3, 4, 5, 7, 8}
    assert {(7, True), (7, False), (8, True), (8, False)} <= generations


@pytest.mark.parametrize("gateway", REGULAR, ids=lambda gateway: gateway.name)
def test_the_figures_of_a_regular_gateway_add_up(gateway: Gateway) -> None:
    """A meter is the sum of its phases, and consumption is production plus net."""
    responses = gateway.responses()
    readings = responses["ivp_meters_readings"].body
    for reading in readings:
        for name in ("activePower", "actEnergyDlvd", "actEnergyRcvd", "voltage", "current"):
            assert reading[name] == pytest.approx(sum(channel[name] for channel in reading["channels"]), abs=0.01)
    counts = responses["production.json"].body
    if "consumption" in counts:
        total, net = counts["consumption"]
        assert total["wNow"] == pytest.approx(counts["production"][1]["wNow"] + net["wNow"], abs=0.01)
    assert all(reading["timestamp"] == NOON for reading in readings)


@pytest.mark.recordings
@pytest.mark.parametrize("name", NAMES)
def test_no_serial_number_is_a_real_gateways(name: str) -> None:
    """Nothing is copied from a recording of a real gateway."""
    files = [file for file in (RECORDINGS / name).iterdir() if not file.name.endswith("_log.json")]
    recorded = {number for file in files for number in re.findall(r"\b\d{12}\b", file.read_text(errors="replace"))}
    ours = {
        number
        for gateway in GATEWAYS
        for response in gateway.responses().values()
        for number in re.findall(r"\b\d{12}\b", response.encoded().decode())
    }

    assert recorded
    assert not recorded & ours


@pytest.mark.recordings
def test_every_recording_that_is_there_is_tested() -> None:
    """A new recording has its name in the list."""
    assert {folder.name for folder in RECORDINGS.glob("*/")} == set(NAMES)
