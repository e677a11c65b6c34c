"""One poll outside the service: for ``--once`` and ``--check``."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from services.poller.agenda import Agenda
from services.poller.credentials import Credential, rejection_hint
from services.poller.errors import GatewayError, TokenRejected
from services.poller.reader import GatewayReader
from services.poller.session import Session
from services.poller.settings import PollSettings
from shared.mqtt import Connection, Message, Subscription
from shared.payload import InvalidPayload
from shared.readings import Reading
from shared.settings import MqttSettings
from shared.tokens import Token
from shared.topics import Topics

RETAINED_TOKEN_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Result:
    """What one poll gave."""

    credential: Credential | None = None
    """What the gateway accepted."""
    reader: GatewayReader | None = None
    readings: Sequence[Reading] = ()
    error: str = ""
    """What failed and what to do; empty if nothing did."""


def read_once(session: Session, mqtt: MqttSettings) -> Result:
    """Authenticate to a gateway that was found, read everything once, and return the result."""
    credential = authenticate_once(session, mqtt)
    if credential is None or session.identity is None:
        return Result(error=session.missing_token_hint())
    reader = GatewayReader(session.envoy, session.identity, Agenda(PollSettings(), time.time), session.clock)
    try:
        readings = reader.read(will_retry=False)
    except TokenRejected as error:
        return Result(error=f"{error}; {rejection_hint(credential)}")
    except GatewayError as error:
        return Result(credential, error=f"{error}; is it starting up, or are too many clients reading it?")
    return Result(credential, reader, readings)


def authenticate_once(session: Session, mqtt: MqttSettings) -> Credential | None:
    """Attach a credential and return it; the broker is tried for a token if there is no other."""
    credential = session.authenticate()
    if credential is None and session.identity is not None:
        token = fetch_retained_token(mqtt, session.identity.serial)
        if token is not None:
            session.offer_token(token)
            credential = session.authenticate()
    return credential


def fetch_retained_token(mqtt: MqttSettings, serial: str) -> Token | None:
    """Return the token that the broker retains for a gateway; None if it has none or cannot be reached."""
    topic = Topics(mqtt.base_topic).token(serial)
    ends_at = time.monotonic() + RETAINED_TOKEN_TIMEOUT_S
    with Connection(
        mqtt.model_copy(update={"client_id": ""}),
        stop=threading.Event(),
        subscriptions=[Subscription(topic)],
        persistent_session=False,
    ) as connection:
        while (left_s := ends_at - time.monotonic()) > 0:
            if isinstance(message := connection.receive(left_s), Message):
                try:
                    token = Token.from_json(message.payload)
                except InvalidPayload:
                    return None
                return token if token.serial == serial else None
    return None
