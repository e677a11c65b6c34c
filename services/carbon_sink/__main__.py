"""Start carbon_sink: ``python -m services.carbon_sink``.

Libraries are imported where they are needed, so that ``--health`` and ``--help`` do not load paho.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from services.carbon_sink.settings import CarbonSinkSettings
from shared import lifecycle, logs
from shared.checks import report
from shared.health import Health, check_health
from shared.settings import command_line, load
from shared.topics import Topics

DESCRIPTION = "Subscribe to the readings of all gateways and write them to Carbon."


def main() -> int:
    """Run the service, or do the one thing that the command line requests; return the exit code."""
    parser = command_line("carbon_sink", DESCRIPTION, CarbonSinkSettings)
    parser.add_argument(
        "--dry-run", action="store_true", help="print 'path value timestamp' lines and write nothing to Carbon"
    )
    arguments = parser.parse_args()
    settings = load(CarbonSinkSettings)
    logs.configure(settings.log.level, settings.log.format)
    lifecycle.restrict_new_files()
    state_dir = settings.state_dir / "carbon_sink"
    if arguments.health:
        return report([check_health(state_dir / "health", time.time())])
    if arguments.dry_run:
        return run_dry(settings)
    return run_service(settings, state_dir)


def run_service(settings: CarbonSinkSettings, state_dir: Path) -> int:
    """Write readings to Carbon until a signal comes; return the exit code."""
    from services.carbon_sink.carbon import Carbon
    from services.carbon_sink.dead_letters import DeadLetters
    from services.carbon_sink.service import CarbonSink
    from shared.mqtt import Connection, Subscription

    stop = lifecycle.stop_on_signals()
    connection = Connection(
        settings.mqtt,
        stop=stop,
        subscriptions=[
            Subscription(topic_filter, retained_at_every_connect=False)
            for topic_filter in Topics(settings.mqtt.base_topic).all_readings()
        ],
        # With Mosquitto's own limit of 20 unacknowledged messages a batch would never fill.
        receive_maximum=2 * settings.carbon.batch_size,
    )
    CarbonSink(
        connection,
        Carbon(settings.carbon.addresses),
        settings.carbon,
        DeadLetters(state_dir / "dead-letters.jsonl"),
        Health(state_dir / "health"),
    ).run(stop)
    return connection.exit_code


def run_dry(settings: CarbonSinkSettings) -> int:
    """Print points until a signal comes; return the exit code."""
    from services.carbon_sink.dead_letters import DeadLetters
    from services.carbon_sink.dry_run import StandardOutput
    from services.carbon_sink.service import CarbonSink
    from shared.mqtt import Connection, Subscription

    stop = lifecycle.stop_on_signals()
    connection = Connection(
        # With a client id of its own and no session it takes no reading from the service.
        settings.mqtt.model_copy(update={"client_id": f"{settings.mqtt.client_id}-dry-run-{os.getpid()}"}),
        stop=stop,
        subscriptions=map(Subscription, Topics(settings.mqtt.base_topic).all_readings()),
        persistent_session=False,
    )
    # Nor does it write into the service's files.
    with tempfile.TemporaryDirectory() as folder:
        dead_letters, health = DeadLetters(Path(folder, "dead-letters.jsonl")), Health(Path(folder, "health"))
        CarbonSink(connection, StandardOutput(), settings.carbon, dead_letters, health).run(stop)
    return connection.exit_code


if __name__ == "__main__":
    sys.exit(main())
