"""One MQTT 5 connection that keeps itself up: will, birth, subscriptions, reason codes, acknowledgements, shutdown.

What a caller has to know:

- It stays connected for as long as it lives; :attr:`Connection.generation` counts the connections. A message belongs to
  the generation in which it came, and :meth:`Connection.acknowledge` refuses any other: after a reconnect packet
  identifiers start again, and a late acknowledgement would acknowledge somebody else's message.
- The network thread only fills an inbox, which :meth:`Connection.receive` empties: an exception in a callback of paho's
  would end that thread unnoticed. Whatever is not acknowledged comes again after the next reconnect.
- A publication that the broker refuses is not delivered, although MQTT acknowledges it: look at its
  :class:`Publication`.
- paho publishes again what a lost connection left unanswered, except readings of a journal: these are given back with
  :class:`ConnectionClosed`, because only their journal knows what is on its way and what has meanwhile become late.

The facts behind it are paho-mqtt 2.2.0's source and measurements against Mosquitto 2.0 and 2.1.
"""

import contextlib
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from shared.lifecycle import ExitCode
from shared.messages import OFFLINE, ONLINE
from shared.settings import MqttSettings
from shared.topics import Topics

logger = logging.getLogger(__name__)

KEEPALIVE_S = 20
"""A half-open connection is noticed after one to one and a half of these."""

SESSION_EXPIRY_S = 7 * 86_400
"""How long the broker keeps what it owes us while we are away."""

RECONNECT_MIN_S, RECONNECT_MAX_S = 1, 30
REFUSED_MIN_S, REFUSED_MAX_S = 30, 60
"""Between attempts with credentials that the broker refuses: some lock out whoever tries them too often."""

NETWORK_THREAD_ENDS_IN_S = 2.0
"""paho looks every second whether it should end."""

NO_MATCHING_SUBSCRIBERS = 0x10
SESSION_TAKEN_OVER = 0x8E
FIRST_FAILURE = 0x80
NO_LIMIT_BYTES = 2**28 - 1
"""The largest packet there is in MQTT."""

MAX_QUEUED = 60_000
"""Publications kept in memory while the broker is away; MQTT has 65,535 packet identifiers."""


class MqttError(Exception):
    """The broker did not take what was published."""


class TooManyWaiting(MqttError):  # noqa: N818 - what the caller meets
    """As many publications wait for the broker as can: keep this one and publish it later."""


class ConnectionClosed(MqttError):  # noqa: N818 - what the caller meets
    """The connection was lost or closed before the broker acknowledged; it may have taken the publication or not."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A filter, and whether its retained messages are wanted at every connect or only when it is new to the broker."""

    topic_filter: str
    retained_at_every_connect: bool = True


@dataclass(frozen=True, slots=True)
class Message:
    """A message that waits for :meth:`Connection.acknowledge`."""

    topic: str
    payload: bytes
    retained: bool
    user_properties: Mapping[str, str]
    generation: int
    packet_id: int


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection was made, for the first time or again: the broker may have forgotten what it retained."""

    generation: int


@dataclass(frozen=True, slots=True)
class Publication:
    """What the broker answered to a publication."""

    reason_code: int
    reason: str

    @property
    def accepted(self) -> bool:
        """True if the broker took it, also when nobody listens."""
        return self.reason_code < FIRST_FAILURE

    @property
    def reached_a_subscriber(self) -> bool:
        """True if the broker took it for somebody; not every broker tells (RabbitMQ and rumqttd always say so)."""
        return self.accepted and self.reason_code != NO_MATCHING_SUBSCRIBERS


@dataclass(slots=True)
class _State:
    """What the network thread and its callers share."""

    generation: int = 0
    connected: threading.Event = field(default_factory=threading.Event)
    taken_over: bool = False
    died: bool = False
    last_refusal: str | None = None
    maximum_packet_bytes: int = NO_LIMIT_BYTES
    acknowledging: threading.Lock = field(default_factory=threading.Lock)


class _Client(Client):
    """A paho client whose network thread does not die unnoticed: its ``is_connected()`` then stays true for ever.

    Met with malformed packets, among others: eclipse-paho/paho.mqtt.python#867.
    """

    died: Callable[[Exception], None]

    def loop_forever(self, *arguments: Any, **keywords: Any) -> MQTTErrorCode:
        """Run the network thread, and tell what ended it."""
        try:
            return super().loop_forever(*arguments, **keywords)
        except Exception as error:  # noqa: BLE001 - whatever it was, nobody else hears of it
            self.died(error)
            return MQTTErrorCode.MQTT_ERR_UNKNOWN

    def take_back_journalled(self) -> list[int]:
        """Take out of the queue what its publisher keeps in a journal, and return the packet identifiers.

        Only before a new connection is made, when nothing counts as being on its way.
        """
        with self._out_message_mutex:
            taken = [message.mid for message in self._out_messages.values() if "journal" in _user_properties(message)]
            for packet_id in taken:
                del self._out_messages[packet_id]
        return taken


class Connection:
    """A connection to the broker, opened by :meth:`start` or ``with`` and kept until :meth:`stop`."""

    def __init__(
        self,
        settings: MqttSettings,
        *,
        stop: threading.Event,
        subscriptions: Iterable[Subscription] = (),
        receive_maximum: int | None = None,
        persistent_session: bool = True,
    ) -> None:
        """Prepare the connection; nothing is opened yet.

        Args:
            settings: broker, credentials, base topic and client id.
            stop: set by us when another program takes over our client id, or the network thread dies, so that the
                service ends.
            subscriptions: filters subscribed anew at every connect.
            receive_maximum: messages the broker may have unacknowledged with us; the broker's own limit if None.
            persistent_session: true for a service, which has a status topic and a session that
                outlives the process; false for a probe.
        """
        self.topics = Topics(settings.base_topic)
        self.client_id = settings.client_id
        self._settings = settings
        self._stop = stop
        self._subscriptions = tuple(subscriptions)
        self._inbox: queue.SimpleQueue[Message | Connected] = queue.SimpleQueue()
        self.persistent_session = persistent_session
        self._state = _State()
        self._unanswered: dict[int, Future[Publication]] = {}
        # paho doubles the delay and adds no jitter; a maximum of our own keeps services from returning in step.
        self._reconnect_max_s = random.randint(RECONNECT_MAX_S // 2, RECONNECT_MAX_S)  # noqa: S311
        self._connect_properties = _properties(PacketTypes.CONNECT)
        self._connect_properties.SessionExpiryInterval = SESSION_EXPIRY_S if persistent_session else 0
        if receive_maximum is not None:
            self._connect_properties.ReceiveMaximum = receive_maximum
        self._client = self._paho_client()

    def _paho_client(self) -> _Client:
        settings = self._settings
        client = _Client(
            CallbackAPIVersion.VERSION2, settings.client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True
        )
        if settings.username is not None:
            client.username_pw_set(
                settings.username, settings.password.get_secret_value() if settings.password else None
            )
        if settings.tls:
            client.tls_set(ca_certs=str(settings.ca_file) if settings.ca_file else None)
        if self.persistent_session:
            client.will_set(self.topics.service_status(self.client_id), OFFLINE, qos=1, retain=True)
        client.reconnect_delay_set(RECONNECT_MIN_S, self._reconnect_max_s)
        client.died = self._died
        client.max_queued_messages_set(MAX_QUEUED)
        client.on_pre_connect = self._give_back
        client.on_connect = self._connected
        client.on_connect_fail = self._connect_failed
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_message = self._received
        client.on_publish = self._answered
        return client

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to connect, and to reconnect whenever the connection is lost; returns at once."""
        # paho's default starts clean at first, and Mosquitto then forgets the subscription when it restarts.
        self._client.connect_async(
            self._settings.host,
            self._settings.port,
            keepalive=KEEPALIVE_S,
            clean_start=not self.persistent_session,
            properties=self._connect_properties,
        )
        self._client.loop_start()

    def stop(self, deadline_s: float = 5.0) -> None:
        """Wait for the broker's answers, say ``offline``, disconnect; none of it longer than the deadline."""
        ends_at = time.monotonic() + deadline_s
        answers_until = ends_at - NETWORK_THREAD_ENDS_IN_S
        if self.connected and self.persistent_session and not self._state.taken_over:
            self.publish(self.topics.service_status(self.client_id), OFFLINE, retain=True)
        while self.connected and self._unanswered and (left_s := answers_until - time.monotonic()) > 0:
            wait(list(self._unanswered.values()), timeout=min(left_s, 0.1))
        if unanswered := len(self._unanswered):
            logger.warning("%d publications were not acknowledged by the broker before the end", unanswered)
        # paho's thread does not end while anything is unacknowledged, nor soon where the broker hangs.
        self._client.drop_out_messages()
        self._client.disconnect()
        ending = threading.Thread(target=self._client.loop_stop, daemon=True)
        ending.start()
        ending.join(max(NETWORK_THREAD_ENDS_IN_S, ends_at - time.monotonic()))
        for future in list(self._unanswered.values()):
            future.set_exception(ConnectionClosed("closed before the broker acknowledged"))
        self._unanswered.clear()

    @property
    def connected(self) -> bool:
        """True between a successful CONNECT and the loss of that connection."""
        return self._state.connected.is_set()

    @property
    def generation(self) -> int:
        """How many times the connection was made or lost."""
        return self._state.generation

    @property
    def waiting(self) -> int:
        """How much came that nobody has received yet."""
        return self._inbox.qsize()

    @property
    def taken_over(self) -> bool:
        """True once another program has connected with our client id."""
        return self._state.taken_over

    @property
    def exit_code(self) -> ExitCode:
        """What a service that has ended tells whoever started it."""
        if self.taken_over:
            return ExitCode.TAKEN_OVER
        return ExitCode.FAILED if self._state.died else ExitCode.STOPPED

    @property
    def maximum_packet_bytes(self) -> int:
        """The largest packet that the broker takes; it ends the connection over a larger one."""
        return self._state.maximum_packet_bytes

    def wait_until_connected(self, timeout_s: float) -> bool:
        """Return whether the connection stood within the time."""
        return self._state.connected.wait(timeout_s)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        expiry_s: int | None = None,
        user_properties: Mapping[str, str] | None = None,
    ) -> Future[Publication]:
        """Publish with QoS 1, now or when the broker is back, and return what will hold its answer.

        With a user property ``journal`` it is given back instead when the connection is lost: ConnectionClosed.

        Raises:
            TooManyWaiting: nothing was published.
        """
        properties = _properties(PacketTypes.PUBLISH)
        if payload.startswith(b"{"):
            properties.ContentType = "application/json"
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        if user_properties:
            properties.UserProperty = list(user_properties.items())
        sent = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        if sent.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            raise TooManyWaiting(f"{MAX_QUEUED} publications wait for the broker")
        return self._future_for(sent.mid)

    def receive(self, timeout_s: float) -> Message | Connected | None:
        """Return what came next, or None if nothing did within the time."""
        try:
            return self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def acknowledge(self, message: Message) -> bool:
        """Tell the broker that it need not send a message again; False if its connection is gone and it will."""
        with self._state.acknowledging:
            if message.generation != self._state.generation:
                return False
            self._client.ack(message.packet_id, 1)
            return True

    def _future_for(self, packet_id: int) -> Future[Publication]:
        # The answer may overtake publish(), which holds a lock of paho's that the answer's callback holds too, so a
        # lock of ours could deadlock. setdefault is atomic: whoever comes second finds the first one's future.
        mine: Future[Publication] = Future()
        future = self._unanswered.setdefault(packet_id, mine)
        if future is not mine:
            del self._unanswered[packet_id]
        return future

    def _answered(
        self, _client: Client, _userdata: object, packet_id: int, reason_code: ReasonCode, _properties: Properties
    ) -> None:
        answer = Publication(reason_code.value, str(reason_code))
        if not answer.accepted and answer.reason != self._state.last_refusal:
            logger.error("the broker refuses what we publish: %s; check its access rules", answer.reason)
            self._state.last_refusal = answer.reason
        self._future_for(packet_id).set_result(answer)

    def _give_back(self, _client: Client, _userdata: object) -> None:
        for packet_id in self._client.take_back_journalled():
            self._future_for(packet_id).set_exception(ConnectionClosed("lost before the broker acknowledged"))

    def _connected(
        self,
        client: Client,
        _userdata: object,
        _flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason_code.is_failure:
            self._tell_once(f"{reason_code}; check MQTT_USERNAME and MQTT_PASSWORD")
            delay_s = random.randint(REFUSED_MIN_S, REFUSED_MAX_S)  # noqa: S311
            client.reconnect_delay_set(delay_s, delay_s)
            return
        client.reconnect_delay_set(RECONNECT_MIN_S, self._reconnect_max_s)
        with self._state.acknowledging:
            self._state.generation += 1
        for subscription in self._subscriptions:
            handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
            if not subscription.retained_at_every_connect:
                handling = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
            client.subscribe(subscription.topic_filter, options=SubscribeOptions(qos=1, retainHandling=handling))
        self._state.last_refusal = None
        self._state.maximum_packet_bytes = getattr(properties, "MaximumPacketSize", NO_LIMIT_BYTES)
        self._state.connected.set()
        logger.info("connected to the broker at %s:%d", self._settings.host, self._settings.port)
        if self.persistent_session:
            self.publish(self.topics.service_status(self.client_id), ONLINE, retain=True)
        self._inbox.put(Connected(self._state.generation))

    def _connect_failed(self, _client: Client, _userdata: object) -> None:
        self._tell_once("no answer; is it running, are MQTT_HOST and MQTT_PORT right?")

    def _disconnected(
        self,
        client: Client,
        _userdata: object,
        _flags: DisconnectFlags,
        reason_code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        with self._state.acknowledging:
            self._state.generation += 1
        self._forget_inbox()
        if self.connected:
            self._state.connected.clear()
            if reason_code.is_failure:
                logger.warning("lost the broker: %s; reconnecting", reason_code)
        if reason_code.value == SESSION_TAKEN_OVER:
            logger.error("another program uses the client id %r; ending. MQTT_CLIENT_ID tells us apart", self.client_id)
            self._state.taken_over = True
            client.disconnect()
            self._stop.set()

    def _forget_inbox(self) -> None:
        """Drop what nobody has received yet: all of it comes again, and every reconnect would add as much."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()

    def _died(self, error: Exception) -> None:
        logger.error("the connection to the broker broke down (%r); ending, to be started again", error)
        with self._state.acknowledging:
            self._state.generation += 1
        self._state.connected.clear()
        self._state.died = True
        self._stop.set()

    def _subscribed(
        self, _client: Client, _userdata: object, _packet_id: int, reasons: list[ReasonCode], _properties: Properties
    ) -> None:
        for reason in reasons:
            if reason.is_failure:
                logger.error("the broker refuses our subscription: %s; check its access rules", reason)

    def _received(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        generation, payload, properties = self._state.generation, bytes(message.payload), _user_properties(message)
        self._inbox.put(Message(message.topic, payload, message.retain, properties, generation, message.mid))

    def _tell_once(self, reason: str) -> None:
        if reason != self._state.last_refusal:
            host, port = self._settings.host, self._settings.port
            logger.warning("cannot connect to the broker at %s:%d: %s Trying on.", host, port, reason)
            self._state.last_refusal = reason


def _user_properties(message: MQTTMessage) -> dict[str, str]:
    return dict(getattr(message.properties, "UserProperty", ()))


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]  # paho leaves its constructor untyped
