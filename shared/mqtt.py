"""One MQTT 5 connection that reconnects by itself, with will, birth, subscriptions and manual acknowledgements.

What a caller must know:

- The connection is kept from :meth:`Connection.start` to :meth:`Connection.stop`. Each connect and each loss begins a
  new *generation*, and a received message belongs to one: after a reconnect packet identifiers start again, so a late
  acknowledgement would acknowledge another message. :meth:`Connection.acknowledge` refuses those.
- The network thread only fills an inbox, which :meth:`Connection.receive` empties: an exception in one of paho's
  callbacks would end that thread silently. Whatever is not acknowledged is delivered again after the next reconnect.
- A publication that the broker refuses is not delivered, although MQTT acknowledges it: check its
  :class:`Publication`.
- After a reconnect paho resends what was not acknowledged, except publications with ``resend=False``: these are given
  back with :class:`ConnectionClosed`, for publishers that keep a queue of their own.

The facts behind it are paho-mqtt 2.2.0's source and measurements against Mosquitto 2.0 and 2.1.
"""

import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from shared.backoff import jittered_s
from shared.lifecycle import ExitCode
from shared.messages import OFFLINE, ONLINE
from shared.paho_client import PahoClient, new_properties
from shared.settings import MqttSettings
from shared.topics import Topics

logger = logging.getLogger(__name__)

JSON_CONTENT_TYPE = "application/json"

KEEPALIVE_S = 20
"""A half-open connection is noticed after one to one and a half times this."""

SESSION_EXPIRY_S = 7 * 86_400
"""How long the broker keeps the session of a disconnected service, and queues messages for it."""

MIN_RECONNECT_DELAY_S, MAX_RECONNECT_DELAY_S = 1, 30
MAX_REFUSED_DELAY_S = 60
"""Between attempts with credentials that the broker refuses: some brokers lock out clients that retry too often."""

NETWORK_THREAD_STOP_TIMEOUT_S = 2.0
"""paho checks every second whether its thread should end."""

NO_MATCHING_SUBSCRIBERS = 0x10
SESSION_TAKEN_OVER = 0x8E
FIRST_FAILURE = 0x80
BAD_CREDENTIALS = (0x86, 0x87)
"""Bad user name or password; not authorized."""

MAX_MQTT_PACKET_BYTES = 2**28 - 1

MAX_QUEUED = 60_000
"""Publications kept in memory while the broker is away; MQTT has 65,535 packet identifiers."""


class MqttError(Exception):
    """A publication was not accepted by the broker, as far as is known."""


class QueueFull(MqttError):
    """Too many publications wait for the broker; this one was not queued, so publish it later."""


class ConnectionClosed(MqttError):
    """The connection was lost or closed before the broker acknowledged; it may or may not have the publication."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic filter, and whether its retained messages are sent at every connect or only for a new subscription."""

    topic_filter: str
    retained_at_every_connect: bool = True


@dataclass(frozen=True, slots=True)
class Message:
    """A received message; acknowledge it with :meth:`Connection.acknowledge`."""

    topic: str
    payload: bytes
    retained: bool
    user_properties: Mapping[str, str]
    generation: int
    packet_id: int


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection was made, for the first time or again: the broker may have lost what it retained."""


@dataclass(frozen=True, slots=True)
class Publication:
    """The broker's acknowledgement of a publication."""

    reason_code: int
    reason: str

    @property
    def accepted(self) -> bool:
        """True if the broker accepted it, also without any subscriber."""
        return self.reason_code < FIRST_FAILURE

    @property
    def reached_a_subscriber(self) -> bool:
        """True if the broker had a subscriber for it; RabbitMQ and rumqttd do not report this and it is always true."""
        return self.accepted and self.reason_code != NO_MATCHING_SUBSCRIBERS


@dataclass(slots=True)
class _State:
    """What the network thread and the callers' threads share."""

    generation: int = 0
    connected: threading.Event = field(default_factory=threading.Event)
    taken_over: bool = False
    failed: bool = False
    connect_error: str | None = None
    publish_error: str | None = None
    """The last ones logged, so that each is logged once in a row."""
    max_packet_bytes: int = MAX_MQTT_PACKET_BYTES
    generation_lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the generation changes and while a message is acknowledged."""


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
            stop: set by the connection when another program takes over the client id, or when the network thread
                fails, so that the service ends.
            subscriptions: filters subscribed at every connect.
            receive_maximum: how many unacknowledged messages the broker may send; the broker's own limit if None.
            persistent_session: true for a service, which has a status topic and a session that outlives the process;
                false for a probe.
        """
        self.topics = Topics(settings.base_topic)
        self.client_id = settings.client_id
        self.persistent_session = persistent_session
        self._settings = settings
        self._stop = stop
        self._subscriptions = tuple(subscriptions)
        self._inbox: queue.SimpleQueue[Message | Connected] = queue.SimpleQueue()
        self._state = _State()
        self._unacknowledged: dict[int, Future[Publication]] = {}
        """Publications by packet identifier."""
        # paho doubles the delay and adds no jitter; a random maximum keeps services from reconnecting in step.
        self._max_reconnect_delay_s = math.ceil(jittered_s(MAX_RECONNECT_DELAY_S))
        self._connect_properties = new_properties(PacketTypes.CONNECT)
        self._connect_properties.SessionExpiryInterval = SESSION_EXPIRY_S if persistent_session else 0
        if receive_maximum is not None:
            self._connect_properties.ReceiveMaximum = receive_maximum
        self._client = self._new_client()

    def _new_client(self) -> PahoClient:
        settings = self._settings
        client = PahoClient(
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
        client.reconnect_delay_set(MIN_RECONNECT_DELAY_S, self._max_reconnect_delay_s)
        client.max_queued_messages_set(MAX_QUEUED)
        client.on_network_thread_error = self._on_network_thread_error
        client.on_pre_connect = self._on_pre_connect
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start to connect, and to reconnect whenever the connection is lost; returns at once."""
        # paho's default is a clean start the first time, and Mosquitto then loses the subscription when it restarts.
        self._client.connect_async(
            self._settings.host,
            self._settings.port,
            keepalive=KEEPALIVE_S,
            clean_start=not self.persistent_session,
            properties=self._connect_properties,
        )
        self._client.loop_start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Publish ``offline``, wait for outstanding acknowledgements and disconnect, within the timeout."""
        ends_at = time.monotonic() + timeout_s
        acknowledged_by = ends_at - NETWORK_THREAD_STOP_TIMEOUT_S
        if self.connected and self.persistent_session and not self._state.taken_over:
            self._publish_status(OFFLINE)
        while self.connected and self._unacknowledged and (left_s := acknowledged_by - time.monotonic()) > 0:
            wait(list(self._unacknowledged.values()), timeout=min(left_s, 0.1))
        if unacknowledged := len(self._unacknowledged):
            logger.warning("the broker did not acknowledge %d publications before the shutdown", unacknowledged)
        # paho's thread does not end while anything is unacknowledged, nor soon where the broker hangs.
        self._client.drop_out_messages()
        self._client.disconnect()
        stopping = threading.Thread(target=self._client.loop_stop, daemon=True)
        stopping.start()
        stopping.join(max(NETWORK_THREAD_STOP_TIMEOUT_S, ends_at - time.monotonic()))
        for future in list(self._unacknowledged.values()):
            future.set_exception(ConnectionClosed("closed before the broker acknowledged"))
        self._unacknowledged.clear()

    @property
    def connected(self) -> bool:
        """True from a successful CONNECT to the loss of that connection."""
        return self._state.connected.is_set()

    @property
    def connect_error(self) -> str | None:
        """Why the last attempt to connect failed and what to do; None before the first and while connected."""
        return self._state.connect_error

    @property
    def backlog(self) -> int:
        """How many messages came that :meth:`receive` has not returned yet."""
        return self._inbox.qsize()

    @property
    def taken_over(self) -> bool:
        """True once another program has connected with the same client id."""
        return self._state.taken_over

    @property
    def exit_code(self) -> ExitCode:
        """The exit code for a service that stopped because its ``stop`` event was set."""
        if self.taken_over:
            return ExitCode.TAKEN_OVER
        return ExitCode.FAILED if self._state.failed else ExitCode.STOPPED

    @property
    def max_packet_bytes(self) -> int:
        """The largest packet that the broker accepts; it closes the connection over a larger one."""
        return self._state.max_packet_bytes

    def wait_until_connected(self, timeout_s: float) -> bool:
        """Return whether the connection was made within the timeout."""
        return self._state.connected.wait(timeout_s)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        content_type: str | None = JSON_CONTENT_TYPE,
        expiry_s: int | None = None,
        user_properties: Mapping[str, str] | None = None,
        resend: bool = True,
    ) -> Future[Publication]:
        """Publish with QoS 1, now or once connected, and return the future of the broker's acknowledgement.

        Args:
            topic: the topic.
            payload: what to publish; empty with ``retain`` removes the retained message.
            retain: whether the broker keeps it for later subscribers.
            content_type: None for plain text.
            expiry_s: after how many seconds the broker drops it; never if None.
            user_properties: sent with the payload.
            resend: whether it is resent after a reconnect; otherwise the future then raises ConnectionClosed.

        Raises:
            QueueFull: nothing was published.
        """
        properties = new_properties(PacketTypes.PUBLISH, resend=resend)
        if content_type is not None:
            properties.ContentType = content_type
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        if user_properties:
            properties.UserProperty = list(user_properties.items())
        published = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        if published.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            raise QueueFull(f"{MAX_QUEUED} publications wait for the broker")
        return self._future_of(published.mid)

    def _publish_status(self, status: bytes) -> None:
        self.publish(self.topics.service_status(self.client_id), status, retain=True, content_type=None)

    def receive(self, timeout_s: float) -> Message | Connected | None:
        """Return the next message or connect, or None if none comes within the timeout."""
        try:
            return self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def is_current(self, message: Message) -> bool:
        """Return whether a message came on this connection; otherwise the broker delivers it again."""
        return message.generation == self._state.generation

    def acknowledge(self, message: Message) -> bool:
        """Acknowledge a message; return False if its connection is gone, so that the broker delivers it again."""
        with self._state.generation_lock:
            if not self.is_current(message):
                return False
            self._client.ack(message.packet_id, 1)
            return True

    def _future_of(self, packet_id: int) -> Future[Publication]:
        # The acknowledgement may come before publish() returns. publish() holds a lock of paho's that on_publish needs
        # too, so a lock here could deadlock. setdefault is atomic: the second to come gets the first one's future.
        new: Future[Publication] = Future()
        future = self._unacknowledged.setdefault(packet_id, new)
        if future is not new:
            del self._unacknowledged[packet_id]
        return future

    def _on_publish(
        self, _client: Client, _userdata: object, packet_id: int, reason_code: ReasonCode, _properties: Properties
    ) -> None:
        publication = Publication(reason_code.value, str(reason_code))
        if not publication.accepted and publication.reason != self._state.publish_error:
            logger.error("the broker refused a publication: %s; check its access rules", publication.reason)
            self._state.publish_error = publication.reason
        self._future_of(packet_id).set_result(publication)

    def _on_pre_connect(self, _client: Client, _userdata: object) -> None:
        for packet_id in self._client.remove_not_resent():
            self._future_of(packet_id).set_exception(ConnectionClosed("lost before the broker acknowledged"))

    def _on_connect(
        self,
        client: Client,
        _userdata: object,
        _flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason_code.is_failure:
            hint = "; check MQTT_USERNAME and MQTT_PASSWORD" if reason_code.value in BAD_CREDENTIALS else ""
            self._warn_once(f"refused the connection: {reason_code}{hint}")
            delay_s = math.ceil(jittered_s(MAX_REFUSED_DELAY_S))
            client.reconnect_delay_set(delay_s, delay_s)
            return
        client.reconnect_delay_set(MIN_RECONNECT_DELAY_S, self._max_reconnect_delay_s)
        self._start_generation()
        for subscription in self._subscriptions:
            handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
            if not subscription.retained_at_every_connect:
                handling = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
            client.subscribe(subscription.topic_filter, options=SubscribeOptions(qos=1, retainHandling=handling))
        self._state.connect_error = self._state.publish_error = None
        self._state.max_packet_bytes = getattr(properties, "MaximumPacketSize", MAX_MQTT_PACKET_BYTES)
        logger.info("connected to the broker at %s:%d", self._settings.host, self._settings.port)
        if self.persistent_session:
            self._publish_status(ONLINE)  # before anything else is published
        self._state.connected.set()
        self._inbox.put(Connected())

    def _on_connect_fail(self, _client: Client, _userdata: object) -> None:
        error = self._client.connect_error
        reason = (error.strerror or str(error)) if error else "no response"
        self._warn_once(f"cannot be reached: {reason}; is it running, and are MQTT_HOST and MQTT_PORT right?")

    def _on_disconnect(
        self,
        client: Client,
        _userdata: object,
        _flags: DisconnectFlags,
        reason_code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._start_generation()
        self._clear_inbox()
        if self.connected:
            self._state.connected.clear()
            if reason_code.is_failure:
                logger.warning("lost the connection to the broker: %s; reconnecting", reason_code)
        if reason_code.value == SESSION_TAKEN_OVER:
            logger.error(
                "another program uses the client id %r; stopping: give each its own MQTT_CLIENT_ID", self.client_id
            )
            self._state.taken_over = True
            client.disconnect()
            self._stop.set()

    def _start_generation(self) -> None:
        with self._state.generation_lock:
            self._state.generation += 1

    def _clear_inbox(self) -> None:
        """Drop the backlog: all of it is delivered again, and every reconnect would add as much."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()

    def _on_network_thread_error(self, error: Exception) -> None:
        logger.error("the connection to the broker failed unexpectedly (%r); stopping, to be restarted", error)
        self._start_generation()
        self._state.connected.clear()
        self._state.failed = True
        self._stop.set()

    def _on_subscribe(
        self, _client: Client, _userdata: object, _packet_id: int, reasons: list[ReasonCode], _properties: Properties
    ) -> None:
        for reason in reasons:
            if reason.is_failure:
                logger.error("the broker refused a subscription: %s; check its access rules", reason)

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        generation, payload = self._state.generation, bytes(message.payload)
        properties = dict(getattr(message.properties, "UserProperty", ()))
        self._inbox.put(Message(message.topic, payload, message.retain, properties, generation, message.mid))

    def _warn_once(self, reason: str) -> None:
        if reason != self._state.connect_error:
            host, port = self._settings.host, self._settings.port
            logger.warning("the broker at %s:%d %s; retrying", host, port, reason)
            self._state.connect_error = reason
