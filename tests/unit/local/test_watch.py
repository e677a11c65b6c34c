import time

import pytest

from deploy.local.watch import Point, gateway_addresses, newest_points, tell

DELIVERED = "enphase.services.carbon-sink.metrics.readings_delivered"
NOON_S = int(time.mktime((2026, 6, 21, 12, 0, 10, 0, 0, -1)))


def power(serial: str, **watts: float) -> dict[str, Point]:
    """Return the newest points of one gateway, taken at noon."""
    return {f"enphase.{serial}.{kind}.power_w": Point(NOON_S, value) for kind, value in watts.items()}


def test_export_is_told_in_words_and_kilowatts() -> None:
    """A negative grid power is an export."""
    newest = power("1", production=2310, consumption=640, grid=-1670) | {DELIVERED: Point(NOON_S, 1234)}
    assert tell("enphase", newest, DELIVERED, NOON_S + 5) == [
        "12:00:10  production 2.31 kW  consumption 0.64 kW  export 1.67 kW  readings delivered 1 234"
    ]


def test_gateway_that_measures_production_alone_is_told_without_the_rest() -> None:
    """What is not measured is left out."""
    assert tell("enphase", power("1", production=-1), DELIVERED, NOON_S) == ["12:00:10  production 0.00 kW"]


def test_several_gateways_are_told_one_by_one() -> None:
    """Each line names its gateway."""
    newest = power("1", grid=100) | power("2", grid=-200)
    assert tell("enphase", newest, DELIVERED, NOON_S) == [
        "12:00:10  1  import 0.10 kW",
        "12:00:10  2  export 0.20 kW",
    ]


def test_old_reading_is_told_as_old() -> None:
    """A value that no longer changes is not passed off as new."""
    [line] = tell("enphase", power("1", grid=100), DELIVERED, NOON_S + 180)
    assert line.endswith("(no newer reading for 180 s)")


def test_nothing_to_tell_is_said() -> None:
    """An outage of a quarter of an hour is not silence."""
    assert tell("enphase", {}, DELIVERED, NOON_S) == ["no reading in the last 15 minutes"]


def test_empty_slots_are_not_values() -> None:
    """The newest point is the last one that is not null."""
    rendered = b'[{"target": "a", "datapoints": [[1.5, 10], [2.5, 20], [null, 30]]}, {"target": "b", "datapoints": []}]'
    assert newest_points(rendered) == {"a": Point(20, 2.5)}


@pytest.mark.parametrize(
    ("envoy_host", "addresses"),
    [
        ("envoy.local", [("envoy.local", 443), ("envoy.local", 80)]),
        ("192.0.2.7:8080", [("192.0.2.7", 8080)]),
        ("http://192.0.2.7", [("192.0.2.7", 80)]),
        ("https://127.0.0.1:8443", [("127.0.0.1", 8443)]),
    ],
)
def test_gateway_is_looked_for_where_it_can_answer(envoy_host: str, addresses: list[tuple[str, int]]) -> None:
    """A gateway without a port in its setting answers over HTTPS or, if it is old, over HTTP."""
    assert gateway_addresses(envoy_host) == addresses
