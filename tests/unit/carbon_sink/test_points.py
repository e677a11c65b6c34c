import pickle
import struct
from contextlib import nullcontext

import pytest

from services.carbon_sink.carbon import MAX_POINTS_PER_FRAME, frames
from services.carbon_sink.points import Point, TimestampOutOfRange, check_timestamp, is_carbon_path, points_of
from shared.readings import Meter, MeterPhase, Metrics, Production
from shared.topics import ReadingTopic, Topics

SERIAL = "122012345678"


def test_each_number_of_a_reading_is_a_point_and_a_text_is_not() -> None:
    """A production has points for its power and its energy, not for its source."""
    reading = Production(timestamp=5, power_w=1.5, energy_lifetime_wh=2, source="meter")
    topic = ReadingTopic(SERIAL, reading.kind)

    assert points_of(topic, reading, "enphase", {}) == [
        Point(f"enphase.{SERIAL}.production.power_w", 1.5, 5),
        Point(f"enphase.{SERIAL}.production.energy_lifetime_wh", 2, 5),
    ]


def test_a_late_reading_has_the_same_path() -> None:
    """Readings on readings/ and history/ are stored in the same series."""
    reading = MeterPhase(type="net-consumption", phase=3, timestamp=5, voltage_v=230.5)

    topics = Topics("enphase")
    in_time, late = (
        points_of(topics.parse_reading(topic), reading, "a.b", {})
        for topic in (topics.reading(SERIAL, reading.kind), topics.history(SERIAL, reading.kind))
    )

    assert in_time == late == [Point(f"a.b.{SERIAL}.meter.net-consumption.phase.3.voltage_v", 230.5, 5)]


def test_an_alias_is_an_additional_path() -> None:
    """An existing dashboard keeps its path, and the regular one exists too."""
    reading = Production(timestamp=5, power_w=1.5, source="meter")
    aliases = {"production.power_w": "stats.gauges.solar.production"}

    points = points_of(ReadingTopic(SERIAL, "production"), reading, "enphase", aliases)

    assert [point.path for point in points] == [
        f"enphase.{SERIAL}.production.power_w",
        "stats.gauges.solar.production",
    ]


def test_metrics_of_a_service_have_a_path_below_services() -> None:
    """The sink stores its own counters as it stores readings."""
    metrics = Metrics.model_validate({"timestamp": 5, "readings_delivered": 7.0})

    assert points_of(ReadingTopic("services/carbon-sink", "metrics"), metrics, "enphase", {}) == [
        Point("enphase.services.carbon-sink.metrics.readings_delivered", 7.0, 5)
    ]


def test_a_character_that_carbon_would_change_becomes_an_underscore() -> None:
    """A dot would separate folders, and a brace is a pattern."""
    topic = ReadingTopic("12.34", "meter/{a}")

    (point,) = points_of(topic, Meter(type="x", timestamp=5, voltage_v=1), "enphase", {})

    assert point.path == "enphase.12_34.meter._a_.voltage_v"


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a b", "a/b", "a;tag=1", "{a}", "ä"])
def test_a_path_that_carbon_would_change_is_rejected(path: str) -> None:
    """The parts of a path consist of letters, digits, underscores and dashes."""
    assert not is_carbon_path(path)


def test_frames_contain_all_points_in_order_up_to_their_maximum() -> None:
    """Each frame is a length and a pickled list of (path, (time, value)), well below Carbon's limit of 1 MiB."""
    path = f"enphase.{SERIAL}.meter.production.phase.1"
    points = [Point(f"{path}.p{number}", number / 3, number) for number in range(1201)]

    received = []
    for frame in frames(points):
        (length,) = struct.unpack("!I", frame[:4])
        assert length == len(frame) - 4 < 2**20
        batch = pickle.loads(frame[4:])
        assert len(batch) <= MAX_POINTS_PER_FRAME
        received += batch

    assert received == [(path, (timestamp, value)) for path, value, timestamp in points]


@pytest.mark.parametrize(("age_s", "storable"), [(0, True), (-60, True), (-61, False), (3653 * 86_400, True)])
def test_a_timestamp_may_be_a_minute_ahead_and_ten_years_old(age_s: int, *, storable: bool) -> None:
    """Whisper would write any other over a point in one of its slots, or drop it."""
    now = 1_800_000_000

    with nullcontext() if storable else pytest.raises(TimestampOutOfRange):
        check_timestamp(now - age_s, now)
    with pytest.raises(TimestampOutOfRange):
        check_timestamp(now - 3653 * 86_400 - 1, now)
