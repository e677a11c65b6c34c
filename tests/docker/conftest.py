"""The compose stack, unmodified, for the tests of this folder."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_docker.plugin import Services

from tests.docker.stack import Stack
from tests.programs import HOST, ROOT, clean_environment, free_port

IMAGES = (
    "python:3.13-slim",
    "eclipse-mosquitto:2",
    "graphiteapp/graphite-statsd:1.1.10-5",
    "nodered/node-red:4",
)
PUBLISHED = ("MQTT_PUBLISH", "MQTT_TLS_PUBLISH", "GRAPHITE_PUBLISH", "NODE_RED_PUBLISH")
SETTINGS = {
    "COMPOSE_PROFILES": "demo,node-red",
    # Short, so that lost readings are resent soon.
    "JOURNAL_RESEND_AFTER_S": "15",
    "CARBON_SETTLE_S": "5",
}


def docker_problem() -> str | None:
    """Return what keeps the stack from running here, None if nothing does."""
    for command in ("docker version", "docker compose version", "docker buildx version"):
        if problem := _problem(command.split()):
            return f"`{command}` fails: {problem}"
    for image in IMAGES:
        if _problem(["docker", "image", "inspect", image]) and (problem := _problem(["docker", "pull", "-q", image])):
            return f"the image {image} is not available: {problem}"
    return None


def _problem(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.strip() or f"exit {done.returncode}" if done.returncode else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder: they need Docker."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def image(docker_compose_project_name: str) -> Iterator[str]:
    """Build the image once, under a name of its own, yield the name, and remove the image afterwards.

    A stack that is running here keeps its image. A second build would leave the first image without a name.
    """
    if problem := docker_problem():
        pytest.fail(problem)
    name = f"enphase-pipeline-test:{secrets.token_hex(4)}"
    build = ["docker", "compose", "--project-directory", str(ROOT), "build", "--quiet", "setup"]
    subprocess.run(build, check=True, env=clean_environment("COMPOSE_") | {"PIPELINE_IMAGE": name})
    yield name
    # pytest-docker removes the stack, unless its start failed.
    down = ["docker", "compose", "-p", docker_compose_project_name, "down", "--volumes", "--remove-orphans"]
    for command in (down, ["docker", "image", "rm", "--force", name]):
        subprocess.run(command, check=False, capture_output=True)


@pytest.fixture(scope="session")
def settings_file(tmp_path_factory: pytest.TempPathFactory, image: str) -> Path:
    """Return the .env file of the tests."""
    # Chosen here, because Docker chooses another port whenever it restarts a container.
    published = {name: f"{HOST}:{free_port()}" for name in PUBLISHED}
    settings = SETTINGS | published | {"PIPELINE_IMAGE": image}
    file = tmp_path_factory.mktemp("stack") / "env"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return file


@pytest.fixture(scope="session")
def docker_compose_command(settings_file: Path) -> str:
    """Return the command of compose, with the settings of the tests and none of a developer's."""
    developers = os.environ.keys() - clean_environment().keys() | {"COMPOSE_PROFILES"}
    return f"env {' '.join(f'-u {name}' for name in sorted(developers))} docker compose --env-file {settings_file}"


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    """Return the compose file of the project."""
    return str(ROOT / "docker-compose.yml")


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    """Return what removes an earlier run's volumes, starts the stack, and waits until it is healthy."""
    return ["down -v --remove-orphans", "up --wait --quiet-pull"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    """Return what removes the stack with its volumes."""
    return ["down -v --remove-orphans"]


@pytest.fixture(scope="session")
def stack(
    docker_compose_command: str,
    docker_compose_file: str,
    docker_compose_project_name: str,
    docker_services: Services,
) -> Stack:
    """Return the healthy stack, with a simulated gateway and Node-RED."""
    return Stack(docker_compose_command, docker_compose_file, docker_compose_project_name, docker_services)
