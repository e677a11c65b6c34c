"""Polls a gateway on time and publishes what it measures; waits, asks and tries again where it cannot."""

import logging
import random
import threading
import time
from collections.abc import Callable

from pydantic import SecretStr

from services.poller.envoy import Envoy, GatewayError, GatewayUnavailable, Identity, TokenRejected
from services.poller.reader import Cycle, GatewayReader
from services.poller.settings import PollSettings
from shared.messages import OFFLINE, ONLINE, GatewayInfo, TokenMessage, TokenRequest
from shared.mqtt import Connected, Connection, Message, TooManyWaiting
from shared.payload import InvalidPayload
from shared.readings import Reading
from shared.topics import Topics

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 1.0
"""A stop is noticed at least this soon."""

FIRST_RETRY_S, LAST_RETRY_S = 2.0, 60.0
RETAINED_TOKEN_S = 2.0
"""A retained token arrives at once; without one by then it is asked for."""

ASK_AGAIN_S = 300.0


class Poller:
    """The work of poller, for one gateway."""

    def __init__(
        self,
        envoy: Envoy,
        connection: Connection,
        settings: PollSettings,
        *,
        token: SecretStr | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the work.

        Args:
            envoy: the gateway.
            connection: to the broker, subscribed to tokens.
            settings: how often to ask.
            token: a token by hand; otherwise the broker's is waited for.
            clock: epoch seconds.
        """
        self._envoy = envoy
        self._connection = connection
        self._clock = clock
        self._token = token
        self._tokens: dict[str, SecretStr] = {}
        self._reader: GatewayReader | None = None
        self._info: GatewayInfo | None = None
        self._authorized = False
        self._online: bool | None = None
        self._failures = 0
        self._not_before = 0.0
        self._ask_for_token_at = 0.0
        self._schedule = Schedule(settings, clock)
        self._newest: dict[str, Reading] = {}

    def run(self, stop: threading.Event) -> None:
        """Poll until told to stop."""
        with self._connection:
            while not stop.is_set():
                self._hear(min(LONGEST_WAIT_S, max(0.0, self._next_at() - time.monotonic())))
                if time.monotonic() < self._next_at():
                    continue
                try:
                    self._poll()
                except TokenRejected as error:
                    self._authorized = False
                    self._tokens.clear()
                    self._ask_for_token("rejected", str(error))
                    self._not_before = time.monotonic() + ASK_AGAIN_S
                except GatewayError as error:
                    self._lost(error)

    def _next_at(self) -> float:
        return max(self._not_before, self._schedule.next_at if self._authorized else 0.0)

    def _poll(self) -> None:
        if self._reader is None:
            identity = self._envoy.find()
            logger.info("gateway %s, firmware %s", identity.serial, identity.firmware)
            self._reader = GatewayReader(self._envoy, identity, self._clock)
            self._publish_info(self._reader.info)
            self._ask_for_token_at = time.monotonic() + RETAINED_TOKEN_S
        if not self._authorized and not self._authorize(self._reader.identity):
            return
        readings = self._reader.read(self._schedule.take_due())
        self._failures = 0
        self._tell_status(online=True)
        self._publish_info(self._reader.info)
        for reading in readings:
            self._publish(reading)

    def _authorize(self, identity: Identity) -> bool:
        """Return whether the gateway will be shown something that it may accept."""
        if not identity.needs_token:
            self._envoy.show_password(identity)
        elif (token := self._token or self._tokens.get(identity.serial)) is not None:
            self._envoy.show_token(token)
        else:
            self._not_before = time.monotonic() + LONGEST_WAIT_S
            if time.monotonic() >= self._ask_for_token_at:
                self._ask_for_token("missing", f"firmware {identity.firmware} lets nobody in without one")
            return False
        self._authorized = True
        return True

    def _ask_for_token(self, reason: str, why: str) -> None:
        if self._reader is None:
            return
        serial = self._reader.identity.serial
        self._ask_for_token_at = time.monotonic() + ASK_AGAIN_S
        if self._token is not None:
            logger.error("gateway %s does not accept ENVOY_TOKEN: %s; fetch a new one", serial, why)
            self._tell_status(online=False)
            return
        logger.warning("waiting for a token for gateway %s: %s", serial, why)
        request = TokenRequest.model_validate({"reason": reason, "requested_at": int(self._clock())})
        self._connection.publish(self._connection.topics.token_request(serial), request.to_json())

    def _hear(self, timeout_s: float) -> None:
        match self._connection.receive(timeout_s):
            case Connected():
                # The broker may have forgotten what it retained.
                info, self._info = self._info, None
                online, self._online = self._online, None
                if info is not None:
                    self._publish_info(info)
                if online is not None:
                    self._tell_status(online=online)
            case Message() as message:
                self._connection.acknowledge(message)
                self._take_token(message)

    def _take_token(self, message: Message) -> None:
        if not message.payload:
            return
        try:
            token = TokenMessage.from_json(message.payload)
        except InvalidPayload as error:
            logger.warning("passed over a token on %s: %s", message.topic, error)
            return
        if self._tokens.get(token.serial) != token.token:
            self._tokens[token.serial] = token.token
            self._authorized = False
            self._not_before = 0.0

    def _lost(self, error: GatewayError) -> None:
        self._failures += 1
        if self._failures == 1:
            logger.warning("the gateway cannot be read: %s; trying on", error)
        self._tell_status(online=False)
        longest_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 16))
        delay_s = random.uniform(longest_s / 2, longest_s)  # noqa: S311 - jitter, no secret
        told_s = error.retry_after_s if isinstance(error, GatewayUnavailable) else 0.0
        self._not_before = time.monotonic() + max(delay_s, told_s)
        if isinstance(error, GatewayUnavailable):
            # It may come back with another address, certificate or firmware.
            self._reader, self._authorized = None, False

    def _tell_status(self, *, online: bool) -> None:
        """Publish whether the gateway answers, if that is news; before it was found it has no name to publish under."""
        if self._info is None or online == self._online:
            return
        if online and self._online is False:
            logger.info("the gateway answers again")
        self._online = online
        topic = self._connection.topics.gateway_status(self._info.serial)
        self._connection.publish(topic, ONLINE if online else OFFLINE, retain=True)

    def _publish_info(self, info: GatewayInfo) -> None:
        """Publish what the gateway is, if that is news."""
        if info != self._info:
            self._info = info
            self._connection.publish(self._connection.topics.info(info.serial), info.to_json(), retain=True)

    def _publish(self, reading: Reading) -> None:
        """Publish a reading unless it is the one published before."""
        if self._reader is None or reading == self._newest.get(reading.kind):
            return
        newest = self._newest.get(reading.kind)
        late = newest is not None and reading.timestamp < newest.timestamp
        try:
            topic = reading_topic(self._connection.topics, self._reader.identity.serial, reading, late=late)
            self._connection.publish(topic, reading.to_json(), retain=not late)
        except TooManyWaiting as error:
            logger.error("a reading is lost: %s", error)  # noqa: TRY400 - the message says all
            return
        if not late:
            self._newest[reading.kind] = reading


def reading_topic(topics: Topics, serial: str, reading: Reading, *, late: bool = False) -> str:
    """Return where a reading is published: in its kind's room, or among the late ones."""
    return topics.history(serial, reading.kind) if late else topics.reading(serial, reading.kind)


class Schedule:
    """When each cycle is due: the first time at once, then in the middle of its slots of the clock.

    A reading taken in the middle of Graphite's slot stays in it, late or early as it may be by a little.
    """

    def __init__(self, settings: PollSettings, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._interval_s = {
            Cycle.METERS: settings.interval_s,
            Cycle.INVERTERS: settings.inverters_interval_s,
            Cycle.SLOW: settings.slow_interval_s,
        }
        self._due_at = dict.fromkeys(Cycle, 0.0)

    @property
    def next_at(self) -> float:
        """When the next cycle is due, on the monotonic clock."""
        return min(self._due_at.values())

    def take_due(self) -> frozenset[Cycle]:
        """Return the cycles that are due and set their next times."""
        now, now_monotonic = self._clock(), time.monotonic()
        due = frozenset(cycle for cycle, due_at in self._due_at.items() if due_at <= now_monotonic)
        for cycle in due:
            self._due_at[cycle] = now_monotonic + seconds_to_slot_middle(now, self._interval_s[cycle])
        return due


def seconds_to_slot_middle(now: float, interval_s: float) -> float:
    """Return the seconds from now to the next middle of a slot; slots begin at multiples of the interval."""
    return interval_s - (now - interval_s / 2) % interval_s
