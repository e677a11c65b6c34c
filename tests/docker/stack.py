"""The compose stack, for tests: commands in containers, their state, and what Graphite renders."""

import json
import secrets
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pydantic import SecretStr
from pytest_docker.plugin import Services

from shared.settings import MqttSettings
from tests.programs import HOST

MINUTE_S = 60
RUNNING = ("mosquitto", "graphite", "token_broker", "poller", "carbon_sink", "simulator", "node_red")
"""The services that keep running; ``setup`` exits, and Grafana's image is not available everywhere."""


class Stack:
    """The containers of one compose project, up and running."""

    def __init__(self, command: str, file: str, project: str, services: Services) -> None:
        self._command = [*command.split(), "-f", file, "-p", project]
        self._services = services

    def compose(self, *arguments: str) -> str:
        """Run a command of compose and return what it prints."""
        return _run([*self._command, *arguments])

    def inside(self, service: str, *command: str) -> str:
        """Run a command in a service's container and return what it prints."""
        return self.compose("exec", "-T", service, *command)

    @cached_property
    def secrets(self) -> dict[str, str]:
        """The generated passwords, by ``<folder>/<name>``."""
        command = "cd /volumes && for file in */*password */secret_key; do echo $file $(cat $file); done"
        lines = self.compose("run", "--rm", "--no-deps", "-T", "setup", "sh", "-c", command).splitlines()
        return dict(line.split() for line in lines)

    def mqtt(self, account: str) -> MqttSettings:
        """Return the settings of a connection with an account."""
        folder = {"health": "mosquitto/health_password"}.get(account, f"{account.replace('-', '_')}/mqtt_password")
        return MqttSettings(
            host=HOST,
            port=self.port("mosquitto", 1883),
            username=account,
            password=SecretStr(self.secrets[folder]),
            client_id=f"test-{account}-{secrets.token_hex(4)}",
        )

    def port(self, service: str, port: int) -> int:
        """Return the port of this machine on which a service's port is published."""
        return int(self._services.port_for(service, port))

    def container(self, service: str) -> dict[str, Any]:
        """Return what ``docker inspect`` prints for a service's container."""
        identifier = self.compose("ps", "--all", "--quiet", service).strip()
        (container,) = json.loads(_run(["docker", "inspect", identifier]))
        return dict(container)

    def memory_percent(self, service: str) -> float:
        """Return how much of its memory limit a service's container uses."""
        identifier = str(self.container(service)["Id"])
        return float(_run(["docker", "stats", "--no-stream", "--format", "{{.MemPerc}}", identifier]).strip(" %\n"))

    def healthy(self, service: str) -> bool:
        """Return whether a service's container is healthy."""
        state = self.container(service)["State"]
        return bool(state["Running"] and state["Health"]["Status"] == "healthy")

    def kill(self, service: str) -> None:
        """End all processes in a container at once, as a crash does; ``docker kill`` would prevent the restart."""
        subprocess.run([*self._command, "exec", "-T", service, "sh", "-c", "kill -9 -1"], check=False)

    def served(self) -> dict[int, tuple[float, float]]:
        """Return each grid power that the simulated gateway has served, with when it was served, by its timestamp."""
        fetch = "from urllib.request import urlopen; print(urlopen('{}').read().decode())".format(
            "http://127.0.0.1:8445/served?server=envoy&path=/ivp/meters/readings"
        )
        responses = json.loads(self.inside("simulator", "python", "-c", fetch))["served"]
        found = {}
        for response in responses:
            if response["status"] == 200:
                meters = json.loads(response["body"])
                found[meters[1]["timestamp"]] = (response["at"], meters[1]["activePower"])
        return found

    def drawn(self, target: str, since_s: int = 15 * MINUTE_S) -> dict[int, float]:
        """Return the points of the first series that Graphite renders for a target, by slot; none while it is down."""
        query = urllib.parse.urlencode({"target": target, "from": f"-{since_s}s", "format": "json", "noCache": "true"})
        url = f"http://{HOST}:{self.port('graphite', 8080)}/render?{query}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                series = json.loads(response.read())
        except OSError:
            return {}
        return {at: value for value, at in series[0]["datapoints"] if value is not None} if series else {}


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stderr}"
    return done.stdout
