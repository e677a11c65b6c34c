import re
import time

import pytest

from tests.docker.stack import MINUTE_S, RUNNING, Stack
from tests.programs import wait_until

SLOT_S = 10
MAX_POLL_S = 1.0
KILLED = ("mosquitto", "graphite", "token_broker", "carbon_sink", "poller")
GRID = "enphase.122098765432.grid.power_w"

killed_at: dict[str, float] = {}
"""When each container was killed, epoch seconds."""


def slot(timestamp: int) -> int:
    """Return the time of a reading's slot in the finest archive."""
    return timestamp // SLOT_S * SLOT_S


def test_readings_are_rendered_within_a_minute_of_up(stack: Stack) -> None:
    """Graphite renders what the simulated gateway has served, with its value, at its time."""
    drawn = wait_until(lambda: stack.drawn(GRID), "a first reading in Graphite", MINUTE_S)

    served = {slot(timestamp): power_w for timestamp, (_at, power_w) in stack.served().items()}
    at, power_w = max(drawn.items())
    assert served[at] == power_w


@pytest.mark.parametrize("service", KILLED)
def test_a_crashed_container_is_restarted_and_readings_continue(stack: Stack, service: str) -> None:
    """It becomes healthy again, and Graphite renders a reading of a later time."""
    started_at = stack.container(service)["State"]["StartedAt"]
    killed_at[service] = time.time()
    stack.kill(service)
    wait_until(lambda: stack.container(service)["State"]["StartedAt"] != started_at, f"{service} is restarted")
    wait_until(lambda: stack.healthy(service), f"{service} is healthy")
    now = time.time()

    wait_until(lambda: max(stack.drawn(GRID), default=0) > now, f"readings after {service} was killed", 90)


def test_no_reading_is_lost_by_the_crashes(stack: Stack) -> None:
    """Graphite renders each served reading at its time with its value, except for the poll that was killed."""
    assert set(killed_at) == set(KILLED), "the tests before this one kill each container"
    poller_killed_at = killed_at["poller"]
    served = stack.served()
    expected = {
        slot(timestamp): power_w
        for timestamp, (at, power_w) in served.items()
        if not 0 <= poller_killed_at - at < MAX_POLL_S
    }
    assert len(expected) > len(KILLED)

    wait_until(lambda: expected.items() <= stack.drawn(GRID).items(), f"all {len(expected)} readings are rendered")


def test_a_database_that_mosquitto_cannot_load_is_quarantined(stack: Stack) -> None:
    """The broker starts without it, and readings continue."""
    stack.compose("stop", "mosquitto")
    truncate = "cd /mosquitto/data && head -c 200 mosquitto.db > half && mv half mosquitto.db"
    stack.compose("run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", "mosquitto", "-c", truncate)
    stack.compose("start", "mosquitto")
    wait_until(lambda: stack.healthy("mosquitto"), "mosquitto is healthy")
    now = time.time()

    assert re.search(r"mosquitto\.db\.\d+\.corrupt", stack.inside("mosquitto", "ls", "/mosquitto/data"))
    wait_until(lambda: max(stack.drawn(GRID), default=0) > now, "a later reading", 90)


def test_an_incomplete_whisper_file_is_quarantined(stack: Stack) -> None:
    """After the next start, the metric of a file without a header is stored again."""
    file = f"/opt/graphite/storage/whisper/{GRID.replace('.', '/')}.wsp"
    stack.inside("graphite", "sh", "-c", f": > {file}")
    stack.kill("graphite")
    now = time.time()

    wait_until(lambda: stack.healthy("graphite"), "graphite is healthy")
    wait_until(lambda: max(stack.drawn(GRID), default=0) > now, "the metric is stored again", 90)
    assert stack.inside("graphite", "ls", f"{file}.corrupt").strip() == f"{file}.corrupt"


@pytest.mark.parametrize("service", RUNNING)
def test_a_container_stays_below_its_memory_limit(stack: Stack, service: str) -> None:
    """It uses less than 80 % of what would kill it."""
    assert stack.memory_percent(service) < 80


def test_node_red_subscribes_to_the_readings(stack: Stack) -> None:
    """The example flow is connected to the broker with the viewer's account."""
    wait_until(lambda: "Connected to broker" in stack.compose("logs", "node_red"), "Node-RED is connected")
