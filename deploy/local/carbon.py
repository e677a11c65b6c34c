"""Runs carbon-cache, which writes what the sink sends into Whisper files."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from deploy.local.settings import HOST, LocalSettings
from shared.settings import load

GRAPHITE_RULES = Path(__file__).parents[1] / "graphite"
"""The schemas and aggregation rules, the same ones that the compose stack mounts."""

WHISPER_HEADER_BYTES = 28
"""Metadata (16) and the first archive's info (12): graphite-project/whisper, whisper.py, metadataFormat."""


def carbon_configuration(port: int, home: Path) -> str:
    """Return the carbon.conf of a carbon-cache for this machine alone: the pickle receiver and nothing else."""
    return f"""\
[cache]
STORAGE_DIR = {home}
CONF_DIR = {home}/conf
LOG_DIR = {home}/log
PID_DIR = {home}
LOCAL_DATA_DIR = {whisper_directory(home)}
PICKLE_RECEIVER_INTERFACE = {HOST}
PICKLE_RECEIVER_PORT = {port}
LINE_RECEIVER_PORT = 0
ENABLE_UDP_LISTENER = False
# Can't be switched off; port 0 lets the system choose one.
CACHE_QUERY_INTERFACE = {HOST}
CACHE_QUERY_PORT = 0
# On by default, it would ask a Graphite web application about every tagged name.
ENABLE_TAGS = False
# Any limit here drops points without a word to the sender; where there is one, flow control pauses him instead.
MAX_CACHE_SIZE = inf
USE_FLOW_CONTROL = True
MAX_CREATES_PER_MINUTE = inf
MAX_UPDATES_PER_SECOND = inf
# Of two points in the same second the later one counts.
MIN_TIMESTAMP_RESOLUTION = 1
# A series takes the disk space of what it holds instead of ten years at once.
WHISPER_SPARSE_CREATE = True
CARBON_METRIC_INTERVAL = 0
LOG_CREATES = False
LOG_UPDATES = False
LOG_CACHE_HITS = False
LOG_CACHE_QUEUE_SORTS = False
LOG_LISTENER_CONN_SUCCESS = False
"""


def whisper_directory(home: Path) -> Path:
    """Return where Carbon writes and Graphite reads."""
    return home / "whisper"


def set_half_written_aside(whisper: Path) -> Iterator[Path]:
    """Rename the files that a killed Carbon left without a whole header, and yield their names.

    Carbon refuses every later point of such a metric: graphite-project/carbon#99.
    """
    for path in whisper.rglob("*.wsp"):
        if path.stat().st_size < WHISPER_HEADER_BYTES:
            yield path.rename(path.with_suffix(".wsp.broken"))


def main() -> None:
    """Become carbon-cache."""
    settings = load(LocalSettings)
    home = settings.state_dir / "graphite"
    configuration = home / "conf" / "carbon.conf"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(carbon_configuration(settings.carbon_port, home))
    for rules in ("storage-schemas.conf", "storage-aggregation.conf"):
        shutil.copyfile(GRAPHITE_RULES / rules, configuration.parent / rules)
    for path in set_half_written_aside(whisper_directory(home)):
        say(f"set aside {path}, which an earlier Carbon left half-written")
    # A number left by a killed Carbon may meanwhile be another program's, and Carbon would refuse to start.
    (home / "carbon-cache-a.pid").unlink(missing_ok=True)
    program = str(Path(sysconfig.get_path("scripts"), "carbon-cache.py"))
    say(f"carbon-cache on {HOST}:{settings.carbon_port}, files in {whisper_directory(home)}")
    os.environ["GRAPHITE_ROOT"] = str(home)
    os.execv(  # noqa: S606
        sys.executable, [sys.executable, program, f"--config={configuration}", "--nodaemon", "start"]
    )


def say(line: str) -> None:
    """Tell what happened in one line."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
