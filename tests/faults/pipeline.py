"""A whole pipeline for the fault tests: gateway, poller, broker, sink and Carbon, each a process that a fault can hit.

Each test ends with the same checks: *completeness* (each reading that the gateway served is in Whisper at its time with
its value), *integrity* (nothing is there that was not served), and *liveness* (a fresh reading arrives). While a fault
lasts, the services' health must report it.
"""

import itertools
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import whisper

from deploy.local.broker import find_mosquitto, mosquitto_configuration
from services.simulator.simulator import Simulator
from shared.health import check_health
from tests.conftest import Server
from tests.faults.proxy import Proxy
from tests.needs import find_program
from tests.programs import HOST, Program, free_port, simulator, wait_until

DAY_S = 86_400
MAX_POLL_S = 1.0
ARRIVAL_DEADLINE_S = 180.0
"""Within this everything arrives once no fault is left."""


class Pipeline:
    """Everything from the gateway to the disk, and the check of what arrives."""

    def __init__(
        self,
        state: Path,
        gateway: Simulator,
        running: ExitStack,
        *,
        broker_rules: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a pipeline; nothing runs yet.

        Args:
            state: the folder for all state and logs.
            gateway: the simulated gateway, running.
            running: ends what is started.
            broker_rules: lines of mosquitto.conf that replace those of the same name.
            settings: of both services, in place of the usual ones.
        """
        self.state = state
        self.gateway = gateway
        self.poller_ended_at: list[float] = []
        """When the poller was killed or stopped, epoch seconds."""
        self._running = running
        self._settings = dict(settings or {})
        if broker_rules:
            self.broker = mosquitto(state, broker_rules)
        else:
            self.broker = self._server("deploy.local.broker", "MQTT_PORT")
        self.proxy = running.enter_context(Proxy(self.broker.port))
        """Between the services and the broker."""
        self.carbon = self._server("deploy.local.carbon", "CARBON_PORT")
        self._store_every_second()
        self.sink = self._service("services.carbon_sink", {"CARBON_SETTLE_S": "3"})
        self.poller = self._service(
            "services.poller",
            {
                "ENVOY_HOST": gateway.envoy_url,
                "ENVOY_TOKEN": gateway.token(),
                "POLL_INTERVAL_S": "1",
                "JOURNAL_RESEND_AFTER_S": "8",
            },
        )

    @property
    def path(self) -> str:
        """The series that is checked."""
        return f"enphase.{self.gateway.serial}.grid.power_w"

    def start(self) -> None:
        """Start everything, the sink before the poller: a broker queues nothing for a client that it has never seen."""
        self.run(self.broker, self.carbon, self.sink)
        wait_until(lambda: "connected to the broker" in self.sink.output, "the sink is connected")
        self.run(self.poller)
        wait_until(self.stored, f"a first reading; {self.poller.output}")

    def run(self, *programs: Program) -> None:
        """Start programs one after the other; they end with the pipeline."""
        for program in programs:
            self._running.enter_context(program)

    def served(self, since: float = 0.0, until: float = float("inf")) -> dict[int, float]:
        """Return the grid's readings that the gateway served in a span of our time, by their own time.

        The poller has taken exactly these while its connection to the gateway is good.
        """
        return {timestamp: power_w for at, timestamp, power_w in self._responses() if since <= at <= until}

    def taken(self) -> dict[int, float]:
        """Return what was served, without the polls that were in progress when the poller was ended."""
        ended_at = self.poller_ended_at
        return {
            timestamp: power_w
            for at, timestamp, power_w in self._responses()
            if not any(0 <= end - at < MAX_POLL_S for end in ended_at)
        }

    def _responses(self) -> Iterator[tuple[float, int, float]]:
        for response in self.gateway.request_log.served(server="envoy", path="/ivp/meters/readings"):
            if response["status"] == 200:
                _production, net = json.loads(str(response["body"]))[:2]
                yield float(str(response["at"])), net["timestamp"], net["activePower"]

    def resent(self) -> float:
        """Return how many readings the poller has published again, by its stored metrics."""
        counts = [*self._values(self._metric_file("readings_resent", "poller")).values(), 0.0]
        # A new process counts from zero.
        return sum(count for count, following in itertools.pairwise(counts) if following < count)

    def stored(self) -> dict[int, float]:
        """Return what is in the Whisper file."""
        return self._values(self._file)

    def wait_for_polls(self, count: int) -> None:
        """Wait until the gateway has served so many more readings."""
        target = len(self.served()) + count
        what = f"{count} polls; {self.poller.output[-2000:]}"
        wait_until(lambda: len(self.served()) >= target, what, 30 + 2 * count)

    def assert_everything_arrives(self, *, lost_polls: int = 0, rejected: frozenset[int] = frozenset()) -> None:
        """Fail unless all that was served so far is stored in time, and nothing else is.

        Args:
            lost_polls: how many readings may be missing because their poll was in progress when the poller was ended.
            rejected: times of readings that the poller must not publish.
        """
        self.wait_for_polls(2)
        served = self.served()
        last = max(served)

        def missing() -> set[int]:
            return {at for at in served if at <= last} - self.stored().keys() - rejected

        with suppress(AssertionError):
            wait_until(lambda: len(missing()) <= lost_polls, "all readings", ARRIVAL_DEADLINE_S)
        late = [response for response in self._responses() if response[1] in missing()]
        assert len(missing()) <= lost_polls, (
            f"of {len(served)} readings missing: {late} (served at, time, W); {self.poller.output}"
        )
        everything = self.served()
        wrong = {at: value for at, value in self.stored().items() if everything.get(at) != value}
        assert wrong == {}

    def health_problem(self, service: str) -> str:
        """Return the problem that a service's health reports, nothing if it is healthy."""
        result = check_health(self.state / service / "health", time.time())
        return "" if result.ok else result.text

    def metric(self, name: str, service: str = "poller") -> float:
        """Return the newest stored value of a service's counter or gauge, 0 if there is none."""
        values = self._values(self._metric_file(name, service))
        return values[max(values)] if values else 0.0

    def _metric_file(self, name: str, service: str) -> Path:
        return self.state / "graphite/whisper/enphase/services" / service / "metrics" / f"{name}.wsp"

    @property
    def _file(self) -> Path:
        return self.state / "graphite" / "whisper" / f"{self.path.replace('.', '/')}.wsp"

    def _values(self, file: Path) -> dict[int, float]:
        if not file.exists():
            return {}
        try:
            (start, _end, step), values = whisper.fetch(str(file), int(time.time()) - DAY_S)
        except whisper.CorruptWhisperFile:  # Carbon is creating it
            return {}
        times = range(start, start + step * len(values), step)
        return {at: value for at, value in zip(times, values, strict=True) if value is not None}

    def _store_every_second(self) -> None:
        # Slots of ten seconds would hide all but one of ten readings.
        self._file.parent.mkdir(parents=True, exist_ok=True)
        whisper.create(str(self._file), [(1, DAY_S)])

    def _environment(self) -> dict[str, str]:
        return {
            "MQTT_PORT": str(self.proxy.port),
            "CARBON_HOST": HOST,
            "CARBON_PORT": str(self.carbon.port),
            "STATE_DIR": str(self.state),
        }

    def _server(self, module: str, port_setting: str) -> Server:
        port = free_port()
        log = self.state / f"{module}.log"
        server = Server.python(module, log=log, environment={port_setting: str(port), "STATE_DIR": str(self.state)})
        server.port = port
        return server

    def _service(self, module: str, environment: Mapping[str, str]) -> Program:
        return Program.python(
            module,
            log=self.state / f"{module}.log",
            environment=self._environment() | dict(environment) | self._settings,
        )


@contextmanager
def prepared_pipeline(
    state: Path, *, broker_rules: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> Iterator[Pipeline]:
    """Yield a pipeline of which only the gateway runs."""
    with ExitStack() as running:
        gateway = running.enter_context(simulator(state, model="metered-single", inverters=2))
        yield Pipeline(state, gateway, running, broker_rules=broker_rules, settings=settings)


@contextmanager
def running_pipeline(
    state: Path, *, broker_rules: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> Iterator[Pipeline]:
    """Yield a pipeline in which readings arrive."""
    with prepared_pipeline(state, broker_rules=broker_rules, settings=settings) as pipeline:
        pipeline.start()
        yield pipeline


def mosquitto(state: Path, rules: Sequence[str]) -> Server:
    """Return a Mosquitto whose configuration is that of ``make run`` but for some lines."""
    program = find_mosquitto()
    assert program, "mark the test with pytest.mark.mosquitto"
    port = free_port()
    home = state / "broker"
    home.mkdir(parents=True, exist_ok=True)
    names = {rule.split()[0] for rule in rules}
    usual = mosquitto_configuration(port, home, root=os.geteuid() == 0).splitlines()
    configuration = home / "test.conf"
    lines = [line for line in usual if line.split()[0] not in names]
    configuration.write_text("\n".join([*lines, *rules]) + "\n")
    server = Server([program, "-c", str(configuration)], state / "mosquitto.log")
    server.port = port
    return server


@contextmanager
def small_disk(directory: Path, size_kb: int) -> Iterator[Path]:
    """Mount a small disk on a directory and yield the path of a file that can fill it."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", directory], check=True)
    try:
        yield directory / "filler"
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


@contextmanager
def packet_loss(ports: Sequence[int], probability: float) -> Iterator[None]:
    """Lose a share of all packets to and from ports of this machine."""
    iptables = find_program("iptables")
    assert iptables, "mark the test with pytest.mark.root"
    rules = [
        f"INPUT -i lo -p tcp --{end} {port} -m statistic --mode random --probability {probability} -j DROP".split()
        for port in ports
        for end in ("dport", "sport")
    ]
    with ExitStack() as lost:
        for rule in rules:
            subprocess.run([iptables, "-w", "-A", *rule], check=True)
            lost.callback(subprocess.run, [iptables, "-w", "-D", *rule], check=True)
        yield


def fill(filler: Path) -> None:
    """Use all the space that is left on a small disk."""
    with filler.open("ab", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


def random_delay(chance: random.Random, max_s: float) -> None:
    """Let a random time pass, because the fault may hit at any moment or last for any time; nothing is waited for."""
    time.sleep(chance.uniform(0, max_s))


def memory_mb(program: Program) -> float:
    """Return the resident memory of a program, in MB."""
    lines = Path(f"/proc/{program.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))


def open_files(program: Program) -> int:
    """Return how many files and sockets a program has open."""
    return sum(1 for _file in Path(f"/proc/{program.process.pid}/fd").iterdir())
