import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.payload import InvalidPayload
from shared.readings import (
    READINGS,
    Grid,
    Inverter,
    Meter,
    MeterPhase,
    Metrics,
    Production,
    Reading,
    reading_from_json,
)

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def values(reading_class: type[Reading]) -> st.SearchStrategy[Reading]:
    """Return a strategy for all readings of a class."""
    fields: dict[str, st.SearchStrategy[object]] = {}
    for name, field in reading_class.model_fields.items():
        match name:
            case "timestamp":
                fields[name] = st.integers(0, 2**32 - 1)
            case "serial" | "type":
                fields[name] = NAMES
            case "phase":
                fields[name] = st.integers(1, 3)
            case "duration_s":
                fields[name] = st.integers(1, 10_000)
            case "source":
                fields[name] = st.sampled_from(["local"] if "duration_s" in reading_class.model_fields else ["meter"])
            case "charge_percent":
                fields[name] = st.none() | st.floats(0, 100)
            case _:
                fields[name] = NUMBERS if field.is_required() else st.none() | NUMBERS
    return st.fixed_dictionaries(fields).map(reading_class.model_validate)


@given(st.one_of([values(reading_class) for reading_class in READINGS]))
def test_a_reading_sent_and_received_is_the_same(reading: Reading) -> None:
    """Encoding and decoding change nothing, to the last bit of a number."""
    assert reading_from_json(reading.kind, reading.to_json()) == reading


@given(st.dictionaries(NAMES.filter(lambda name: name not in {"timestamp", "model_config"}), NUMBERS, max_size=5))
def test_metrics_under_any_name_sent_and_received_are_the_same(counts: dict[str, float]) -> None:
    """A service's counters keep their names and values."""
    metrics = Metrics.model_validate({"timestamp": 1} | counts)

    assert reading_from_json("metrics", metrics.to_json()).numbers() == counts


def test_a_value_that_is_not_measured_is_left_out_of_the_payload() -> None:
    """A gateway without a counter publishes no key for it."""
    reading = Production(timestamp=5, power_w=1.5, source="gateway")

    assert json.loads(reading.to_json()) == {"timestamp": 5, "power_w": 1.5, "source": "gateway"}


def test_what_is_part_of_the_topic_is_left_out_of_the_payload() -> None:
    """A phase's payload has neither its meter's type nor its number, which are in the kind."""
    reading = MeterPhase(type="net-consumption", phase=2, timestamp=5, active_power_w=-1.0)

    assert reading.kind == "meter/net-consumption/phase/2"
    assert json.loads(reading.to_json()) == {"timestamp": 5, "active_power_w": -1.0}


def test_numbers_are_the_fields_that_a_time_series_can_store() -> None:
    """The source of a production is not a number, and its timestamp is not a value."""
    assert Production(timestamp=5, power_w=1.5, source="meter").numbers() == {"power_w": 1.5}


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("grid", b'{"timestamp": 1, "power_w": NaN, "import_power_w": 0, "export_power_w": 0}'),
        ("grid", b'{"timestamp": 1, "power_w": 1e999, "import_power_w": 0, "export_power_w": 0}'),
        ("inverter/1", b'{"timestamp": 1, "power_w": -Infinity}'),
        ("inverter/1", b'{"timestamp": 1, "power_w": "12"}'),
        ("inverter/1", b'{"timestamp": 1, "power_w": true}'),
        ("inverter/1", b'{"timestamp": 1, "power_w": 1' + b"0" * 400 + b"}"),
        ("inverter/1", b'{"timestamp": 1769000000000, "power_w": 1}'),
        ("inverter/1", b'{"timestamp": 1.5, "power_w": 1}'),
        ("inverter/1", b'{"timestamp": 1}'),
        ("inverter/a b", b'{"timestamp": 1, "power_w": 1}'),
        ("meter/production/phase/4", b'{"timestamp": 1}'),
        ("production", b'{"timestamp": 1, "source": "guess"}'),
        ("production", b"<html>"),
        ("production", b"[1]"),
        ("production", b"\xff\xfe"),
        ("production", b"[" * 100_000),
        ("battery", b'{"timestamp": 1, "charge_percent": 101}'),
        ("metrics", b'{"timestamp": 1, "a b": 1}'),
        ("metrics", b'{"timestamp": 1, "name": "x"}'),
        ("weather", b'{"timestamp": 1}'),
    ],
)
def test_a_payload_that_is_not_a_reading_is_rejected(kind: str, payload: bytes) -> None:
    """Every payload is a reading or an InvalidPayload."""
    with pytest.raises(InvalidPayload):
        reading_from_json(kind, payload)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_have_is_rejected(number: float) -> None:
    """NaN and Infinity are rejected in the publisher too."""
    with pytest.raises(ValueError, match="finite"):
        Grid(timestamp=1, power_w=number, import_power_w=0, export_power_w=0)


def test_a_reading_cannot_be_changed() -> None:
    """It is what was measured."""
    reading = Inverter(serial="1", timestamp=1, power_w=2)

    with pytest.raises(ValueError, match="frozen"):
        reading.power_w = 3  # type: ignore[misc]


def test_an_unknown_key_is_ignored() -> None:
    """A newer publisher may have more fields."""
    assert reading_from_json("meter/evse", b'{"timestamp": 1, "colour": "red"}') == Meter(type="evse", timestamp=1)


def test_an_error_does_not_quote_the_payload() -> None:
    """It may contain anything."""
    with pytest.raises(InvalidPayload) as rejected:
        reading_from_json("inverter/1", b'{"timestamp": 1, "power_w": "sesame"}')

    assert "sesame" not in str(rejected.value)
