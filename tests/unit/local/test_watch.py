import time

import pytest

from deploy.local.watch import Point, describe, gateway_addresses, newest_points

DELIVERED = "enphase.services.carbon-sink.metrics.readings_delivered"
NOON_S = int(time.mktime((2026, 6, 21, 12, 0, 10, 0, 0, -1)))


def power(serial: str, **watts: float) -> dict[str, Point]:
    """Return the newest points of one gateway, measured at noon."""
    return {f"enphase.{serial}.{kind}.power_w": Point(NOON_S, value) for kind, value in watts.items()}


def test_a_negative_grid_power_is_an_export_in_kilowatts() -> None:
    """A line has the newest value of each kind, and the readings delivered to Carbon."""
    newest = power("1", production=2310, consumption=640, grid=-1670) | {DELIVERED: Point(NOON_S, 1234)}
    assert describe("enphase", newest, DELIVERED, NOON_S + 5) == [
        "12:00:10  production 2.31 kW  consumption 0.64 kW  export 1.67 kW  readings delivered 1 234"
    ]


def test_a_gateway_that_measures_only_production_has_no_other_value() -> None:
    """Kinds that are not measured are left out."""
    assert describe("enphase", power("1", production=-1), DELIVERED, NOON_S) == ["12:00:10  production 0.00 kW"]


def test_several_gateways_have_a_line_each() -> None:
    """Each line has the gateway's serial number."""
    newest = power("1", grid=100) | power("2", grid=-200)
    assert describe("enphase", newest, DELIVERED, NOON_S) == [
        "12:00:10  1  import 0.10 kW",
        "12:00:10  2  export 0.20 kW",
    ]


def test_a_stale_reading_is_marked() -> None:
    """A value that is no longer updated does not look current."""
    [line] = describe("enphase", power("1", grid=100), DELIVERED, NOON_S + 180)
    assert line.endswith("(no newer reading for 180 s)")


def test_without_recent_readings_a_line_reports_it() -> None:
    """An outage of a quarter of an hour is visible."""
    assert describe("enphase", {}, DELIVERED, NOON_S) == ["no reading in the last 15 minutes"]


def test_empty_slots_are_ignored() -> None:
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
def test_a_gateway_without_a_port_has_those_of_https_and_http(
    envoy_host: str, addresses: list[tuple[str, int]]
) -> None:
    """New firmware accepts HTTPS connections, old firmware HTTP."""
    assert gateway_addresses(envoy_host) == addresses
