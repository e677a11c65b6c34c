"""What is kept of a response that is not quite what it should be."""

import pytest

from services.poller import models
from services.poller.errors import BadResponse


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", '"12"', "true", "null", "1e300", "[1]", "{}"])
def test_a_field_that_is_no_number_is_dropped_and_an_entry_without_its_number_skipped(number: str) -> None:
    """Without a power a meter's entry is skipped; without another field it is kept."""
    entry = '{{"eid": {eid}, "timestamp": 2, "activePower": {power}, "voltage": {voltage}}}'
    body = f"[{entry.format(eid=1, power=number, voltage=240)}, {entry.format(eid=2, power=5, voltage=number)}]"

    readings, dropped = models.parse_json(models.METER_READINGS, body.encode())

    assert [(reading.eid, reading.activePower, reading.voltage) for reading in readings] == [(2, 5.0, None)]
    assert len(dropped) == (1 if number == "null" else 2)


@pytest.mark.parametrize("count", ["0", "null", "4", '"2"', "true"])
def test_a_meter_without_a_valid_phase_count_has_one_phase(count: str) -> None:
    """Its total is right however many phases it has."""
    body = f'[{{"eid": 1, "state": "enabled", "measurementType": "production", "phaseCount": {count}}}]'

    (details,), _ = models.parse_json(models.METER_DETAILS, body.encode())

    assert details.phaseCount == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": "404"}', b"[1", b"[" * 100_000])
def test_a_response_of_another_shape_is_bad(body: bytes) -> None:
    """A page with status 200, JSON that is cut short, nesting without end."""
    with pytest.raises(BadResponse):
        models.parse_json(models.METER_DETAILS, body)


def test_a_list_that_is_too_long_is_bad() -> None:
    """It would fill the memory, or Graphite."""
    entry = '{"serialNumber": "1", "lastReportDate": 1, "lastReportWatts": 1}'
    body = f"[{', '.join([entry] * (models.MAX_ENTRIES + 1))}]"

    with pytest.raises(BadResponse, match="at most 2000"):
        models.parse_json(models.INVERTER_REPORTS, body.encode())


@pytest.mark.parametrize(
    ("count", "limit", "devices", "expected"),
    [(1, 50, 1, True), (50, 50, 49, False), (0, 50, 0, False)],
)
def test_a_list_of_devices_is_whole_below_its_limit(
    count: int,
    limit: int,
    devices: int,
    expected: bool,  # noqa: FBT001 - a table
) -> None:
    """Every active inverter must be there, with its channel."""
    channel = '{"watts": {"now": 1}, "lastReading": {"endDate": 1}}'
    device = f'{{"devName": "pcu", "sn": "1", "active": true, "channels": [{channel}]}}'
    body = ", ".join([f'"{number}": {device}' for number in range(devices)])

    response, _ = models.parse_json(
        models.DEVICE_DATA,
        f'{{"deviceCount": {count}, "deviceDataLimit": {limit}{", " if body else ""}{body}}}'.encode(),
    )

    assert response.lists_all_inverters is expected
