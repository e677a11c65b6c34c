import pytest

from shared.topics import ReadingTopic, Topics, UnknownTopic

TOPICS = Topics("home/enphase")


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        (TOPICS.reading("122012345678", "production"), ReadingTopic("122012345678", "production")),
        (TOPICS.history("122012345678", "inverter/9"), ReadingTopic("122012345678", "inverter/9")),
        (TOPICS.metrics("carbon-sink"), ReadingTopic("services/carbon-sink", "metrics")),
    ],
)
def test_a_reading_topic_is_parsed_into_what_it_was_built_from(topic: str, expected: ReadingTopic) -> None:
    """Parsing is the inverse of building."""
    assert TOPICS.parse_reading(topic) == expected


@pytest.mark.parametrize(
    "topic",
    [
        "other/122012345678/readings/production",
        "home/enphase",
        "home/enphase/122012345678/info",
        "home/enphase/122012345678/readings/",
        "home/enphase/122012345678/readings/a//b",
        "home/enphase/122012345678/readings/../../etc",
        "home/enphase/12 34/readings/production",
        "home/enphase/services/carbon-sink/status",
        "home/enphase/services/a b/metrics",
    ],
)
def test_a_topic_that_is_not_a_readings_is_rejected(topic: str) -> None:
    """Nothing outside the contract is guessed."""
    with pytest.raises(UnknownTopic):
        TOPICS.parse_reading(topic)


def test_a_token_request_names_its_gateway() -> None:
    """The serial is read from the topic."""
    assert TOPICS.parse_token_request(TOPICS.token_request("122012345678")) == "122012345678"
