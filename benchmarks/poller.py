"""What polling costs: ``python -m benchmarks.poller [gateways [seconds]]``.

First poller and pyenphase, the library behind Home Assistant, read the same simulated gateway, which runs as another
process: CPU time of reading everything and of the meters alone, requests per second, and the time from the gateway's
response to the broker's acknowledgement of its last reading. Then the service itself runs with one gateway and with
many, at the default intervals: its CPU time and memory.
"""

import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from benchmarks.sink import cpu_s, memory_mb
from services.poller.agenda import Agenda, Poll
from services.poller.endpoints import Endpoint
from services.poller.reader import GatewayReader
from services.poller.session import Session
from services.poller.settings import EnvoySettings, PollSettings
from services.poller.trust import TrustStore
from services.simulator.control_client import ControlClient
from shared.mqtt import Connection
from shared.settings import MqttSettings
from tests.programs import HOST, Program, free_port, listening, wait_until
from tests.tokens import unsigned_token

try:
    from pyenphase import Envoy as PyenphaseEnvoy
except ModuleNotFoundError:
    sys.exit("benchmarks.poller needs pyenphase; make test installs it")

WHOLE_READS, METER_READS = 200, 1000
POLLS_PER_WHOLE_READ = 6
"""At the default intervals."""
ONLY_METERS = Poll(meters=True, sweep=None)


def main() -> None:
    """Run the benchmark and print its figures."""
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 60  # noqa: PLR2004 - the second argument
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        state = Path(folder)
        mqtt_port = str(free_port())
        settings = {"MQTT_PORT": mqtt_port, "STATE_DIR": folder}
        running.enter_context(Program.python("deploy.local.broker", log=state / "broker.log", environment=settings))
        wait_until(lambda: listening(int(mqtt_port)), "the broker")
        url, token = start_simulator(running, state)
        print(f"{os.cpu_count()} cores; 12 inverters, two meters, one phase, firmware 8, TLS")
        compare(url, token, state)
        latency(url, token, state, MqttSettings(host=HOST, port=int(mqtt_port), client_id="benchmark"))
        run_service(1, seconds, settings, state)
        run_service(many, seconds, settings, state)


def start_simulator(running: ExitStack, state: Path) -> tuple[str, str]:
    """Start a simulated gateway as a program; return its address and a token."""
    options = ["--envoy-port", "0", "--enlighten-port", "0", "--control-port", "0", "--slow-answers-s", "0"]
    options += ["--state-dir", str(state / "simulator"), "--commissioned", time.strftime("%Y-%m-01")]
    roof = Program.python("services.simulator", *options, log=state / "simulator.log")
    running.enter_context(roof)
    wait_until(lambda: "control: " in roof.output, "the simulator")
    lines = dict(line.split(": ", 1) for line in roof.output.splitlines() if line.startswith(("envoy", "control")))
    return lines["envoy"], ControlClient(lines["control"]).token()


def reader_of(url: str, token: str, state: Path) -> tuple[Session, GatewayReader]:
    """Return an authenticated session with a gateway, and its reader."""
    session = Session(EnvoySettings(host=url, token=SecretStr(token)), TrustStore(state / "pins"))
    identity = session.find()
    session.authenticate()
    return session, GatewayReader(session.envoy, identity, Agenda(PollSettings(), time.time), session.clock)


def compare(url: str, token: str, state: Path) -> None:
    """Print what a read costs with poller and with pyenphase."""
    session, reader = reader_of(url, token, state)
    reader.read()
    before = session.envoy.stats.requests
    whole_s = measured("poller, everything", WHOLE_READS, reader.read)
    requests = (session.envoy.stats.requests - before) / WHOLE_READS
    meters_s = measured("poller, meters alone", METER_READS, lambda: reader.poll(ONLY_METERS))
    poll_s = meters_s + (whole_s - meters_s) / POLLS_PER_WHOLE_READ
    print(f"  {requests:.1f} requests for everything; meters: {1 / meters_s:,.0f} requests per second of CPU time")
    print(f"  with the meters every 10 s and everything each minute: {1e3 * poll_s:.2f} ms CPU per poll")
    asyncio.run(measure_pyenphase(url, token))


def measured(what: str, count: int, read: Callable[[], object]) -> float:
    """Print and return the CPU time of a read."""
    began, began_s = cpu_of_this(), time.monotonic()
    for _ in range(count):
        read()
    used_s = cpu_of_this() - began
    print(f"{what:<22} {1e3 * used_s / count:6.2f} ms CPU, {1e3 * (time.monotonic() - began_s) / count:6.2f} ms a read")
    return used_s / count


async def measure_pyenphase(url: str, token: str) -> None:
    """Print the same of pyenphase."""
    envoy = PyenphaseEnvoy(url.partition("://")[2])
    await envoy.setup()
    await envoy.authenticate(token=token)
    data = await envoy.update()
    requests = len(data.raw)
    began, began_s = cpu_of_this(), time.monotonic()
    for _ in range(WHOLE_READS):
        await envoy.update()
    used_s, took_s = cpu_of_this() - began, time.monotonic() - began_s
    print(
        f"{'pyenphase, everything':<22} {1e3 * used_s / WHOLE_READS:6.2f} ms CPU, "
        f"{1e3 * took_s / WHOLE_READS:6.2f} ms a read; {requests} requests"
    )
    await envoy.close()


def cpu_of_this() -> float:
    """Return the CPU seconds that this process has used."""
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def latency(url: str, token: str, state: Path, settings: MqttSettings) -> None:
    """Print the time from the gateway's response to the acknowledgement of the poll's last reading."""
    session, reader = reader_of(url, token, state)
    reader.read()
    responded_at = 0.0
    fetch = session.envoy.fetch

    def timed_fetch(endpoint: Endpoint[Any]) -> Any:  # noqa: ANN401 - as the original
        nonlocal responded_at
        response = fetch(endpoint)
        responded_at = time.monotonic()
        return response

    session.envoy.fetch = timed_fetch  # type: ignore[method-assign]  # the time of the response is what is measured
    times = []
    with Connection(settings, stop=threading.Event(), persistent_session=False) as connection:
        assert connection.wait_until_connected(10)
        for _ in range(METER_READS):
            # A reading of the same second would be a duplicate.
            reader.corrections.duplicates.newest.clear()
            readings = reader.poll(ONLY_METERS)
            published = [
                connection.publish(
                    connection.topics.reading(reader.site.identity.serial, reading.kind), reading.to_json(), retain=True
                )
                for reading in readings
            ]
            wait(published)
            times.append(1e3 * (time.monotonic() - responded_at))
    times.sort()
    print(
        f"from the response to the broker's acknowledgement of {len(readings)} readings: median "
        f"{statistics.median(times):.2f} ms, 99th percentile {times[int(len(times) * 0.99)]:.2f} ms"
    )


def run_service(count: int, seconds: int, settings: dict[str, str], state: Path) -> None:
    """Print what the service needs for some gateways at the default intervals."""
    with Program.python("benchmarks.many_gateways", str(count), log=state / f"gateways-{count}.log") as gateways:
        wait_until(lambda: "ready" in gateways.output, "the gateways", 60)
        urls = json.loads(gateways.output.partition("ready ")[2])
        envoys = json.dumps([{"host": url, "token": unsigned_token(serial)} for serial, url in urls.items()])
        poller = Program.python(
            "services.poller",
            log=state / f"poller-{count}.log",
            environment=settings | {"ENVOYS": envoys, "STATE_DIR": str(state / f"state-{count}")},
        )
        with poller:
            wait_until(lambda: poller.output.count("firmware") >= count, "all gateways are found", 60)
            time.sleep(15)  # the first poll fetches everything
            began, began_s = cpu_s(poller), time.monotonic()
            time.sleep(seconds)
            share = (cpu_s(poller) - began) / (time.monotonic() - began_s)
            threads = len(list(Path(f"/proc/{poller.process.pid}/task").iterdir()))
            memory = memory_mb(poller)
            print(
                f"service with {count} gateways, every 10 s: {100 * share:.1f} % of a core, {memory:.1f} MB at most, "
                f"{threads} threads"
            )
        if "Traceback" in poller.output or "cannot be read" in poller.output:
            print(poller.output[-2000:])


if __name__ == "__main__":
    main()
