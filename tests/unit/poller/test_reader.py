"""What is remembered of a gateway from one poll to the next."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.poller.envoy import GatewayUnavailable, TokenRejected, read_identity
from services.poller.reader import Cycle, GatewayReader
from shared.readings import Batteries, Battery, Consumption, Energy, Grid, Inverter, Meter, Production, Reading
from tests.programs import simulator
from tests.unit.poller.recorded import RememberedEnvoy, simulated_answers

Gateway = tuple[RememberedEnvoy, GatewayReader]


@pytest.fixture
def gateway(tmp_path: Path) -> Callable[..., Gateway]:
    """Return what makes a gateway that answers as simulated, and its reader."""

    def make(**model: Any) -> Gateway:
        with simulator(tmp_path, **model) as roof:
            envoy = RememberedEnvoy(simulated_answers(roof))
        return envoy, GatewayReader(envoy, read_identity(envoy.answers["/info"][1]))

    return make


def again(reader: GatewayReader) -> list[Reading]:
    """Return the readings of a poll that asks for everything once more."""
    return reader.read()


def change(envoy: RememberedEnvoy, path: str, alter: Callable[[Any], None]) -> None:
    """Alter an answer."""
    answer = json.loads(envoy.answers[path][1])
    alter(answer)
    envoy.answers[path] = (200, json.dumps(answer).encode())


def one(readings: list[Reading], wanted: type[Reading]) -> Any:  # noqa: ANN401 - of the class asked for
    """Return the one reading of a class, None if there is none."""
    found = [reading for reading in readings if isinstance(reading, wanted)]
    assert len(found) <= 1
    return found[0] if found else None


def inactive(answer: Any) -> None:  # noqa: ANN401 - JSON
    """Let the meters look switched off in production.json, as 8.3.5528 does now and then."""
    for section in (*answer["production"], *answer["consumption"]):
        if section["type"] == "eim":
            section["activeCount"] = 0


def total_is_net(answer: Any) -> None:  # noqa: ANN401 - JSON
    """Let net-consumption stand in the place of total-consumption, as 8.3.5433 does."""
    total, net = answer["consumption"]
    total.update({key: net[key] for key in ("wNow", "whLifetime")})


def test_a_meter_that_flickers_in_one_answer_stays_the_source(gateway: Callable[..., Gateway]) -> None:
    """ActiveCount 0 for a poll: power and lifetime come from the meter as before, not from the inverters."""
    envoy, reader = gateway()
    before = one(reader.read(), Production)
    change(envoy, "/production.json", inactive)

    after = again(reader)

    assert one(after, Production).source == before.source == "meter"
    assert one(after, Production).energy_lifetime_wh == before.energy_lifetime_wh
    assert one(after, Consumption).power_w is not None
    assert one(after, Consumption).energy_lifetime_wh is None


def test_a_count_that_fails_once_is_not_replaced_by_another(gateway: Callable[..., Gateway]) -> None:
    """Without meters, the gateway's own count stays the source: a poll without it has no production."""
    envoy, reader = gateway(model="unmetered")
    assert one(reader.read(), Production).source == "gateway"
    good = envoy.answers["/api/v1/production"]
    zero = {"wattHoursToday": 0, "wattHoursSevenDays": 0, "wattHoursLifetime": 0, "wattsNow": 5}
    for bad in (b"<html>", b"{}", json.dumps(zero).encode()):
        envoy.answers["/api/v1/production"] = (200, bad)
        assert one(again(reader), Production) is None
        reader.access_changed()
    envoy.answers["/api/v1/production"] = good

    assert one(again(reader), Production).source == "gateway"


def test_an_unmetered_gateway_whose_count_is_all_zero_gives_the_inverters_sum(gateway: Callable[..., Gateway]) -> None:
    """8.3.5422: the sum's power and lifetime, and the inverters' energy of the day."""
    envoy, reader = gateway(model="unmetered", firmware="8", commissioned="2026-06-01", start="2026-06-21T12:00")
    zero = {"wattHoursToday": 0, "wattHoursSevenDays": 0, "wattHoursLifetime": 0, "wattsNow": 0}
    change(envoy, "/api/v1/production", lambda answer: answer.update(zero))
    counted = json.loads(envoy.answers["/production.json"][1])["production"][0]

    production = one(reader.read(), Production)

    assert (production.source, production.power_w) == ("inverters", counted["wNow"])
    assert production.energy_lifetime_wh == counted["whLifetime"]
    assert one(again(reader), Energy).production_today_wh > 0


def test_net_in_the_place_of_total_gets_the_production_added(gateway: Callable[..., Gateway]) -> None:
    """8.3.5433: power is production plus net of one answer, and so is the lifetime."""
    envoy, reader = gateway()
    change(envoy, "/production.json", total_is_net)
    counted = json.loads(envoy.answers["/production.json"][1])
    made, net = counted["production"][1], counted["consumption"][1]

    consumption = one(reader.read(), Consumption)

    assert consumption.energy_lifetime_wh == pytest.approx(max(0, made["whLifetime"] + net["whLifetime"]), abs=0.01)
    production_w, net_w = (each["activePower"] for each in json.loads(envoy.answers["/ivp/meters/readings"][1])[:2])
    assert consumption.power_w == pytest.approx(production_w + net_w, abs=0.001)


def test_without_the_meters_answers_production_json_serves(gateway: Callable[..., Gateway]) -> None:
    """/ivp/meters is refused: powers of one answer, but neither import nor export are counted there."""
    envoy, reader = gateway()
    envoy.answers["/ivp/meters"] = (401, b"")
    counted = json.loads(envoy.answers["/production.json"][1])
    made, (total, net) = counted["production"][1], counted["consumption"]

    readings = reader.read()

    assert one(readings, Production).power_w == made["wNow"]
    assert one(readings, Consumption).power_w == total["wNow"]
    assert (one(readings, Grid).power_w, one(readings, Grid).import_lifetime_wh) == (net["wNow"], None)
    assert {reading.timestamp for reading in readings if not isinstance(reading, Inverter)} == {made["readingTime"]}


def test_a_house_metered_around_its_load_has_consumption_and_no_grid(gateway: Callable[..., Gateway]) -> None:
    """total-consumption is measured there; net is computed from it, without a production that nobody meters."""
    envoy, reader = gateway()
    change(envoy, "/ivp/meters", lambda meters: meters[1].update(measurementType="total-consumption"))
    change(envoy, "/ivp/meters", lambda meters: meters[0].update(state="disabled"))
    used = json.loads(envoy.answers["/ivp/meters/readings"][1])[1]

    readings = reader.read()

    assert one(readings, Consumption).power_w == used["activePower"]
    assert one(readings, Grid) is None


def test_total_consumption_that_is_metered_may_equal_net(gateway: Callable[..., Gateway]) -> None:
    """With a transformer around the load and none around the roof, net is total less nothing: total is right."""
    envoy, reader = gateway()
    change(envoy, "/ivp/meters", lambda meters: meters[1].update(measurementType="total-consumption"))
    change(envoy, "/ivp/meters", lambda meters: meters[0].update(state="disabled"))
    change(envoy, "/production.json", lambda answer: answer["production"][1].update(activeCount=0))
    change(envoy, "/production.json", lambda answer: answer["consumption"][1].update(whLifetime=5000.0))
    change(envoy, "/production.json", total_is_net)

    assert one(reader.read(), Consumption).energy_lifetime_wh == 5000


def test_net_consumption_alone_is_no_consumption(gateway: Callable[..., Gateway]) -> None:
    """Without a transformer around the roof, the gateway's total is net plus nothing, and the roof makes something."""
    envoy, reader = gateway()
    change(envoy, "/ivp/meters", lambda meters: meters[0].update(state="disabled"))
    change(envoy, "/production.json", lambda answer: answer["production"][1].update(activeCount=0))
    change(envoy, "/production.json", total_is_net)
    change(envoy, "/production.json", lambda answer: answer["consumption"][1].update(whLifetime=1.0))

    readings = reader.read()

    assert one(readings, Consumption) is None
    assert one(readings, Grid) is not None


def test_without_production_json_the_gateways_own_count_tells_the_day(gateway: Callable[..., Gateway]) -> None:
    """Where it mirrors the meter; where production.json was answered before, it does not step in for one poll."""
    envoy, reader = gateway(commissioned="2026-06-01", start="2026-06-21T12:00")
    own = json.loads(envoy.answers["/api/v1/production"][1])
    meter = json.loads(envoy.answers["/ivp/meters/readings"][1])[0]
    assert own["wattHoursLifetime"] == pytest.approx(meter["actEnergyDlvd"], rel=0.01)
    assert own["wattHoursToday"] > 0
    assert one(reader.read(), Energy) is not None
    for path in ("/production.json", "/production"):
        del envoy.answers[path]

    assert one(again(reader), Energy) is None
    fresh = GatewayReader(envoy, reader.identity)
    assert one(fresh.read(), Energy).production_today_wh == own["wattHoursToday"]
    change(envoy, "/api/v1/production", lambda count: count.update(wattHoursLifetime=own["wattHoursLifetime"] * 0.66))
    assert one(GatewayReader(envoy, reader.identity).read(), Energy) is None


def test_meters_that_are_gone_once_are_still_there(gateway: Callable[..., Gateway]) -> None:
    """An empty list is believed when it is told twice."""
    envoy, reader = gateway()
    reader.read()
    envoy.answers["/ivp/meters"] = (200, b"[]")

    assert one(again(reader), Grid) is not None
    again(reader)
    assert not any(isinstance(reading, Meter) for reading in again(reader))


def test_an_inverters_report_is_told_once_and_again_when_it_moves(gateway: Callable[..., Gateway]) -> None:
    """Asked often, they report every five minutes."""
    envoy, reader = gateway(inverters=3)
    first = [reading for reading in reader.read() if isinstance(reading, Inverter)]
    second = [reading for reading in again(reader) if isinstance(reading, Inverter)]

    def report(devices: Any) -> None:  # noqa: ANN401 - JSON
        devices["553648384"]["channels"][0]["lastReading"]["endDate"] += 300

    change(envoy, "/ivp/pdm/device_data", report)
    third = [reading for reading in again(reader) if isinstance(reading, Inverter)]

    assert (len(first), len(second)) == (3, 0)
    assert [reading.serial for reading in third] == [first[0].serial]
    assert first[0].energy_lifetime_wh is not None


def test_a_list_of_devices_that_is_full_is_not_taken_for_all(gateway: Callable[..., Gateway]) -> None:
    """From fifty on it is cut: the plain list has them all."""
    _, reader = gateway(inverters=60)

    found = [reading for reading in reader.read() if isinstance(reading, Inverter)]

    assert len(found) == 60
    assert found[0].dc_voltage_v is None


def test_a_device_that_cannot_be_read_is_found_in_the_plain_list(gateway: Callable[..., Gateway]) -> None:
    """Detail about the others is worth less than one inverter; one that is not active is not missed."""
    envoy, reader = gateway(firmware="8")
    devices = json.loads(envoy.answers["/ivp/pdm/device_data"][1])
    inverters = [name for name, each in devices.items() if isinstance(each, dict) and each["devName"] == "pcu"]
    all_of_them = {each.serial for each in reader.read() if isinstance(each, Inverter)}
    assert len(all_of_them) == len(inverters)

    change(envoy, "/ivp/pdm/device_data", lambda answer: answer[inverters[0]].update(active=False, channels=[]))
    idle = {each.serial for each in GatewayReader(envoy, reader.identity).read() if isinstance(each, Inverter)}
    change(envoy, "/ivp/pdm/device_data", lambda answer: answer[inverters[1]]["channels"][0].pop("watts"))
    spoiled = {each.serial for each in GatewayReader(envoy, reader.identity).read() if isinstance(each, Inverter)}

    assert idle == all_of_them - {devices[inverters[0]]["sn"]}
    assert spoiled == all_of_them


def test_batteries_are_told_one_by_one_and_together(gateway: Callable[..., Gateway]) -> None:
    """The storage meter gives power and energies of all, the batteries their own."""
    envoy, reader = gateway(batteries=2, commissioned="2026-06-01", start="2026-06-21T12:00")

    readings = reader.read()

    storage = json.loads(envoy.answers["/ivp/meters/readings"][1])[2]
    each = [reading for reading in readings if isinstance(reading, Battery)]
    together = one(readings, Batteries)
    assert (together.power_w, together.charge_lifetime_wh) == (storage["activePower"], storage["actEnergyRcvd"])
    assert together.capacity_wh == sum(battery.capacity_wh or 0 for battery in each) == 10_000
    assert sum(battery.power_w or 0 for battery in each) == pytest.approx(storage["activePower"], abs=1)
    assert reader.info.sources[-1] == "battery=meter"


def test_the_sum_of_some_batteries_does_not_pass_for_all(gateway: Callable[..., Gateway]) -> None:
    """Without a storage meter, a battery that tells no power leaves the power of all unknown."""
    envoy, reader = gateway(batteries=2)
    change(envoy, "/ivp/meters", lambda meters: meters[2].update(state="disabled"))
    change(envoy, "/ivp/ensemble/power", lambda power: power["devices:"].pop())

    together = one(reader.read(), Batteries)

    assert together.power_w is None
    assert together.charge_percent is not None


def test_what_is_refused_is_asked_for_less_often_and_the_rest_goes_on(gateway: Callable[..., Gateway]) -> None:
    """Some answers need a higher role than an owner's."""
    envoy, reader = gateway()
    envoy.answers["/ivp/pdm/device_data"] = (401, b"")

    found = [reading for reading in reader.read() if isinstance(reading, Inverter)]
    again(reader)
    reader.begin([Cycle.INVERTERS])

    assert len(found) == 12
    question = reader.next_question()
    assert question is not None
    assert question.path == "/api/v1/production/inverters"


def test_a_path_that_is_busy_twice_costs_itself_alone(gateway: Callable[..., Gateway]) -> None:
    """Told "busy" once, the gateway is left alone; told so of the same path again, while others answer, it is not."""
    envoy, reader = gateway()
    envoy.answers["/production.json"] = (503, b"")

    with pytest.raises(GatewayUnavailable) as told:
        reader.read()
    reader.access_changed()
    readings = reader.read()

    assert told.value.retry_after_s > 0
    assert one(readings, Production).source == "meter"
    assert envoy.asked.count("/production.json") == 2
    reader.read()
    assert envoy.asked.count("/production.json") == 2, "it is left alone for a while"


def test_asked_once_only_a_busy_path_is_done_without(gateway: Callable[..., Gateway]) -> None:
    """Nobody comes again; but a gateway that is busy with everything gives nothing."""
    envoy, reader = gateway()
    envoy.answers["/production.json"] = (503, b"")

    assert one(reader.read(only_once=True), Production).source == "meter"
    envoy.answers = dict.fromkeys(envoy.answers, (503, b""))
    with pytest.raises(GatewayUnavailable):
        GatewayReader(envoy, reader.identity).read(only_once=True)


def test_a_gateway_that_refuses_everything_asks_for_another_token(gateway: Callable[..., Gateway]) -> None:
    """After a few refusals, and without asking all there is."""
    envoy, reader = gateway()
    envoy.answers = dict.fromkeys(envoy.answers, (401, b""))

    with pytest.raises(TokenRejected):
        reader.read()


def test_meters_that_alone_are_refused_cost_the_meters_alone(gateway: Callable[..., Gateway]) -> None:
    """What else is answered goes on, and no other token is asked for."""
    envoy, reader = gateway()
    reader.read()
    envoy.answers["/ivp/meters/readings"] = (401, b"")

    assert reader.poll() == []
    assert one(again(reader), Production).source == "meter"
    assert not reader.meters_enabled
    envoy.answers = dict.fromkeys(envoy.answers, (401, b""))
    reader.access_changed()
    with pytest.raises(TokenRejected):
        reader.poll()
