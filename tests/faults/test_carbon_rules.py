"""Limits of Carbon: its configuration, a slow Carbon, and a full disk."""

import threading
import time
from configparser import ConfigParser
from pathlib import Path

import pytest

from deploy.local.carbon import carbon_configuration
from shared.mqtt import Connection
from shared.readings import Production
from shared.settings import MqttSettings
from tests.conftest import Server
from tests.faults.pipeline import Pipeline, fill, memory_mb, running_pipeline, small_disk
from tests.faults.proxy import Proxy
from tests.faults.test_carbon import Feed
from tests.programs import HOST, Program, wait_until

MANY = 1800


def test_carbon_is_configured_without_limits_at_which_it_silently_drops_points(tmp_path: Path) -> None:
    """It reports neither a full cache nor too many new series to the sender."""
    rules = ConfigParser()
    rules.optionxform = str  # type: ignore[assignment,method-assign]
    rules.read_string(carbon_configuration(2004, tmp_path))

    assert rules["cache"]["MAX_CACHE_SIZE"] == "inf"
    assert rules["cache"]["MAX_CREATES_PER_MINUTE"] == "inf"
    assert rules["cache"].getboolean("USE_FLOW_CONTROL")


def test_a_slow_carbon_does_not_fill_the_memory_of_the_sink(
    broker: Server, carbon: Server, tmp_path: Path, publisher: Connection, sink: Program
) -> None:
    """What Carbon does not read yet waits at the broker, and all of it is stored in the end."""
    sink.stop()
    with Proxy(carbon.port) as proxy:
        environment = {"MQTT_PORT": str(broker.port), "CARBON_HOST": f"{HOST}:{proxy.port}", "STATE_DIR": str(tmp_path)}
        with Program.python("services.carbon_sink", log=tmp_path / "slow.log", environment=environment) as slow:
            wait_until(lambda: "connected to the broker" in slow.output, "the sink is connected")
            feed = Feed(publisher, tmp_path)
            proxy.limit_rate(2000)
            feed.publish(MANY)
            assert memory_mb(slow) < 100
            proxy.end_faults()

            feed.assert_everything_is_stored()
            assert memory_mb(slow) < 100


@pytest.mark.root
def test_a_full_disk_of_carbon_loses_no_point_of_an_existing_series(tmp_path: Path) -> None:
    """Its file has its full size from the start; a new series is created once there is free space again."""
    (tmp_path / "graphite").mkdir()
    with small_disk(tmp_path / "graphite", 6000) as filler, running_pipeline(tmp_path) as pipeline:
        fill(filler)
        pipeline.wait_for_polls(5)
        newcomer = tmp_path / "graphite/whisper/enphase/newcomer/production/power_w.wsp"
        publish(pipeline, power_w=1.0)
        pipeline.wait_for_polls(5)
        assert not newcomer.exists() or newcomer.stat().st_size == 0
        filler.unlink()

        pipeline.assert_everything_arrives()

        def created() -> bool:
            publish(pipeline, power_w=2.0)
            return newcomer.exists() and newcomer.stat().st_size > 0

        wait_until(created, "the new series is created")


def publish(pipeline: Pipeline, power_w: float) -> None:
    """Publish a reading of a new gateway."""
    reading = Production(timestamp=int(time.time()), power_w=power_w, source="meter")
    settings = MqttSettings(host=HOST, port=pipeline.broker.port)
    with Connection(settings, stop=threading.Event(), persistent_session=False) as connection:
        connection.publish(connection.topics.history("newcomer", reading.kind), reading.to_json()).result(30)
