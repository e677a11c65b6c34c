import pickle
import struct

import pytest

from services.carbon_sink.carbon import POINTS_A_FRAME, frames
from services.carbon_sink.points import Point, is_carbon_path, points_of
from shared.readings import Meter, MeterPhase, Metrics, Production
from shared.topics import ReadingTopic, Topics

SERIAL = "122012345678"


def test_each_number_of_a_reading_is_a_point_and_its_words_are_none() -> None:
    """The source of a production is no value; its power and energy are."""
    reading = Production(timestamp=5, power_w=1.5, energy_lifetime_wh=2, source="meter")
    topic = ReadingTopic(SERIAL, reading.kind)

    assert points_of(topic, reading, "enphase", {}) == [
        Point(f"enphase.{SERIAL}.production.power_w", 1.5, 5),
        Point(f"enphase.{SERIAL}.production.energy_lifetime_wh", 2, 5),
    ]


def test_a_late_reading_has_the_same_path() -> None:
    """readings/ and history/ end in the same series."""
    reading = MeterPhase(type="net-consumption", phase=3, timestamp=5, voltage_v=230.5)

    topics = Topics("enphase")

    in_time, late = (
        points_of(topics.parse_reading(topic), reading, "a.b", {})
        for topic in (topics.reading(SERIAL, reading.kind), topics.history(SERIAL, reading.kind))
    )

    assert in_time == late == [Point(f"a.b.{SERIAL}.meter.net-consumption.phase.3.voltage_v", 230.5, 5)]


def test_an_alias_is_one_more_path() -> None:
    """A dashboard that exists keeps its name, beside the regular one."""
    reading = Production(timestamp=5, power_w=1.5, source="meter")
    aliases = {"production.power_w": "stats.gauges.solar.production"}

    points = points_of(ReadingTopic(SERIAL, "production"), reading, "enphase", aliases)

    assert [point.path for point in points] == [
        f"enphase.{SERIAL}.production.power_w",
        "stats.gauges.solar.production",
    ]


def test_a_services_metrics_stand_below_services() -> None:
    """What the sink counts of itself is drawn beside the readings."""
    metrics = Metrics.model_validate({"timestamp": 5, "readings_delivered": 7.0})

    assert points_of(ReadingTopic("services/carbon-sink", "metrics"), metrics, "enphase", {}) == [
        Point("enphase.services.carbon-sink.metrics.readings_delivered", 7.0, 5)
    ]


def test_what_carbon_would_store_under_another_name_becomes_an_underscore() -> None:
    """A dot would be a folder, a brace a pattern."""
    topic = ReadingTopic("12.34", "meter/{a}")

    (point,) = points_of(topic, Meter(type="x", timestamp=5, voltage_v=1), "enphase", {})

    assert point.path == "enphase.12_34.meter._a_.voltage_v"


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a b", "a/b", "a;tag=1", "{a}", "ä"])
def test_a_path_that_carbon_would_store_elsewhere_is_none(path: str) -> None:
    """Only letters, digits, underscore and dash name a level."""
    assert not is_carbon_path(path)


def test_frames_hold_all_points_in_order_five_hundred_each() -> None:
    """Each frame is a length and a pickled list of (path, (time, value)), well under Carbon's limit of 1 MiB."""
    path = f"enphase.{SERIAL}.meter.production.phase.1"
    points = [Point(f"{path}.p{number}", number / 3, number) for number in range(1201)]

    received = []
    for frame in frames(points):
        (length,) = struct.unpack("!I", frame[:4])
        assert length == len(frame) - 4 < 2**20
        batch = pickle.loads(frame[4:])
        assert len(batch) <= POINTS_A_FRAME
        received += batch

    assert received == [(path, (timestamp, value)) for path, value, timestamp in points]
