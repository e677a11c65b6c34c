"""A whole house for the fault suite: gateway, poller, broker, sink and Carbon, each a process that can be hurt.

The oracle of each test: *conservation* (each reading that the gateway served is in Whisper at its time with its value),
*integrity* (nothing is there that was not served), *liveness* (a fresh reading passes); where it lasts, *honesty* (no
service says that it is well).
"""

import itertools
import json
import os
import subprocess
import threading
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
POLL_TAKES_S = 1.0
LATENESS_S = 180.0
"""In which everything must have arrived once nothing is hurt any more."""


class House:
    """Everything between the roof and the disk, and the judge of what arrives."""

    def __init__(
        self,
        state: Path,
        roof: Simulator,
        running: ExitStack,
        *,
        broker_rules: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a house; nothing runs yet.

        Args:
            state: where everything keeps everything.
            roof: the gateway, running.
            running: ends what is started.
            broker_rules: lines that take the place of those of their name in the broker's configuration.
            settings: of both services, in place of the usual ones.
        """
        self.state = state
        self.roof = roof
        self.poller_ended_at: list[float] = []
        """When the poller was killed or told to stop, epoch seconds."""
        self._running = running
        self._settings = dict(settings or {})
        if broker_rules:
            self.broker = mosquitto(state, broker_rules)
        else:
            self.broker = self._server("deploy.local.broker", "MQTT_PORT")
        self.proxy = running.enter_context(Proxy(self.broker.port))
        """Between the services and the broker."""
        self.carbon = self._server("deploy.local.carbon", "CARBON_PORT")
        self._keep_every_second()
        self.sink = self._service("services.carbon_sink", {"CARBON_SETTLE_S": "3"})
        self.poller = self._service(
            "services.poller",
            {
                "ENVOY_HOST": roof.envoy_url,
                "ENVOY_TOKEN": roof.token(),
                "POLL_INTERVAL_S": "1",
                "JOURNAL_RESEND_AFTER_S": "8",
            },
        )

    @property
    def path(self) -> str:
        """The series that is judged."""
        return f"enphase.{self.roof.serial}.grid.power_w"

    def start(self) -> None:
        """Start everything, the sink before the poller: a broker keeps nothing for whom it never met."""
        self.run(self.broker, self.carbon, self.sink)
        wait_until(lambda: "connected to the broker" in self.sink.output, "the sink is connected")
        self.run(self.poller)
        wait_until(self.stored, f"a first reading; {self.poller.output}")

    def run(self, *programs: Program) -> None:
        """Start programs one after the other; they end with the house."""
        for program in programs:
            self._running.enter_context(program)

    def served(self) -> dict[int, float]:
        """Return every reading of the grid that the gateway has served, by its time.

        The poller has taken just these as long as nothing hurts its line to the gateway.
        """
        return {timestamp: power_w for _at, timestamp, power_w in self._answers()}

    def taken(self) -> dict[int, float]:
        """Return what was served, but for the polls that were under way when the poller was ended."""
        ended_at = self.poller_ended_at
        return {
            timestamp: power_w
            for at, timestamp, power_w in self._answers()
            if not any(0 <= end - at < POLL_TAKES_S for end in ended_at)
        }

    def _answers(self) -> Iterator[tuple[float, int, float]]:
        for answer in self.roof.ledger.served(server="envoy", path="/ivp/meters/readings"):
            if answer["status"] == 200:
                _production, net = json.loads(str(answer["body"]))[:2]
                yield float(str(answer["at"])), net["timestamp"], net["activePower"]

    def sent_again(self) -> float:
        """Return how many readings the poller has published again, as far as its metrics tell."""
        counts = [*self._values(self._metrics_file).values(), 0.0]
        # A new process counts from zero.
        return sum(count for count, following in itertools.pairwise(counts) if following < count)

    def stored(self) -> dict[int, float]:
        """Return what is in the Whisper file."""
        return self._values(self._file)

    def _values(self, file: Path) -> dict[int, float]:
        if not file.exists():
            return {}
        (start, _end, step), values = whisper.fetch(str(file), int(time.time()) - DAY_S)
        times = range(start, start + step * len(values), step)
        return {at: value for at, value in zip(times, values, strict=True) if value is not None}

    def poll_on(self, readings: int) -> None:
        """Wait until the gateway has served so many readings more."""
        target = len(self.served()) + readings
        what = f"{readings} polls; {self.poller.output[-2000:]}"
        wait_until(lambda: len(self.served()) >= target, what, 30 + 2 * readings)

    def everything_arrives(self, *, but: int = 0) -> None:
        """Fail unless all that was served so far is stored in time, and nothing else is.

        Args:
            but: how many readings may be missing: those whose poll was under way when the poller was killed.
        """
        self.poll_on(2)
        served = self.served()
        last = max(served)

        def missing() -> set[int]:
            return {at for at in served if at <= last} - self.stored().keys()

        with suppress(AssertionError):
            wait_until(lambda: len(missing()) <= but, "all readings", LATENESS_S)
        late = [answer for answer in self._answers() if answer[1] in missing()]
        never = f"of {len(served)} readings never: {late} (served at, time, W); {self.poller.output}"
        assert len(missing()) <= but, never
        everything = self.served()
        wrong = {at: value for at, value in self.stored().items() if everything.get(at) != value}
        assert wrong == {}

    def unwell(self, service: str) -> str:
        """Return what a service says that ails it, nothing if it says that it is well."""
        finding = check_health(self.state / service / "health", time.time())
        return "" if finding.ok else finding.text

    def metric(self, name: str, service: str = "poller") -> float:
        """Return the newest value of a counter or gauge of a service's that is stored, 0 if there is none."""
        file = self.state / "graphite" / "whisper" / "enphase" / "services" / service / "metrics" / f"{name}.wsp"
        if not file.exists():
            return 0.0
        _times, values = whisper.fetch(str(file), int(time.time()) - 600)
        return next((value for value in reversed(values) if value is not None), 0.0)

    @property
    def _metrics_file(self) -> Path:
        return self.state / "graphite/whisper/enphase/services/poller/metrics/readings_resent.wsp"

    @property
    def _file(self) -> Path:
        return self.state / "graphite" / "whisper" / f"{self.path.replace('.', '/')}.wsp"

    def _keep_every_second(self) -> None:
        # Ten-second slots would hide all but one of ten readings.
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
def house_in(
    state: Path, *, broker_rules: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> Iterator[House]:
    """Yield a house in which only the gateway runs yet."""
    with ExitStack() as running:
        roof = running.enter_context(simulator(state, model="metered-single", inverters=2))
        yield House(state, roof, running, broker_rules=broker_rules, settings=settings)


@contextmanager
def standing_house(
    state: Path, *, broker_rules: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> Iterator[House]:
    """Yield a house in which readings arrive."""
    with house_in(state, broker_rules=broker_rules, settings=settings) as house:
        house.start()
        yield house


def mosquitto(state: Path, rules: Sequence[str]) -> Server:
    """Return a mosquitto with rules of a test's own in place of those of ``make run``."""
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
    """Mount a disk of so many kB on a directory and yield the path of a file that fills it once it is written."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", directory], check=True)
    try:
        yield directory / "filler"
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


@contextmanager
def packet_loss(ports: Sequence[int], probability: float) -> Iterator[None]:
    """Lose that share of all packets to and from ports of this machine."""
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
    """Take all the room that is left on a small disk."""
    with filler.open("ab", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


def pause(seconds: float) -> None:
    """Let a fault last."""
    threading.Event().wait(seconds)


def memory_mb(program: Program) -> float:
    """Return the memory that a program holds, in MB."""
    lines = Path(f"/proc/{program.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))


def open_files(program: Program) -> int:
    """Return how many files and sockets a program holds open."""
    return sum(1 for _file in Path(f"/proc/{program.process.pid}/fd").iterdir())
