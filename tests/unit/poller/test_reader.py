"""What a reader establishes of a gateway from one poll to the next."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.poller.agenda import Poll
from services.poller.endpoints import DEVICE_DATA, INVERTERS, METER_READINGS, PRODUCTION, PRODUCTION_JSON
from services.poller.errors import GatewayUnavailable, TokenRejected
from services.poller.reader import GatewayReader
from shared.readings import Batteries, Battery, Consumption, Energy, Grid, Inverter, Meter, Production, Reading
from tests.programs import simulator
from tests.unit.poller.recorded import RecordedEnvoy, new_reader, simulated_responses

Gateway = tuple[RecordedEnvoy, GatewayReader]
TIME = re.compile(rb"<time>\d+</time>")
ONLY_METERS = Poll(meters=True, sweep=None)


@pytest.fixture
def gateway(tmp_path: Path) -> Callable[..., Gateway]:
    """Return a function that makes a gateway that responds as simulated, and its reader."""

    def make(**model: Any) -> Gateway:
        with simulator(tmp_path, **model) as roof:
            envoy = RecordedEnvoy(simulated_responses(roof))
        return envoy, new_reader(envoy)

    return make


def read_again(envoy: RecordedEnvoy, reader: GatewayReader) -> list[Reading]:
    """Return the readings of everything, ten seconds later."""
    envoy.pass_time()
    return reader.read()


def change(envoy: RecordedEnvoy, path: str, alter: Callable[[Any], None]) -> None:
    """Change a response."""
    response = json.loads(envoy.responses[path][1])
    alter(response)
    envoy.responses[path] = (200, json.dumps(response).encode())


def body(envoy: RecordedEnvoy, path: str) -> Any:  # noqa: ANN401 - JSON
    """Return a response."""
    return json.loads(envoy.responses[path][1])


def one(readings: list[Reading], wanted: type[Reading]) -> Any:  # noqa: ANN401 - of the wanted class
    """Return the one reading of a class, None if there is none."""
    found = [reading for reading in readings if isinstance(reading, wanted)]
    assert len(found) <= 1
    return found[0] if found else None


def inverters(readings: list[Reading]) -> list[Inverter]:
    """Return the readings of inverters."""
    return [reading for reading in readings if isinstance(reading, Inverter)]


def report_meters_as_inactive(response: Any) -> None:  # noqa: ANN401 - JSON
    """Set activeCount to 0 in production.json, as 8.3.5528 does now and then."""
    for section in (*response["production"], *response["consumption"]):
        if section["type"] == "eim":
            section["activeCount"] = 0


def copy_net_to_total(response: Any) -> None:  # noqa: ANN401 - JSON
    """Report net-consumption as total-consumption, as 8.3.5433 does."""
    total, net = response["consumption"]
    total.update({key: net[key] for key in ("wNow", "whLifetime")})


def disable_production_meter(envoy: RecordedEnvoy) -> None:
    """Report the production meter as disabled, everywhere."""
    change(envoy, "/ivp/meters", lambda meters: meters[0].update(state="disabled"))
    change(envoy, "/production.json", lambda response: response["production"][1].update(activeCount=0))


def test_a_meter_reported_as_inactive_once_stays_the_source(gateway: Callable[..., Gateway]) -> None:
    """Power and lifetime come from the meter as before, not from the inverters."""
    envoy, reader = gateway()
    before = one(reader.read(), Production)
    change(envoy, "/production.json", report_meters_as_inactive)

    after = read_again(envoy, reader)

    assert one(after, Production).source == before.source == "meter"
    assert one(after, Production).energy_lifetime_wh == before.energy_lifetime_wh
    assert one(after, Consumption).power_w is not None
    assert one(after, Consumption).energy_lifetime_wh is None


def test_a_counter_that_fails_once_is_not_replaced_by_another(gateway: Callable[..., Gateway]) -> None:
    """Without meters, the gateway's own counter stays the source: a poll without it has no production."""
    envoy, reader = gateway(model="unmetered")
    assert one(reader.read(), Production).source == "gateway"
    good = envoy.responses["/api/v1/production"]
    zero = {"wattHoursToday": 0, "wattHoursSevenDays": 0, "wattHoursLifetime": 0, "wattsNow": 5}
    for bad in (b"<html>", b"{}", json.dumps(zero).encode()):
        envoy.responses["/api/v1/production"] = (200, bad)
        assert one(read_again(envoy, reader), Production) is None
        reader.agenda.forget_failures()
    envoy.responses["/api/v1/production"] = good

    wait_for_next_second(reader)
    assert one(reader.read(), Production).source == "gateway"


def wait_for_next_second(reader: GatewayReader) -> None:
    """Forget the newest times: an unmetered gateway's readings carry the time of receipt, which a test repeats."""
    reader.corrections.duplicates.newest.clear()


def test_an_unmetered_gateway_with_zero_counters_gives_the_inverters_sum(gateway: Callable[..., Gateway]) -> None:
    """8.3.5422: the sum's power and lifetime, and the inverters' energy of the day."""
    envoy, reader = gateway(model="unmetered", firmware="8", commissioned="2026-06-01", start="2026-06-21T12:00")
    zero = {"wattHoursToday": 0, "wattHoursSevenDays": 0, "wattHoursLifetime": 0, "wattsNow": 0}
    change(envoy, "/api/v1/production", lambda response: response.update(zero))
    counted = body(envoy, "/production.json")["production"][0]

    production = one(reader.read(), Production)

    assert (production.source, production.power_w) == ("inverters", counted["wNow"])
    assert production.energy_lifetime_wh == counted["whLifetime"]
    assert one(read_again(envoy, reader), Energy).production_today_wh > 0


def test_a_total_that_is_a_copy_of_net_gets_the_production_added(gateway: Callable[..., Gateway]) -> None:
    """8.3.5433: power is production plus net of one response, and so is the lifetime."""
    envoy, reader = gateway()
    change(envoy, "/production.json", copy_net_to_total)
    counted = body(envoy, "/production.json")
    produced, net = counted["production"][1], counted["consumption"][1]

    consumption = one(reader.read(), Consumption)

    assert consumption.energy_lifetime_wh == pytest.approx(max(0, produced["whLifetime"] + net["whLifetime"]), abs=0.01)
    production_w, net_w = (each["activePower"] for each in body(envoy, "/ivp/meters/readings")[:2])
    assert consumption.power_w == pytest.approx(production_w + net_w, abs=0.001)


def test_where_the_meters_are_rejected_production_json_is_used(gateway: Callable[..., Gateway]) -> None:
    """/ivp/meters is rejected: powers of one response, but neither import nor export are counted there."""
    envoy, reader = gateway()
    envoy.responses["/ivp/meters"] = (401, b"")
    counted = body(envoy, "/production.json")
    produced, (total, net) = counted["production"][1], counted["consumption"]

    readings = reader.read()

    assert one(readings, Production).power_w == produced["wNow"]
    assert one(readings, Consumption).power_w == total["wNow"]
    assert (one(readings, Grid).power_w, one(readings, Grid).import_lifetime_wh) == (net["wNow"], None)
    assert {reading.timestamp for reading in readings if not isinstance(reading, Inverter)} == {produced["readingTime"]}


def test_a_site_metered_around_its_load_has_consumption_and_no_grid(gateway: Callable[..., Gateway]) -> None:
    """Total-consumption is measured there; net is computed from it, without a production that is not measured."""
    envoy, reader = gateway()
    change(envoy, "/ivp/meters", lambda meters: meters[1].update(measurementType="total-consumption"))
    change(envoy, "/ivp/meters", lambda meters: meters[0].update(state="disabled"))
    consumed = body(envoy, "/ivp/meters/readings")[1]

    readings = reader.read()

    assert one(readings, Consumption).power_w == consumed["activePower"]
    assert one(readings, Grid) is None


def test_a_measured_total_consumption_may_equal_net(gateway: Callable[..., Gateway]) -> None:
    """With transformers around the load and none around the roof, net is total minus nothing: total is right."""
    envoy, reader = gateway()
    change(envoy, "/ivp/meters", lambda meters: meters[1].update(measurementType="total-consumption"))
    disable_production_meter(envoy)
    change(envoy, "/production.json", lambda response: response["consumption"][1].update(whLifetime=5000.0))
    change(envoy, "/production.json", copy_net_to_total)

    assert one(reader.read(), Consumption).energy_lifetime_wh == 5000


def test_net_consumption_alone_gives_no_consumption(gateway: Callable[..., Gateway]) -> None:
    """Without a transformer around the roof, the gateway's total is net plus nothing, and there is some production."""
    envoy, reader = gateway()
    disable_production_meter(envoy)
    change(envoy, "/production.json", copy_net_to_total)
    change(envoy, "/production.json", lambda response: response["consumption"][1].update(whLifetime=1.0))

    readings = reader.read()

    assert one(readings, Consumption) is None
    assert one(readings, Grid) is not None


def test_without_production_json_the_gateways_own_counter_gives_the_day(gateway: Callable[..., Gateway]) -> None:
    """Only where it is a copy of the meter, and only where production.json never responded."""
    envoy, reader = gateway(commissioned="2026-06-01", start="2026-06-21T12:00")
    own, meter = body(envoy, "/api/v1/production"), body(envoy, "/ivp/meters/readings")[0]
    assert own["wattHoursLifetime"] == pytest.approx(meter["actEnergyDlvd"], rel=0.01)
    assert own["wattHoursToday"] > 0
    assert one(reader.read(), Energy) is not None
    for path in ("/production.json", "/production"):
        del envoy.responses[path]

    assert one(read_again(envoy, reader), Energy) is None
    assert one(new_reader(envoy).read(), Energy).production_today_wh == own["wattHoursToday"]
    change(envoy, "/api/v1/production", lambda count: count.update(wattHoursLifetime=own["wattHoursLifetime"] * 0.66))
    assert one(new_reader(envoy).read(), Energy) is None


def test_where_production_json_is_rejected_its_other_path_is_used(gateway: Callable[..., Gateway]) -> None:
    """Early firmware 7; once it is known, the rejected path is fetched less often."""
    envoy, reader = gateway()
    envoy.responses["/production.json"] = (401, b"")

    assert one(reader.read(), Energy) is not None
    assert one(read_again(envoy, reader), Energy) is not None
    envoy.requested.clear()
    assert one(read_again(envoy, reader), Energy) is not None

    assert PRODUCTION_JSON.path not in envoy.requested
    assert PRODUCTION.path in envoy.requested


def test_meters_missing_from_one_list_are_kept(gateway: Callable[..., Gateway]) -> None:
    """An empty list takes effect when the next one confirms it."""
    envoy, reader = gateway()
    reader.read()
    envoy.responses["/ivp/meters"] = (200, b"[]")

    assert one(read_again(envoy, reader), Grid) is not None
    read_again(envoy, reader)
    assert not any(isinstance(reading, Meter) for reading in read_again(envoy, reader))


def test_an_inverters_report_is_published_once_and_again_when_it_moves(gateway: Callable[..., Gateway]) -> None:
    """They are fetched every minute and report every five minutes."""
    envoy, reader = gateway(inverters=3)
    first, second = inverters(reader.read()), inverters(read_again(envoy, reader))

    def report(devices: Any) -> None:  # noqa: ANN401 - JSON
        devices["553648384"]["channels"][0]["lastReading"]["endDate"] += 300

    change(envoy, "/ivp/pdm/device_data", report)
    third = inverters(read_again(envoy, reader))

    assert (len(first), len(second)) == (3, 0)
    assert [reading.serial for reading in third] == [first[0].serial]
    assert first[0].energy_lifetime_wh is not None


def test_a_truncated_list_of_devices_is_not_used(gateway: Callable[..., Gateway]) -> None:
    """From fifty on it is truncated: the plain list has them all."""
    _, reader = gateway(inverters=60)

    found = inverters(reader.read())

    assert len(found) == 60
    assert found[0].dc_voltage_v is None


def test_an_invalid_device_is_found_in_the_plain_list(gateway: Callable[..., Gateway]) -> None:
    """No inverter is lost for the sake of the others' details; an inactive one is not missed."""
    envoy, reader = gateway(firmware="8")
    devices = body(envoy, "/ivp/pdm/device_data")
    names = [name for name, each in devices.items() if isinstance(each, dict) and each["devName"] == "pcu"]
    everything = {each.serial for each in inverters(reader.read())}
    assert len(everything) == len(names)

    change(envoy, "/ivp/pdm/device_data", lambda response: response[names[0]].update(active=False, channels=[]))
    with_an_idle_one = {each.serial for each in inverters(new_reader(envoy).read())}
    change(envoy, "/ivp/pdm/device_data", lambda response: response[names[1]]["channels"][0].pop("watts"))
    with_an_invalid_one = {each.serial for each in inverters(new_reader(envoy).read())}

    assert with_an_idle_one == everything - {devices[names[0]]["sn"]}
    assert with_an_invalid_one == everything


def test_batteries_are_published_one_by_one_and_together(gateway: Callable[..., Gateway]) -> None:
    """The storage meter gives power and energies of all, the batteries their own."""
    envoy, reader = gateway(batteries=2, commissioned="2026-06-01", start="2026-06-21T12:00")

    readings = reader.read()

    storage = body(envoy, "/ivp/meters/readings")[2]
    each = [reading for reading in readings if isinstance(reading, Battery)]
    together = one(readings, Batteries)
    assert (together.power_w, together.charge_lifetime_wh) == (storage["activePower"], storage["actEnergyRcvd"])
    assert together.capacity_wh == sum(battery.capacity_wh or 0 for battery in each) == 10_000
    assert sum(battery.power_w or 0 for battery in each) == pytest.approx(storage["activePower"], abs=1)
    assert reader.info.sources[-1] == "battery=meter"


def test_a_battery_without_power_leaves_the_power_of_all_unknown(gateway: Callable[..., Gateway]) -> None:
    """Without a storage meter, the sum of some would pass for the sum of all."""
    envoy, reader = gateway(batteries=2)
    change(envoy, "/ivp/meters", lambda meters: meters[2].update(state="disabled"))
    change(envoy, "/ivp/ensemble/power", lambda power: power["devices:"].pop())

    together = one(reader.read(), Batteries)

    assert together.power_w is None
    assert together.charge_percent is not None


def test_a_rejected_endpoint_is_fetched_less_often_and_the_others_as_before(gateway: Callable[..., Gateway]) -> None:
    """Some endpoints require a higher role than an owner's."""
    envoy, reader = gateway()
    envoy.responses["/ivp/pdm/device_data"] = (401, b"")

    found = inverters(reader.read())
    read_again(envoy, reader)
    envoy.requested.clear()
    read_again(envoy, reader)

    assert len(found) == 12
    assert DEVICE_DATA.path not in envoy.requested
    assert INVERTERS.path in envoy.requested


def test_an_endpoint_that_is_busy_twice_affects_no_other(gateway: Callable[..., Gateway]) -> None:
    """The first 503 leaves the gateway alone; the second of the same endpoint leaves that endpoint alone."""
    envoy, reader = gateway()
    envoy.responses["/production.json"] = (503, b"")

    with pytest.raises(GatewayUnavailable) as error:
        reader.read()
    readings = reader.read()

    assert error.value.retry_after_s > 0
    assert one(readings, Production).source == "meter"
    assert envoy.requested.count("/production.json") == 2
    read_again(envoy, reader)
    assert envoy.requested.count("/production.json") == 2


def test_a_busy_endpoint_is_left_out_without_a_retry(gateway: Callable[..., Gateway]) -> None:
    """But a gateway that is busy with everything gives nothing."""
    envoy, reader = gateway()
    busy = RecordedEnvoy(envoy.responses | dict.fromkeys(envoy.responses.keys() - {"/info"}, (503, b"")))
    envoy.responses["/production.json"] = (503, b"")

    assert one(reader.read(will_retry=False), Production).source == "meter"
    with pytest.raises(GatewayUnavailable):
        new_reader(busy).read(will_retry=False)


def test_a_gateway_that_rejects_everything_needs_another_token(gateway: Callable[..., Gateway]) -> None:
    """After four rejections, without trying every endpoint."""
    envoy, reader = gateway()
    envoy.responses = dict.fromkeys(envoy.responses, (401, b""))

    with pytest.raises(TokenRejected):
        reader.read()

    assert len(envoy.requested) == 4


def test_where_only_the_meters_are_rejected_no_other_token_is_needed(gateway: Callable[..., Gateway]) -> None:
    """What else responds is read on."""
    envoy, reader = gateway()
    reader.read()
    envoy.responses["/ivp/meters/readings"] = (401, b"")

    assert reader.poll(ONLY_METERS) == []
    assert one(read_again(envoy, reader), Production).source == "meter"
    assert reader.agenda.health[METER_READINGS].retry_at > time.monotonic()
    envoy.responses = dict.fromkeys(envoy.responses, (401, b""))
    with pytest.raises(TokenRejected):
        reader.poll(ONLY_METERS)


def test_a_gateway_with_other_firmware_must_be_found_again(gateway: Callable[..., Gateway]) -> None:
    """/info is checked while the gateway is read."""
    envoy, reader = gateway()
    reader.identify()
    info = envoy.responses["/info"][1]
    envoy.responses["/info"] = (200, info.replace(b"<software>", b"<software>D9.9.9-"))

    with pytest.raises(GatewayUnavailable, match="is now gateway"):
        reader.identify()


def test_an_unreadable_info_changes_nothing(gateway: Callable[..., Gateway]) -> None:
    """One bad response is no reason to lose the gateway."""
    envoy, reader = gateway()
    envoy.responses["/info"] = (200, b"<html>")

    reader.identify()

    assert one(reader.read(), Production) is not None


def test_meters_with_another_time_than_the_clock_have_the_clock_read_again(gateway: Callable[..., Gateway]) -> None:
    """The poll that shows the difference already has true times."""
    envoy, reader = gateway()
    reader.read()
    envoy.pass_time(7200)
    shown = f"<time>{int(time.time()) + 7200}</time>".encode()
    envoy.responses["/info"] = (200, TIME.sub(shown, envoy.responses["/info"][1]))

    readings = reader.poll(ONLY_METERS)

    assert reader.info.clock_offset_s == pytest.approx(7200, abs=2)
    assert readings
    assert all(abs(reading.timestamp - time.time()) < 60 for reading in readings)
