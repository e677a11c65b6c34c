"""Runs carbon-cache, which writes what the sink sends into Whisper files."""

import logging
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from deploy.local.settings import HOST, LocalSettings
from shared import logs
from shared.files import quarantine, write_atomically
from shared.settings import load

logger = logging.getLogger("deploy.local.carbon")

GRAPHITE_RULES = Path(__file__).parents[1] / "graphite"
"""Storage schemas and aggregation rules, shared with the compose stack."""

WHISPER_HEADER_BYTES = 28
"""Metadata (16) and the first archive's info (12): graphite-project/whisper, whisper.py, metadataFormat."""


def carbon_configuration(port: int, home: Path) -> str:
    """Return the carbon.conf of a carbon-cache that only this machine reaches, through its pickle receiver."""
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
# It cannot be disabled; with port 0 the system chooses one.
CACHE_QUERY_INTERFACE = {HOST}
CACHE_QUERY_PORT = 0
# By default it sends every tagged name to a Graphite web application.
ENABLE_TAGS = False
# With a limit here Carbon drops points silently; where there is one, flow control pauses the sender instead.
MAX_CACHE_SIZE = inf
USE_FLOW_CONTROL = True
MAX_CREATES_PER_MINUTE = inf
MAX_UPDATES_PER_SECOND = inf
# Of two points with the same second the later one is stored.
MIN_TIMESTAMP_RESOLUTION = 1
# A file takes the disk space of the points in it, not of ten years at once.
WHISPER_SPARSE_CREATE = True
CARBON_METRIC_INTERVAL = 0
LOG_CREATES = False
LOG_UPDATES = False
LOG_CACHE_HITS = False
LOG_CACHE_QUEUE_SORTS = False
LOG_LISTENER_CONN_SUCCESS = False
"""


def whisper_directory(home: Path) -> Path:
    """Return the directory of the Whisper files, which Carbon writes and Graphite reads."""
    return home / "whisper"


def quarantine_incomplete_files(whisper: Path) -> None:
    """Rename the Whisper files that a killed Carbon left without a complete header.

    Carbon rejects every later point of such a metric: graphite-project/carbon#99.
    """
    for path in whisper.rglob("*.wsp"):
        if path.stat().st_size < WHISPER_HEADER_BYTES:
            quarantine(path, "incomplete Whisper header")


def main() -> None:
    """Replace this process by carbon-cache."""
    settings = load(LocalSettings)
    logs.configure("INFO", "text")
    home = settings.state_dir / "graphite"
    configuration = home / "conf" / "carbon.conf"
    write_atomically(configuration, carbon_configuration(settings.carbon_port, home), durable=False)
    for rules in ("storage-schemas.conf", "storage-aggregation.conf"):
        shutil.copyfile(GRAPHITE_RULES / rules, configuration.parent / rules)
    quarantine_incomplete_files(whisper_directory(home))
    # The process id that a killed Carbon left may be another program's by now, and Carbon would refuse to start.
    (home / "carbon-cache-a.pid").unlink(missing_ok=True)
    program = str(Path(sysconfig.get_path("scripts"), "carbon-cache.py"))
    logger.info("starting carbon-cache on %s:%s, files in %s", HOST, settings.carbon_port, whisper_directory(home))
    os.environ["GRAPHITE_ROOT"] = str(home)
    os.execv(  # noqa: S606
        sys.executable, [sys.executable, program, f"--config={configuration}", "--nodaemon", "start"]
    )


if __name__ == "__main__":
    main()
