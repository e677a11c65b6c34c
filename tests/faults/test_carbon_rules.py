"""Rows C4, C8 and S4 of the fault matrix: what Carbon must be told, and a Carbon that is slow."""

from configparser import ConfigParser
from pathlib import Path

from deploy.local.carbon import carbon_configuration
from shared.mqtt import Connection
from tests.conftest import Server
from tests.faults.house import memory_mb
from tests.faults.proxy import Proxy
from tests.faults.test_carbon import Roof
from tests.programs import HOST, Program, wait_until

MANY = 1800


def test_c4_c8_carbon_has_no_limit_at_which_it_drops_points_unsaid(tmp_path: Path) -> None:
    """A full cache and too many new series are told to nobody who sends: neither limit may be reached."""
    rules = ConfigParser()
    rules.optionxform = str  # type: ignore[assignment,method-assign]
    rules.read_string(carbon_configuration(2004, tmp_path))

    assert rules["cache"]["MAX_CACHE_SIZE"] == "inf"
    assert rules["cache"]["MAX_CREATES_PER_MINUTE"] == "inf"
    assert rules["cache"].getboolean("USE_FLOW_CONTROL")


def test_s4_a_slow_carbon_fills_the_broker_and_not_the_sink(
    broker: Server, carbon: Server, tmp_path: Path, publisher: Connection, sink: Program
) -> None:
    """What Carbon does not take yet waits at the broker; all of it is stored in the end."""
    sink.stop()
    with Proxy(carbon.port) as proxy:
        environment = {"MQTT_PORT": str(broker.port), "CARBON_HOST": f"{HOST}:{proxy.port}", "STATE_DIR": str(tmp_path)}
        with Program.python("services.carbon_sink", log=tmp_path / "slow.log", environment=environment) as slow:
            wait_until(lambda: "connected to the broker" in slow.output, "the sink is connected")
            roof = Roof(publisher, tmp_path)
            proxy.slow_to(2000)
            roof.publish(MANY)
            assert memory_mb(slow) < 100
            proxy.behave()

            roof.all_is_stored()
            assert memory_mb(slow) < 100
