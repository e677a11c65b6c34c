"""Every command that README.md and docs/ print works as printed, in a copy of the checkout with free ports."""

import itertools
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.simulator.simulator import Simulator
from tests.conftest import Server
from tests.documented import HERE, IN_DOCKER, NOT_RUN, Command, copy_checkout, documented_commands, patterns_of, shell
from tests.integration.local_programs import local_settings
from tests.programs import DEADLINE_S, ROOT, Program, clean_environment, wait_until

COMMANDS = documented_commands()
RUN_HERE = [
    pytest.param(command, marks=pytest.mark.curl if command.text.startswith("curl") else ())
    for command in COMMANDS
    if set(patterns_of(command)) & HERE.keys()
]
SERVICES = sorted(file.parent.name for file in (ROOT / "services").glob("*/__main__.py"))


def test_every_documented_command_is_run_by_exactly_one_test() -> None:
    """A command that no pattern knows needs a test, and a pattern that no command needs can go."""
    found = {str(command): patterns_of(command) for command in COMMANDS}

    assert {command: patterns for command, patterns in found.items() if len(patterns) != 1} == {}
    assert {*HERE, *IN_DOCKER, *NOT_RUN} - {pattern for patterns in found.values() for pattern in patterns} == set()


class Checkout:
    """A copy of the checkout, a gateway with its Enlighten, a broker, and the settings that lead there."""

    def __init__(self, folder: Path, gateway: Simulator, broker: Server) -> None:
        self.folder = copy_checkout(folder)
        self._logs = (folder / f"log-{number}" for number in itertools.count())
        self._gateway = gateway
        self._settings = local_settings(folder) | {
            "MQTT_PORT": str(broker.port),
            "ENVOY_SERIAL": gateway.serial,
            "ENLIGHTEN_EMAIL": "owner@example.com",
            "ENLIGHTEN_PASSWORD": "sunshine",
            "ENLIGHTEN_LOGIN_URL": f"{gateway.enlighten_url}/login/login.json",
            "ENLIGHTEN_TOKENS_URL": f"{gateway.enlighten_url}/tokens",
        }
        del self._settings["STATE_DIR"]  # the checkout's own, as for a person

    def filled_in(self, command: str) -> str:
        """Return a command with what a person must fill in, and with the simulator's address."""
        for placeholder, value in {
            "envoy.local": self._gateway.envoy_url,
            "you@example.com": "owner@example.com",
            "ENLIGHTEN_PASSWORD=…": "ENLIGHTEN_PASSWORD=sunshine",
            "ENVOY_TOKEN=…": f"ENVOY_TOKEN={self._gateway.token()}",
            "http://127.0.0.1:8445": self._gateway.control_url,
        }.items():
            command = command.replace(placeholder, value)
        return command

    def started(self, command: str, **settings: str) -> Program:
        """Return a command that runs until it is stopped."""
        environment = clean_environment("COVERAGE_") | self._settings | settings
        # exec: a signal reaches the program itself.
        return Program(["bash", "-c", f"cd {self.folder} && exec env {command}"], next(self._logs), environment)

    def run(self, command: str, **settings: str) -> str:
        """Run a command to its end and return what it prints."""
        ended = shell(command, self.folder, self._settings | settings)
        assert ended.returncode == 0, f"{command} exits with {ended.returncode}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    # --- How commands are run: the functions named in tests/documented.py ---

    def run_pipeline(self, command: str) -> None:
        """It prints where the readings are, and Ctrl-C, which goes to all of its processes, ends it."""
        settings = local_settings(self.folder)
        del settings["STATE_DIR"]
        with self.started(command, **settings) as pipeline:
            wait_until(lambda: "Render: http" in pipeline.output, f"readings in Graphite; {pipeline.output}")
            os.killpg(pipeline.process.pid, signal.SIGINT)
            pipeline.process.wait(DEADLINE_S)
            assert "Traceback" not in pipeline.output

    def run_chaos(self, command: str) -> None:
        """A few faults instead of ten minutes of them."""
        assert "| seed |" in self.run(command, MINUTES="0.05")

    def run_services(self, command: str) -> None:
        """Each service runs until it is stopped."""
        for service in SERVICES:
            with self.started(command.replace("<name>", service)) as program:
                wait_until(lambda program=program: program.output, f"{service} prints something")  # type: ignore[misc]
                assert program.stop() == 0, program.output

    def check_health_of_nothing(self, command: str) -> None:
        """It reports that the service does not run."""
        for service in ("carbon_sink", "poller", "token_broker"):
            ended = shell(command.replace("<name>", service), self.folder, self._settings)
            assert ended.returncode == 1, ended.stdout + ended.stderr
            assert len(ended.stdout.splitlines()) == 1

    def run_to_its_end(self, command: str) -> None:
        """It succeeds and changes no file that is part of the project."""
        self.run(command)
        for file in (self.folder / "deploy" / "grafana" / "dashboards").iterdir():
            assert file.read_bytes() == (ROOT / file.relative_to(self.folder)).read_bytes()

    def run_simulator(self, command: str) -> None:
        """It prints its addresses."""
        self.run(".venv/bin/python -m tests.gateways gateways")
        ports = {f"SIMULATOR_{name}_PORT": "0" for name in ("ENVOY", "ENLIGHTEN", "CONTROL")}
        with self.started(command, **ports) as simulator:
            wait_until(lambda: re.search(r"^control: http", simulator.output, re.MULTILINE), simulator.output)
            assert simulator.stop(signal.SIGINT) == 0

    def run_small_benchmark(self, command: str) -> None:
        """It prints figures; with less to do than the documented ones."""
        benchmark, *_arguments = re.split(r" (?=\d)", command)
        assert re.search(r"\d", self.run(f"{benchmark} 20 1"))

    def run_against_the_simulator(self, command: str) -> None:
        """The simulator's control port accepts it."""
        self.run(f'curl --silent --fail-with-body -d \'{{"name": "slow"}}\' {self._gateway.control_url}/faults')
        silent = command.replace("curl ", "curl --silent --fail-with-body ", 1)
        assert "error" not in self.run(silent)


@pytest.fixture
def checkout(tmp_path: Path, roof: Simulator, broker: Server) -> Iterator[Checkout]:
    """Yield a copy of the checkout; nothing of it is kept."""
    yield Checkout(tmp_path, roof, broker)
    shutil.rmtree(tmp_path / "checkout")


@pytest.mark.parametrize("command", RUN_HERE, ids=str)
def test_a_documented_command_works_as_printed(command: Command, checkout: Checkout) -> None:
    """It does what the page describes."""
    (pattern,) = patterns_of(command)
    run: Callable[[str], None] = getattr(checkout, HERE[pattern])

    run(checkout.filled_in(command.text))
