"""Polls one gateway on time and publishes what it measures; waits, asks and tries again where it cannot."""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr

from services.poller.access import may_open
from services.poller.envoy import CertificateChanged, Envoy, GatewayError, GatewayUnavailable, Identity, TokenRejected
from services.poller.reader import QUESTIONS, GatewayReader
from services.poller.schedule import Schedule
from shared.messages import OFFLINE, ONLINE, GatewayInfo, TokenMessage, TokenRequest
from shared.mqtt import Connected, Connection
from shared.readings import Reading

logger = logging.getLogger(__name__)

MAX_WAIT_S = 1.0
"""A stop is noticed at least this soon."""

FIRST_RETRY_S, LAST_RETRY_S = 2.0, 60.0
RETAINED_TOKEN_S = 2.0
"""A retained token arrives at once; without one by then it is asked for."""

ASK_AGAIN_S = 300.0


@dataclass(slots=True)
class Tally:
    """What was done for a gateway since the start."""

    polls: int = 0
    poll_duration_s: float = 0.0
    """Of the newest poll."""


class GatewayPoller:
    """The work for one gateway, on a thread of its own."""

    def __init__(
        self,
        envoy: Envoy,
        connection: Connection,
        take: Callable[[str, list[Reading]], None],
        schedule: Schedule,
        *,
        token: SecretStr | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the work.

        Args:
            envoy: the gateway.
            connection: to the broker; others publish over it too.
            take: takes a gateway's serial number and its readings, keeps and publishes them.
            schedule: when to ask for what.
            token: a token by hand; otherwise, or when it is refused, the broker's is waited for.
            clock: epoch seconds.
        """
        self.envoy = envoy
        self.schedule = schedule
        self.tally = Tally()
        self.reader: GatewayReader | None = None
        self.online: bool | None = None
        self.inbox: queue.SimpleQueue[Connected | TokenMessage] = queue.SimpleQueue()
        """What happens at the broker, told by whoever listens to it."""
        self._connection = connection
        self._take = take
        self._clock = clock
        self._token = token
        self._tokens: dict[str, TokenMessage] = {}
        self._shown: SecretStr | None = None
        self._refused: SecretStr | None = None
        self._refused_until = 0.0
        self._info: GatewayInfo | None = None
        self._found = False
        self._authorized = False
        self._began = False
        self._failures = 0
        self._told_certificate = ""
        self._not_before = 0.0
        self._ask_for_token_at = 0.0
        self._newest: dict[str, Reading] = {}

    @property
    def serial(self) -> str | None:
        """The gateway's serial number, once it has told it."""
        return self.reader.identity.serial if self.reader is not None else None

    def run(self, stop: threading.Event) -> None:
        """Poll until told to stop."""
        while not stop.is_set():
            self._hear(min(MAX_WAIT_S, max(0.0, self._next_at() - time.monotonic())))
            if stop.is_set() or time.monotonic() < self._next_at():
                continue
            try:
                self._step()
            except TokenRejected as error:
                self._rejected(error)
            except GatewayError as error:
                if not stop.is_set():
                    self._lost(error)
            except Exception:
                # One gateway's problem is not the others'.
                logger.exception("gateway %s: something unforeseen; trying on", self.serial or self.envoy.host)
                self._not_before = time.monotonic() + LAST_RETRY_S

    def _next_at(self) -> float:
        if not self._authorized or self.reader is None:
            return self._not_before
        question = self.reader.next_question()
        asks_now = question is not None and self.schedule.fits(self.reader.expected_s(question))
        return max(self._not_before, 0.0 if asks_now else self.schedule.next_at)

    def _step(self) -> None:
        """Do the next thing that is due: find the gateway, be let in, poll, or ask a question in between."""
        reader = self._find() if self.reader is None or not self._found else self.reader
        if not self._authorized and not self._authorize(reader.identity):
            return
        if not self._began:
            self.schedule.take_due()
            self._publish_all(reader, reader.read)
            self._began = True
            return
        reader.begin(self.schedule.take_due())
        if time.monotonic() >= self.schedule.slot_at:
            self._take_slot(reader)
        elif (question := reader.next_question()) is not None and self.schedule.fits(reader.expected_s(question)):
            reader.ask(question)
            if reader.next_question() is None:
                for cycle, questions in QUESTIONS.items():
                    self.schedule.took(cycle, sum(reader.expected_s(each) for each in questions))
        if reader.has_news and not reader.meters_enabled:
            self._publish_all(reader, reader.poll)

    def _take_slot(self, reader: GatewayReader) -> None:
        """Ask the meters, where there are any and it is not too late."""
        if self.schedule.is_missed():
            self.schedule.miss()
        elif reader.meters_enabled:
            self._publish_all(reader, reader.poll)
        else:
            self.schedule.next_slot()

    def _publish_all(self, reader: GatewayReader, read: Callable[[], list[Reading]]) -> None:
        began = time.monotonic()
        readings = read()
        self.tally.poll_duration_s = time.monotonic() - began
        self.tally.polls += 1
        self.schedule.next_slot(self.tally.poll_duration_s if self._began else 0.0)
        self._failures, self._told_certificate = 0, ""
        self._tell_status(online=True)
        self._publish_info(reader.info)
        if new := [reading for reading in readings if self._is_new(reading)]:
            self._take(reader.identity.serial, new)

    def _find(self) -> GatewayReader:
        """Return the reader of the gateway that is found; the one before, if it is the same gateway as before."""
        identity = self.envoy.find()
        self._found = True
        if self.reader is None or self.reader.identity != identity:
            logger.info("gateway %s, firmware %s, at %s", identity.serial, identity.firmware, self.envoy.base_url)
            self.reader = GatewayReader(self.envoy, identity)
            self._publish_info(self.reader.info)
            self._ask_for_token_at = time.monotonic() + RETAINED_TOKEN_S
        self._began = False
        return self.reader

    def _authorize(self, identity: Identity) -> bool:
        """Return whether the gateway will be shown something that it may accept."""
        if not identity.needs_token:
            self.envoy.show_password(identity)
        elif (token := self._token_for(identity.serial)) is not None:
            self._shown = token
            self.envoy.show_token(token)
        else:
            self._not_before = time.monotonic() + MAX_WAIT_S
            if time.monotonic() >= self._ask_for_token_at:
                self._ask_for_token(identity, "missing", f"firmware {identity.firmware} lets nobody in without one")
            return False
        self._authorized = True
        if self.reader is not None:
            self.reader.access_changed()
        return True

    def _token_for(self, serial: str) -> SecretStr | None:
        """Return the token by hand, unless it was refused and the broker has one."""
        message = self._tokens.get(serial)
        if self._token is not None and (message is None or self._token != self._refused):
            return self._token
        return message.token if message is not None else None

    def _rejected(self, error: TokenRejected) -> None:
        self._authorized = False
        self._not_before = self._refused_until = time.monotonic() + ASK_AGAIN_S
        if self.reader is None:
            logger.error("the gateway at %s lets nobody see /info: %s", self.envoy.host, error)
            return
        identity = self.reader.identity
        if not identity.needs_token:
            logger.error("gateway %s: %s; check ENVOY_USERNAME and ENVOY_PASSWORD", identity.serial, error)
            self._tell_status(online=False)
            return
        if self._token is not None and self._shown == self._token != self._refused:
            logger.error("gateway %s does not accept ENVOY_TOKEN: %s; fetch a new one", identity.serial, error)
        self._refused = self._shown
        self._tokens.clear()
        self._ask_for_token(identity, "rejected", str(error))

    def _ask_for_token(self, identity: Identity, reason: str, why: str) -> None:
        self._ask_for_token_at = time.monotonic() + ASK_AGAIN_S
        logger.warning("waiting for a token for gateway %s: %s", identity.serial, why)
        request = TokenRequest.model_validate({"reason": reason, "requested_at": int(self._clock())})
        self._connection.publish(self._connection.topics.token_request(identity.serial), request.to_json())

    def _hear(self, timeout_s: float) -> None:
        try:
            event = self.inbox.get(timeout=timeout_s) if timeout_s > 0 else self.inbox.get_nowait()
        except queue.Empty:
            return
        match event:
            case Connected():
                # The broker may have forgotten what it retained.
                info, self._info = self._info, None
                online, self.online = self.online, None
                if info is not None:
                    self._publish_info(info)
                if online is not None:
                    self._tell_status(online=online)
            case TokenMessage() as message:
                self._take_token(message)

    def _take_token(self, message: TokenMessage) -> None:
        """Take up a new token; one that looks wrong only if no good one is known, and one that was refused only later.

        Our clock may be wrong, and so may the gateway's have been when it refused.
        """
        known = self._tokens.get(message.serial)
        if known is not None:
            now = self._clock()
            if message.token == known.token or (may_open(known, now) and not may_open(message, now)):
                return
        self._tokens[message.serial] = message
        if self._token is None or self._token == self._refused:
            self._authorized = False
            self._not_before = self._refused_until if message.token == self._refused else 0.0

    def _lost(self, error: GatewayError) -> None:
        self._failures += 1
        who = self.serial or self.envoy.host
        if isinstance(error, CertificateChanged):
            # It shows on the second try: on the first the connection merely breaks.
            if str(error) != self._told_certificate:
                logger.error("%s", error)
            self._told_certificate = str(error)
        elif self._failures == 1:
            logger.warning("gateway %s cannot be read: %s; trying on", who, error)
        self._tell_status(online=False)
        max_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 16))
        delay_s = random.uniform(max_s / 2, max_s)  # noqa: S311 - jitter, no secret
        told_s = error.retry_after_s if isinstance(error, GatewayUnavailable) else 0.0
        self._not_before = time.monotonic() + max(delay_s, told_s)
        # It may come back with another address, certificate or firmware.
        self._found = self._authorized = self._began = False

    def _tell_status(self, *, online: bool) -> None:
        """Publish whether the gateway answers, if that is news; before it was found it has no name to publish under."""
        if self._info is None or online == self.online:
            return
        if online and self.online is False:
            logger.info("gateway %s answers again", self._info.serial)
        self.online = online
        topic = self._connection.topics.gateway_status(self._info.serial)
        self._connection.publish(topic, ONLINE if online else OFFLINE, retain=True, content_type=None)

    def _publish_info(self, info: GatewayInfo) -> None:
        """Publish what the gateway is, if that is news."""
        if info != self._info:
            self._info = info
            self._connection.publish(self._connection.topics.info(info.serial), info.to_json(), retain=True)

    def _is_new(self, reading: Reading) -> bool:
        """Return whether no reading of its kind and moment was taken before: two polls may share a gateway's second."""
        newest = self._newest.get(reading.kind)
        if newest is None or reading.timestamp > newest.timestamp:
            self._newest[reading.kind] = reading
            return True
        return reading.timestamp < newest.timestamp
