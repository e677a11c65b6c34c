"""The commands that README.md and docs/ print, and a copy of the checkout to run them in.

A command is a line of a block marked `sh`, or a code span that begins like one. Each matches exactly one pattern, which
decides where it is run: by `tests/unit/test_documented_commands.py`, by `tests/docker/test_documented_commands.py`, or
nowhere, for a reason.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.programs import ROOT, clean_environment

COMMAND_TIMEOUT_S = 300
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
COMMAND_BEGIN = re.compile(
    r"(\w+=\S* )*(\.venv/bin/|python -m |-m |make [a-z]|docker (compose|inspect)|curl |pip |cp |echo )"
)
COMMENT = re.compile(r"\s+#\s.*")

HERE = {
    r"make run": "run_pipeline",
    r"ENVOY_HOST=envoy\.local .*make run": "run_pipeline",
    r"make help": "run_to_its_end",
    r"make chaos": "run_chaos",
    r"\.venv/bin/python -m services\.<name>": "run_services",
    r"\.venv/bin/python -m services\.<name> --health": "check_health_of_nothing",
    r"(ENVOY_\S+ )*\.venv/bin/python -m services\.poller --(once|check).*": "run_to_its_end",
    r"\.venv/bin/python -m services\.token_broker --(once|check)": "run_to_its_end",
    r"\.venv/bin/python -m services\.simulator.*": "run_simulator",
    r"\.venv/bin/python -m tests\.gateways gateways": "run_to_its_end",
    r"\.venv/bin/python -m deploy\.grafana": "run_to_its_end",
    r"\.venv/bin/python -m benchmarks\.sink": "run_small_benchmark",
    r"\.venv/bin/python -m benchmarks\.journal.*": "run_small_benchmark",
    r"\.venv/bin/python -m benchmarks\.poller": "run_small_benchmark",
    r"curl .*http://127\.0\.0\.1:8445/.*": "run_against_the_simulator",
}
"""Commands that need no Docker, and which function runs them."""

IN_DOCKER = {
    r"cp \.env\.example \.env",
    r"docker compose .*",
    r"echo MQTT_TLS=true .*",
    r"\.venv/bin/python -m benchmarks\.stack",
}
"""Commands that need Docker."""

NOT_RUN = {
    r"\.venv/bin/python -m tests\.docker\.draw FOLDER": "tests/docker/test_dashboards.py draws every panel",
    r"(docker compose exec poller |\.venv/bin/)python -m services\.poller --accept-certificate FINGERPRINT": (
        "tests/integration/test_poller_credentials.py runs it with a certificate's fingerprint"
    ),
    r"make test(-[a-z]+)?": "it runs this test",
    r"docker compose --profile demo --profile dashboards up": "Grafana's image is not on every machine that has Docker",
    r"docker inspect .*<container>": "it shows a state that tests/docker/test_stack.py reads in the same way",
}
"""Commands that no test runs, and why."""


class Command(NamedTuple):
    """A command as it is printed."""

    page: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def documented_commands() -> list[Command]:
    """Return each printed command once, in the order of the pages."""
    found: dict[str, Command] = {}
    for page in PAGES:
        text = page.read_text()
        lines = [line for language, block in BLOCK.findall(text) if language == "sh" for line in block.splitlines()]
        spans = [span for span in CODE_SPAN.findall(BLOCK.sub("", text)) if COMMAND_BEGIN.match(span)]
        for printed in (*lines, *spans):
            if command := COMMENT.sub("", printed).strip():
                found.setdefault(command, Command(str(page.relative_to(ROOT)), command))
    return list(found.values())


def patterns_of(command: Command) -> list[str]:
    """Return the patterns that a command matches; one that is not run is taken out of the others."""
    not_run = [pattern for pattern in NOT_RUN if re.fullmatch(pattern, command.text)]
    return not_run or [pattern for pattern in (*HERE, *IN_DOCKER) if re.fullmatch(pattern, command.text)]


def copy_checkout(folder: Path) -> Path:
    """Copy the project as a fresh clone has it, with the environment of these tests as its .venv; return the copy.

    A command that is run there uses its own state folder, and `make` finds everything installed.
    """
    left_out = shutil.ignore_patterns(
        ".git", ".venv", "state", ".env", "node_modules", "__pycache__", ".*_cache", ".coverage*"
    )
    copy = shutil.copytree(ROOT, folder / "checkout", ignore=left_out)
    environment = copy / ".venv"
    environment.mkdir()
    for name in ("lib", "lib64", "include", "pyvenv.cfg"):
        if (Path(sys.prefix) / name).exists():
            (environment / name).symlink_to(Path(sys.prefix) / name)
    (environment / "bin").symlink_to(Path(sys.executable).parent)
    for stamp in ("venv", "run", "dev", "broker"):
        (environment / f"installed-{stamp}").touch()
    return copy


def shell(command: str, checkout: Path, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as a person types it in a checkout, and return its end."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=checkout,
        env=clean_environment("COVERAGE_", "COMPOSE_") | dict(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
