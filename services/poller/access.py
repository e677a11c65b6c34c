"""How a gateway is let to let us in, once: with a password, a token by hand, or the one that the broker retains."""

import base64
import json
import threading
import time

from pydantic import SecretStr

from services.poller.envoy import Envoy, Identity
from services.poller.settings import EnvoySettings
from shared.messages import TokenMessage
from shared.mqtt import Connection, Message, Subscription
from shared.payload import InvalidPayload
from shared.settings import MqttSettings
from shared.topics import Topics

BROKERS_TOKEN_S = 5.0


def show_what_opens(envoy: Envoy, identity: Identity, gateway: EnvoySettings, mqtt: MqttSettings) -> str | None:
    """Show the gateway from now on what may open it, and return what that is, for people; None if there is nothing."""
    if not identity.needs_token:
        envoy.show_password(identity)
        return f"user {gateway.username} with " + (
            "ENVOY_PASSWORD" if gateway.password is not None else "the last six digits of the serial"
        )
    if gateway.token is not None:
        envoy.show_token(gateway.token)
        return "ENVOY_TOKEN"
    if (token := _brokers_token(mqtt, identity)) is not None:
        envoy.show_token(token)
        return f"the token at the broker {mqtt.host}:{mqtt.port}"
    return None


def no_token(identity: Identity) -> str:
    """Return what to do where nothing opens a gateway."""
    return (
        f"gateway {identity.serial} has firmware {identity.firmware} and wants a token: "
        "set ENVOY_TOKEN, or start token_broker and a broker"
    )


def not_accepted(identity: Identity, opens: str) -> str:
    """Return what to do where a gateway does not accept what it was shown."""
    what_to_do = "fetch another token" if identity.needs_token else "check ENVOY_USERNAME and ENVOY_PASSWORD"
    return f"it does not accept {opens}: {what_to_do}"


def may_open(message: TokenMessage, now: float) -> bool:
    """Return whether a token looks good: for its gateway, signed with ES256, not expired; the gateway alone knows."""
    try:
        header, claims, _signature = message.token.get_secret_value().split(".")
        algorithm, serial = _part(header).get("alg"), _part(claims).get("aud")
    except (ValueError, AttributeError):
        return False
    return algorithm == "ES256" and serial == message.serial and message.expires_at > now


def _part(text: str) -> dict[str, object]:
    """Return what a part of a JSON Web Token says. Raises ValueError."""
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))  # type: ignore[no-any-return]


def _brokers_token(mqtt: MqttSettings, identity: Identity) -> SecretStr | None:
    """Return the token that a broker retains for the gateway, if one is there and has it."""
    probe = mqtt.model_copy(update={"client_id": ""})
    topic = Topics(mqtt.base_topic).token(identity.serial)
    ends_at = time.monotonic() + BROKERS_TOKEN_S
    with Connection(
        probe, stop=threading.Event(), subscriptions=[Subscription(topic)], persistent_session=False
    ) as connection:
        while (left_s := ends_at - time.monotonic()) > 0:
            if isinstance(message := connection.receive(left_s), Message):
                try:
                    return TokenMessage.from_json(message.payload).token
                except InvalidPayload:
                    return None
    return None
