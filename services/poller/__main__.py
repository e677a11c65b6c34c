"""Start poller: ``python -m services.poller``.

Libraries are imported where they are needed, so that ``--health`` and ``--help`` load neither paho nor requests.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from services.poller.settings import PollerSettings, parse_fingerprint
from shared import lifecycle, logs
from shared.checks import report
from shared.escape import escape
from shared.health import Health, check_health
from shared.lifecycle import ExitCode
from shared.settings import command_line, load
from shared.topics import Topics

DESCRIPTION = "Read an Enphase Envoy on the local network and publish its readings over MQTT."


def main() -> int:
    """Run the service, or do the one thing that the command line requests; return the exit code."""
    arguments = parse_arguments()
    settings = load(PollerSettings)
    logs.configure(settings.log.level, settings.log.format)
    lifecycle.restrict_new_files()
    state_dir = settings.state_dir / "poller"
    if arguments.health:
        return report([check_health(state_dir / "health", time.time())])
    if arguments.check:
        from services.poller.checks import run_checks
        from services.poller.trust import TrustStore

        return report(run_checks(settings, TrustStore(state_dir)))
    if arguments.accept_certificate:
        return accept_certificate(settings, state_dir, arguments.accept_certificate)
    if arguments.once:
        return print_once(settings, state_dir, pretty=arguments.pretty)
    return run_service(settings, state_dir)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = command_line("poller", DESCRIPTION, PollerSettings)
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--once", action="store_true", help="poll once and print the readings as JSON lines; needs no broker"
    )
    only.add_argument(
        "--check",
        action="store_true",
        help="check gateway, certificate, clock, credential and broker, report what is measured, and exit",
    )
    only.add_argument(
        "--accept-certificate",
        type=_fingerprint,
        metavar="FINGERPRINT",
        help="pin the certificate with this SHA-256 fingerprint for the gateway that presents it, and exit",
    )
    parser.add_argument("--pretty", action="store_true", help="with --once: print a table")
    arguments = parser.parse_args()
    if arguments.pretty and not arguments.once:
        parser.error("--pretty requires --once")
    return arguments


def _fingerprint(text: str) -> str:
    try:
        return parse_fingerprint(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run_service(settings: PollerSettings, state_dir: Path) -> int:
    """Run until a signal comes; return the exit code."""
    from services.poller.agenda import Agenda, phase_of
    from services.poller.polling import GatewayPoller
    from services.poller.publisher import GatewayPublisher
    from services.poller.service import Poller
    from services.poller.session import Session
    from services.poller.trust import TrustStore
    from shared.journal import Journal, JournalError
    from shared.mqtt import Connection, Subscription
    from shared.outbox import Outbox, subscriptions

    stop = lifecycle.stop_on_signals()
    topics = Topics(settings.mqtt.base_topic)
    subscribed = [Subscription(topics.token("+")), *subscriptions(topics, settings.journal)]
    connection = Connection(settings.mqtt, stop=stop, subscriptions=subscribed)
    limits = settings.journal
    try:
        journal = Journal(state_dir / "journal.sqlite", keep_days=limits.keep_days, max_mb=limits.max_mb)
    except JournalError as error:
        print(error, file=sys.stderr)
        return ExitCode.FAILED
    outbox = Outbox(connection, journal, settings.journal)
    trust = TrustStore(state_dir)

    def gateway_poller(number: int) -> GatewayPoller:
        phase = phase_of(number, len(settings.gateways))
        return GatewayPoller(
            Session(settings.gateways[number], trust),
            GatewayPublisher(connection),
            outbox.add,
            lambda: Agenda(settings.poll, time.time, phase),
        )

    gateways = [gateway_poller(number) for number in range(len(settings.gateways))]
    Poller(gateways, connection, outbox, Health(state_dir / "health")).run(stop)
    return connection.exit_code


def print_once(settings: PollerSettings, state_dir: Path, *, pretty: bool) -> int:
    """Poll each gateway once and print its readings, or on standard error what failed; return the exit code."""
    from services.poller.errors import GatewayError
    from services.poller.once import read_once
    from services.poller.session import Session
    from services.poller.trust import TrustStore

    code = ExitCode.STOPPED
    for gateway in settings.gateways:
        session = Session(gateway, TrustStore(state_dir))
        try:
            identity = session.find()
        except GatewayError as error:
            print(escape(str(error)), file=sys.stderr)
            code = ExitCode.FAILED
            continue
        result = read_once(session, settings.mqtt)
        if result.reader is None or not result.readings:
            reason = result.error or "no response is readable; run --check for the details"
            print(escape(f"gateway {identity.serial} at {session.envoy.base_url}: {reason}"), file=sys.stderr)
            code = ExitCode.FAILED
        elif pretty:
            from rich.console import Console

            from services.poller.table import print_table

            print_table(result.reader.info, result.readings, Console(markup=False, emoji=False))
        else:
            topics = Topics(settings.mqtt.base_topic)
            for reading in result.readings:
                topic = topics.reading(identity.serial, reading.kind)
                print(json.dumps({"topic": topic, "payload": json.loads(reading.to_json())}))
    return code


def accept_certificate(settings: PollerSettings, state_dir: Path, fingerprint: str) -> int:
    """Pin a certificate for each gateway that presents it, and print the result; return the exit code."""
    from services.poller.errors import GatewayError
    from services.poller.session import Session
    from services.poller.trust import TrustStore

    code = ExitCode.FAILED
    for gateway in settings.gateways:
        session = Session(gateway, TrustStore(state_dir))
        try:
            identity = session.accept_certificate(fingerprint)
        except GatewayError as error:
            print(escape(str(error)), file=sys.stderr)
        else:
            print(f"gateway {identity.serial} at {session.envoy.base_url}: its certificate {fingerprint} is pinned")
            code = ExitCode.STOPPED
    return code


if __name__ == "__main__":
    sys.exit(main())
