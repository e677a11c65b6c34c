"""The commands that README.md and docs/ print for the compose stack work as printed, in a copy of the checkout."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import PUBLISHED
from tests.documented import IN_DOCKER, copy_checkout, documented_commands, patterns_of, shell
from tests.programs import HOST, free_port

LAST = " down "
SMALL = {"-m benchmarks.stack": "-m benchmarks.stack 1"}
"""With less to do than the documented command."""


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """Yield a copy of the checkout; nothing of it is kept."""
    copy = copy_checkout(tmp_path)
    yield copy
    shutil.rmtree(copy)


def test_the_documented_commands_of_the_stack_work_in_their_order(
    docker_compose_command: str, image: str, checkout: Path
) -> None:
    """From filling in .env to removing everything, with the simulated gateway and free ports."""
    assert docker_compose_command
    commands = [command.text for command in documented_commands() if set(patterns_of(command)) & IN_DOCKER]
    commands.sort(key=lambda command: LAST in command)
    settings = {name: f"{HOST}:{free_port()}" for name in PUBLISHED}
    settings |= {"COMPOSE_PROJECT_NAME": "enphase-documented", "COMPOSE_PROFILES": "demo", "PIPELINE_IMAGE": image}
    try:
        for command in commands:
            for printed, small in SMALL.items():
                command = re.sub(f"{re.escape(printed)}$", small, command)  # noqa: PLW2901
            ended = shell(command, checkout, settings)
            assert ended.returncode == 0, f"{command} exits with {ended.returncode}: {ended.stdout}{ended.stderr}"
    finally:
        shell("docker compose --profile demo down --volumes --remove-orphans", checkout, settings)
