"""What the owner sees and does when another gateway or certificate is at the address: log, --health, --check, command.

That no credential is sent is shown in ``tests/unit/poller/test_session.py``, connection by connection.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.simulator.simulator import Simulator
from shared.certificates import create_key
from tests.conftest import Server
from tests.gateway_certificates import write_certificate
from tests.programs import ROOT, Program, clean_environment, simulator, wait_until

SERIAL, OTHER = "122012345678", "122000000099"


class Poller:
    """The poller's commands and service, for one address and state folder."""

    def __init__(self, state: Path, broker_port: int, roof: Simulator) -> None:
        self.state = state
        self.environment = {
            "ENVOY_HOST": roof.envoy_url,
            "ENVOY_TOKEN": roof.token(),
            "MQTT_PORT": str(broker_port),
            "STATE_DIR": str(state),
            "POLL_INTERVAL_S": "1",
        }

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "services.poller", *arguments],
            env=clean_environment() | self.environment | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @contextmanager
    def running(self) -> Iterator[Program]:
        """Run the service, and yield it once it is healthy."""
        log = self.state / "poller.log"
        with Program.python("services.poller", log=log, environment=self.environment) as poller:
            self.wait_until_healthy(poller)
            yield poller

    def health(self) -> str:
        """Return what the service reports of itself."""
        file = self.state / "poller" / "health"
        return file.read_text() if file.exists() else ""

    def wait_until_healthy(self, poller: Program) -> None:
        """Wait until it is connected and polls."""
        wait_until(lambda: self.health() == "connected and progressing", f"health; {self.health()} {poller.output}")

    @property
    def pin(self) -> list[str]:
        """The lines of the pin."""
        return (self.state / "poller" / f"{SERIAL}.sha256").read_text().splitlines()


def certificate_file(state: Path, serial: str = SERIAL) -> Path:
    """Return where the simulated gateway has its certificate."""
    folder = state / "simulator"
    folder.mkdir(exist_ok=True)
    return folder / f"gateway-{serial}.pem"


def port_of(roof: Simulator) -> int:
    """Return the port of a simulated gateway."""
    return int(roof.envoy_url.rpartition(":")[2])


def test_a_renewed_certificate_is_reported_and_accepted_with_one_command(broker: Server, tmp_path: Path) -> None:
    """Log, --health and --check name the command; the running service continues without a restart."""
    with simulator(tmp_path, serial=SERIAL) as roof:
        commands = Poller(tmp_path, broker.port, roof)
        with commands.running() as poller:
            before = commands.pin[0]
            port = port_of(roof)
            roof.stop()
            renewed = write_certificate(certificate_file(tmp_path))
            command = f"--accept-certificate {renewed}"
            with simulator(tmp_path, serial=SERIAL, envoy_port=port) as restarted:
                wait_until(lambda: command in poller.output, f"the error; {poller.output}")
                wait_until(lambda: command in commands.health(), "the fault")
                health, check = commands.run("--health"), commands.run("--check")
                refused = commands.run("--accept-certificate", before)
                assert {response["path"] for response in restarted.request_log.served(server="envoy")} == {"/info"}
                unchanged = commands.pin
                accepted = commands.run("--accept-certificate", renewed.upper())
                commands.wait_until_healthy(poller)

    assert (health.returncode, check.returncode, refused.returncode, accepted.returncode) == (1, 1, 1, 0)
    assert command in health.stdout
    assert command in check.stdout
    assert f"{renewed} instead of {before}" in refused.stderr
    assert unchanged[0] == before
    assert commands.pin[0] == renewed
    assert f"gateway {SERIAL}" in accepted.stdout
    assert poller.output.count(command) == 1


def test_a_renewed_certificate_with_the_same_key_interrupts_nothing(broker: Server, tmp_path: Path) -> None:
    """The service accepts, pins and logs it by itself."""
    key = create_key()
    before = write_certificate(certificate_file(tmp_path), key)
    with simulator(tmp_path, serial=SERIAL) as roof:
        commands = Poller(tmp_path, broker.port, roof)
        with commands.running() as poller:
            port = port_of(roof)
            roof.stop()
            renewed = write_certificate(certificate_file(tmp_path), key)
            with simulator(tmp_path, serial=SERIAL, envoy_port=port):
                wait_until(lambda: "responds again" in poller.output, f"polls; {poller.output}")

    assert commands.pin[0] == renewed
    assert f"same key as {before}" in poller.output
    assert " ERROR " not in poller.output


def test_another_serial_number_at_the_address_is_reported_and_accepted_with_envoy_serial(
    broker: Server, tmp_path: Path
) -> None:
    """Log, --health and --check name the setting; nothing but /info is requested until it is set."""
    with simulator(tmp_path, serial=SERIAL) as roof:
        commands = Poller(tmp_path, broker.port, roof)
        with commands.running() as poller:
            port = port_of(roof)
            roof.stop()
            with simulator(tmp_path, serial=OTHER, envoy_port=port) as other:
                setting = f"set ENVOY_SERIAL={OTHER}"
                wait_until(lambda: setting in poller.output, f"the error; {poller.output}")
                wait_until(lambda: setting in commands.health(), "the fault")
                check = commands.run("--check")
                requested = {response["path"] for response in other.request_log.served(server="envoy")}
                accepted = commands.run("--once", ENVOY_SERIAL=OTHER, ENVOY_TOKEN=other.token())

    assert check.returncode == 1
    assert setting in check.stdout
    assert requested == {"/info"}
    assert accepted.returncode == 0, accepted.stderr


@pytest.mark.parametrize(("days", "announced"), [(300, False), (80, True), (-1, True)])
def test_the_expiry_of_the_certificate_is_reported_weeks_ahead(
    broker: Server, tmp_path: Path, days: int, *, announced: bool
) -> None:
    """In --check and in the log; an expired certificate is still the pinned one, and the gateway is read."""
    write_certificate(certificate_file(tmp_path), expires_in_days=days)
    with simulator(tmp_path, serial=SERIAL) as roof:
        commands = Poller(tmp_path, broker.port, roof)
        check = commands.run("--check")
        with commands.running() as poller:
            pass

    assert check.returncode == 0, check.stdout
    line = next(line for line in check.stdout.splitlines() if "certificate: SHA-256" in line)
    assert ("it expired on " if days < 0 else "it expires on ") in line
    assert ("--accept-certificate" in line) == announced
    assert poller.output.count("--accept-certificate") == announced


@pytest.mark.parametrize("fingerprint", ["12:ab", "x" * 64, ""])
def test_what_is_no_fingerprint_is_not_accepted(fingerprint: str, tmp_path: Path) -> None:
    """As for a bad setting: one line, exit code 2, nothing requested."""
    with simulator(tmp_path) as roof:
        ended = Poller(tmp_path, 1, roof).run("--accept-certificate", fingerprint)
        requested = roof.request_log.served(server="envoy")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "SHA-256 fingerprint" in ended.stderr.splitlines()[-1]
    assert requested == []
