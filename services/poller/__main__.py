"""Start poller: ``python -m services.poller``."""

import json
import sys
import time

from services.poller.access import no_token, not_accepted, show_what_opens
from services.poller.certificates import PinStore
from services.poller.checks import run_checks
from services.poller.envoy import Envoy, GatewayError, TokenRejected
from services.poller.polling import GatewayPoller
from services.poller.reader import GatewayReader
from services.poller.schedule import Schedule, phase_of
from services.poller.service import Poller
from services.poller.settings import EnvoySettings, PollerSettings
from shared import lifecycle, logs
from shared.checks import report
from shared.health import Health, check_health
from shared.journal import Journal, JournalError
from shared.lifecycle import ExitCode
from shared.mqtt import Connection, Subscription
from shared.outbox import Outbox, subscriptions
from shared.settings import command_line, load
from shared.topics import Topics

WHAT_IT_DOES = "Read an Enphase Envoy on the local network and publish what it measures over MQTT."


def main() -> int:
    """Run the service, or do the one thing that the command line asks for; return the exit code."""
    parser = command_line("poller", WHAT_IT_DOES, PollerSettings)
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--once", action="store_true", help="poll once and print the readings as JSON lines; needs no broker"
    )
    only.add_argument(
        "--check", action="store_true", help="tell how gateway and broker fare and what is measured, and end"
    )
    parser.add_argument("--pretty", action="store_true", help="with --once: print a table for people instead")
    arguments = parser.parse_args()
    if arguments.pretty and not arguments.once:
        parser.error("--pretty goes with --once")
    settings = load(PollerSettings)
    logs.configure(settings.log.level, settings.log.format)
    pins = PinStore(settings.state_dir / "poller")
    health_file = settings.state_dir / "poller" / "health"
    if arguments.health:
        return report([check_health(health_file, time.time())])
    if arguments.check:
        return report(run_checks(settings, pins))
    if arguments.once:
        return max(_once(gateway, settings, pins, pretty=arguments.pretty) for gateway in settings.gateways)

    stop = lifecycle.stop_on_signals()
    topics = Topics(settings.mqtt.base_topic)
    wanted = [Subscription(topics.token("+")), *subscriptions(topics, settings.journal)]
    connection = Connection(settings.mqtt, stop=stop, subscriptions=wanted)
    kept = settings.journal
    try:
        journal = Journal(
            settings.state_dir / "poller" / "journal.sqlite", keep_days=kept.keep_days, max_mb=kept.max_mb
        )
    except JournalError as error:
        print(error, file=sys.stderr)
        return ExitCode.FAILED
    outbox = Outbox(connection, journal, settings.journal)
    gateways = [
        GatewayPoller(
            Envoy(gateway, pins),
            connection,
            outbox.add,
            Schedule(settings.poll, time.time, phase_of(number, len(settings.gateways))),
            token=gateway.token,
        )
        for number, gateway in enumerate(settings.gateways)
    ]
    Poller(gateways, connection, outbox, Health(health_file)).run(stop)
    return connection.exit_code


def _once(gateway: EnvoySettings, settings: PollerSettings, pins: PinStore, *, pretty: bool) -> int:
    envoy = Envoy(gateway, pins)
    try:
        identity = envoy.find()
    except GatewayError as error:
        print(error, file=sys.stderr)
        return ExitCode.FAILED
    opens = show_what_opens(envoy, identity, gateway, settings.mqtt)
    if opens is None:
        print(no_token(identity), file=sys.stderr)
        return ExitCode.FAILED
    reader = GatewayReader(envoy, identity)
    fault, readings = "", []
    try:
        readings = reader.read(only_once=True)
    except TokenRejected as error:
        fault = f"{error}; {not_accepted(identity, opens)}"
    except GatewayError as error:
        fault = str(error)
    else:
        if not readings:
            fault = "nothing that it answers can be read; --check tells more"
    if fault:
        print(f"gateway {identity.serial} at {envoy.base_url}: {fault}", file=sys.stderr)
        return ExitCode.FAILED
    if pretty:
        # Here, so that the service does without it in its memory.
        from rich.console import Console  # noqa: PLC0415

        from services.poller.table import print_table  # noqa: PLC0415

        print_table(reader.info, readings, Console())
        return ExitCode.STOPPED
    topics = Topics(settings.mqtt.base_topic)
    for reading in readings:
        topic = topics.reading(identity.serial, reading.kind)
        print(json.dumps({"topic": topic, "payload": json.loads(reading.to_json())}))
    return ExitCode.STOPPED


if __name__ == "__main__":
    sys.exit(main())
