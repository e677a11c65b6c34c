"""Start carbon_sink: ``python -m services.carbon_sink``."""

import os
import sys
import time
from collections.abc import Sequence

from services.carbon_sink.carbon import Carbon, Store
from services.carbon_sink.dead_letters import DeadLetters
from services.carbon_sink.points import Point
from services.carbon_sink.service import CarbonSink
from services.carbon_sink.settings import CarbonSinkSettings
from shared import lifecycle, logs
from shared.checks import report
from shared.health import Health, check_health
from shared.mqtt import Connection, Subscription
from shared.settings import command_line, load
from shared.topics import Topics

WHAT_IT_DOES = "Subscribe to the readings of all gateways and write them to Carbon."


def main() -> int:
    """Run the service; return the exit code."""
    parser = command_line("carbon_sink", WHAT_IT_DOES, CarbonSinkSettings)
    parser.add_argument(
        "--dry-run", action="store_true", help="print 'path value timestamp' lines instead of writing to Carbon"
    )
    arguments = parser.parse_args()
    settings = load(CarbonSinkSettings)
    logs.configure(settings.log.level, settings.log.format)
    lifecycle.restrict_new_files()
    folder = settings.state_dir / "carbon_sink"
    health_file = folder / "health"
    if arguments.health:
        return report([check_health(health_file, time.time())])
    stop = lifecycle.stop_on_signals()
    dead_letters = DeadLetters(folder / "dead-letters.jsonl")
    filters = Topics(settings.mqtt.base_topic).all_readings()
    if arguments.dry_run:
        # A client id of its own, and no session: the readings of a sink that runs beside it stay that one's.
        probe = settings.mqtt.model_copy(update={"client_id": f"{settings.mqtt.client_id}-dry-run-{os.getpid()}"})
        connection = Connection(probe, stop=stop, subscriptions=map(Subscription, filters), persistent_session=False)
        store: Store = StandardOutput()
        health = Health(folder / f"health-{probe.client_id}")
    else:
        connection = Connection(
            settings.mqtt,
            stop=stop,
            subscriptions=[Subscription(filter_, retained_at_every_connect=False) for filter_ in filters],
            # With the broker's own limit of 20 a batch would never fill.
            receive_maximum=2 * settings.carbon.batch_size,
        )
        store = Carbon(settings.carbon.addresses)
        health = Health(health_file)
    CarbonSink(connection, store, settings.carbon, dead_letters, health).run(stop)
    return connection.exit_code


class StandardOutput:
    """Takes points as Carbon does, and prints them as its plaintext lines."""

    def write(self, points: Sequence[Point]) -> None:
        """Print points at once."""
        for point in points:
            print(point.path, point.value, point.timestamp)
        sys.stdout.flush()

    def uninterrupted(self) -> bool:
        """Return that what is printed is printed."""
        return True

    def close(self) -> None:
        """Leave standard output open."""


if __name__ == "__main__":
    sys.exit(main())
