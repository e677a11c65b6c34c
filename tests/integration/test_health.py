"""What ``--health`` reports of running services."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.simulator.simulator import Simulator
from shared.health import Health
from tests.conftest import Server
from tests.faults.pipeline import fill, small_disk
from tests.programs import HOST, ROOT, Program, clean_environment, wait_until


def health_of(service: str, state: Path) -> tuple[int, str]:
    """Return the exit code and the output of ``--health``."""
    ended = subprocess.run(
        [sys.executable, "-m", f"services.{service}", "--health"],
        env=clean_environment() | {"STATE_DIR": str(state)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return ended.returncode, ended.stdout


@pytest.mark.parametrize("service", ["token_broker", "poller", "carbon_sink"])
def test_a_service_that_does_not_run_is_not_healthy(service: str, tmp_path: Path) -> None:
    """There is no heartbeat, and the message gives the next step."""
    code, output = health_of(service, tmp_path)

    assert code == 1
    assert "start the service" in output


def test_a_sink_is_healthy_while_carbon_and_broker_are_up(
    broker: Server, carbon: Server, sink: Program, tmp_path: Path
) -> None:
    """Each loss is reported, and each recovery."""
    wait_until(lambda: health_of("carbon_sink", tmp_path)[0] == 0, "healthy")
    broker.kill()
    wait_until(
        lambda: "not connected to the MQTT broker" in health_of("carbon_sink", tmp_path)[1], "the loss is reported"
    )
    broker.start()
    wait_until(lambda: health_of("carbon_sink", tmp_path)[0] == 0, "healthy again")


def test_a_service_that_hangs_is_not_healthy(sink: Program, tmp_path: Path) -> None:
    """Its last heartbeat had no fault but is stale."""
    wait_until(lambda: health_of("carbon_sink", tmp_path)[0] == 0, "healthy")
    sink.stop()
    long_ago = time.time() - 600
    os.utime(tmp_path / "carbon_sink" / "health", (long_ago, long_ago))

    code, output = health_of("carbon_sink", tmp_path)

    assert code == 1
    assert "no heartbeat for" in output


def test_a_poller_is_healthy_while_gateway_and_broker_are_up(broker: Server, roof: Simulator, tmp_path: Path) -> None:
    """A gateway that is gone is reported with its serial number."""
    environment = {
        "MQTT_PORT": str(broker.port),
        "MQTT_HOST": HOST,
        "ENVOY_HOST": roof.envoy_url,
        "ENVOY_TOKEN": roof.token(),
        "STATE_DIR": str(tmp_path),
        "POLL_INTERVAL_S": "1",
    }
    with Program.python("services.poller", log=tmp_path / "poller.log", environment=environment):
        wait_until(lambda: health_of("poller", tmp_path)[0] == 0, "healthy")
        roof.stop()
        wait_until(lambda: roof.serial in health_of("poller", tmp_path)[1], "the loss is reported")


@pytest.mark.root
def test_a_service_on_a_full_disk_continues_and_is_not_healthy(tmp_path: Path) -> None:
    """A heartbeat that cannot be written ends nothing."""
    with small_disk(tmp_path / "poller", 100) as filler:
        health = Health(tmp_path / "poller" / "health")
        fill(filler)
        health.report("not connected to the MQTT broker")

        code, output = health_of("poller", tmp_path)
        assert code == 1
        assert "start the service" in output

        filler.unlink()
        health.report("no gateway responds")
        assert health_of("poller", tmp_path)[1].endswith("no gateway responds\n")
