"""Start poller: ``python -m services.poller``."""

import json
import sys
import threading
import time

from pydantic import SecretStr

from services.poller.certificates import PinStore
from services.poller.envoy import Envoy, GatewayError, Identity
from services.poller.polling import GatewayPoller, reading_topic
from services.poller.reader import GatewayReader
from services.poller.schedule import Schedule, phase_of
from services.poller.service import Poller
from services.poller.settings import EnvoySettings, PollerSettings
from shared import lifecycle, logs
from shared.lifecycle import ExitCode
from shared.messages import TokenMessage
from shared.mqtt import Connection, Message, Subscription
from shared.payload import InvalidPayload
from shared.settings import command_line, load
from shared.topics import Topics

WHAT_IT_DOES = "Read an Enphase Envoy on the local network and publish what it measures over MQTT."
BROKERS_TOKEN_S = 5.0


def main() -> int:
    """Run the service, or do the one thing that the command line asks for; return the exit code."""
    parser = command_line("poller", WHAT_IT_DOES, PollerSettings)
    parser.add_argument(
        "--once", action="store_true", help="poll once and print the readings as JSON lines; needs no broker"
    )
    arguments = parser.parse_args()
    settings = load(PollerSettings)
    logs.configure(settings.log.level, settings.log.format)
    pins = PinStore(settings.state_dir / "poller")
    if arguments.once:
        return max(_once(Envoy(gateway, pins), gateway, settings) for gateway in settings.gateways)

    stop = lifecycle.stop_on_signals()
    tokens = Subscription(Topics(settings.mqtt.base_topic).token("+"))
    connection = Connection(settings.mqtt, stop=stop, subscriptions=[tokens])
    gateways = [
        GatewayPoller(
            Envoy(gateway, pins),
            connection,
            Schedule(settings.poll, time.time, phase_of(number, len(settings.gateways))),
            token=gateway.token,
        )
        for number, gateway in enumerate(settings.gateways)
    ]
    Poller(gateways, connection).run(stop)
    return ExitCode.TAKEN_OVER if connection.taken_over else ExitCode.STOPPED


def _once(envoy: Envoy, gateway: EnvoySettings, settings: PollerSettings) -> int:
    topics = Topics(settings.mqtt.base_topic)
    try:
        identity = envoy.find()
        if not identity.needs_token:
            envoy.show_password(identity)
        elif (token := gateway.token or _brokers_token(settings, identity)) is not None:
            envoy.show_token(token)
        else:
            print(
                f"gateway {identity.serial} has firmware {identity.firmware} and wants a token: "
                "set ENVOY_TOKEN, or start token_broker and a broker",
                file=sys.stderr,
            )
            return ExitCode.FAILED
        readings = GatewayReader(envoy, identity).read()
    except GatewayError as error:
        print(error, file=sys.stderr)
        return ExitCode.FAILED
    for reading in readings:
        topic = reading_topic(topics, identity.serial, reading)
        print(json.dumps({"topic": topic, "payload": json.loads(reading.to_json())}))
    return ExitCode.STOPPED


def _brokers_token(settings: PollerSettings, identity: Identity) -> SecretStr | None:
    """Return the token that a broker retains for the gateway, if one is there and has it."""
    passer_by = settings.mqtt.model_copy(update={"client_id": ""})
    topic = Topics(settings.mqtt.base_topic).token(identity.serial)
    ends_at = time.monotonic() + BROKERS_TOKEN_S
    with Connection(
        passer_by, stop=threading.Event(), subscriptions=[Subscription(topic)], lasting=False
    ) as connection:
        while (left_s := ends_at - time.monotonic()) > 0:
            if isinstance(message := connection.receive(left_s), Message):
                try:
                    return TokenMessage.from_json(message.payload).token
                except InvalidPayload:
                    return None
    return None


if __name__ == "__main__":
    sys.exit(main())
