"""The loop for one gateway: find it, authenticate, then do what the agenda names; retry whatever fails."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.poller.agenda import Agenda, Fetch, Identify, Poll, Wait
from services.poller.certificates import describe_expiry, renewal_is_near
from services.poller.credentials import REJECTED_RETRY_S, Credential, rejection_hint
from services.poller.errors import GatewayError, GatewayUnavailable, GatewayUntrusted, TokenRejected
from services.poller.publisher import GatewayPublisher
from services.poller.reader import GatewayReader
from services.poller.session import Session, State
from shared.backoff import backoff_s
from shared.mqtt import Connected
from shared.readings import Reading
from shared.tokens import Token

logger = logging.getLogger(__name__)

MAX_WAIT_S = 1.0
"""A stop is noticed at least this soon."""

EXPIRY_LOG_INTERVAL_S = 7 * 86_400.0

FIRST_RETRY_S, MAX_RETRY_S = 2.0, 60.0


@dataclass(slots=True)
class PollStats:
    """What was done for a gateway since the start."""

    polls: int = 0
    poll_duration_s: float = 0.0
    """Of the newest poll."""


@dataclass(slots=True)
class Outage:
    """How often the gateway failed to respond in a row."""

    failures: int = 0
    retry_at: float = 0.0
    """When to try next, on the monotonic clock."""
    logged: str = ""
    """The error that was logged and needs a person; it is logged once."""
    untrusted: str = ""
    """Why the gateway that responds is not trusted; empty if it is, or none responded yet."""


class GatewayPoller:
    """The work for one gateway, on a thread of its own."""

    def __init__(
        self,
        session: Session,
        publisher: GatewayPublisher,
        add: Callable[[str, Sequence[Reading]], None],
        new_agenda: Callable[[], Agenda],
    ) -> None:
        """Prepare the work.

        Args:
            session: the way to the gateway.
            publisher: of everything but readings.
            add: takes a gateway's serial number and its readings, keeps and publishes them.
            new_agenda: returns an agenda with everything due.
        """
        self.inbox: queue.SimpleQueue[Connected | Token] = queue.SimpleQueue()
        """What happened at the broker: a reconnect, or a new token."""
        self._session = session
        self._publisher = publisher
        self._add = add
        self._new_agenda = new_agenda
        self._reader: GatewayReader | None = None
        self._stats = PollStats()
        self._outage = Outage()
        self._expiry_logged_at = -EXPIRY_LOG_INTERVAL_S

    @property
    def name(self) -> str:
        """The gateway's serial number, or ENVOY_HOST until it is found."""
        return self._session.name

    @property
    def online(self) -> bool:
        """Whether the gateway responds."""
        return self._publisher.online is True

    @property
    def untrusted(self) -> str:
        """Why the gateway that responds is not trusted, for which a person is needed; empty if there is no reason."""
        return self._outage.untrusted

    def accepts(self, token: Token) -> bool:
        """Return whether a token may be for this gateway: until it is found, every token may."""
        return self._session.identity is None or self._session.identity.serial == token.serial

    def interrupt(self) -> None:
        """End the request in progress, from another thread."""
        self._session.envoy.interrupt()

    def stats(self) -> dict[str, float]:
        """Return the gateway's metrics, by name."""
        requests, reader = self._session.envoy.stats, self._reader
        return {
            "gateways": 1,
            "gateways_online": self.online,
            "polls": self._stats.polls,
            "poll_duration_s": round(self._stats.poll_duration_s, 3),
            "requests": requests.requests,
            "requests_failed": requests.failed,
            "fields_dropped": requests.dropped_fields,
            "polls_missed": reader.agenda.slots.missed if reader is not None else 0,
            "counters_rejected": reader.corrections.counters.rejected if reader is not None else 0,
            "clock_offset_s": abs(self._session.clock.offset_s or 0),
        }

    def run(self, stop: threading.Event) -> None:
        """Poll until the event is set."""
        next_at = 0.0
        while not stop.is_set():
            self._handle_event(min(MAX_WAIT_S, next_at - time.monotonic()))
            if stop.is_set():
                return
            try:
                next_at = self._do_next(time.monotonic())
            except TokenRejected as error:
                self._on_token_rejected(error)
            except GatewayError as error:
                if not stop.is_set():
                    self._on_unreachable(error)
            except Exception:
                # It must not end the thread, nor what is polled of other gateways.
                logger.exception("gateway %s: unexpected error; retrying in %.0f s", self.name, MAX_RETRY_S)
                self._outage.retry_at = time.monotonic() + MAX_RETRY_S

    def _do_next(self, now: float) -> float:
        """Do what is due, and return when to look again."""
        if now < self._outage.retry_at:
            return self._outage.retry_at
        match self._session.state:
            case State.SEARCHING:
                self._find()
            case State.FOUND:
                return self._authenticate(now)
            case State.AUTHENTICATED:
                return self._follow_agenda(now)
        return now

    def _find(self) -> None:
        identity = self._session.find()
        self._outage.untrusted = ""
        self._report_expiry(time.monotonic())
        if self._reader is None or self._reader.site.identity != identity:
            base_url = self._session.envoy.base_url
            logger.info("found gateway %s, firmware %s, at %s", identity.serial, identity.firmware, base_url)
            self._reader = GatewayReader(self._session.envoy, identity, self._new_agenda(), self._session.clock)
            self._publisher.publish_info(self._reader.info)
            self._publisher.expect_retained_token(time.monotonic())

    def _authenticate(self, now: float) -> float:
        """Attach a credential; while there is none, request a token."""
        if self._session.authenticate() is not None:
            reader = self._reader_found()
            reader.agenda.restart(now)
            reader.agenda.forget_failures()
            return now
        identity = self._reader_found().site.identity
        if identity.needs_token and self._publisher.token_request_is_due(now):
            self._publisher.request_token(identity.serial, "missing", self._session.missing_token_hint())
        return now + MAX_WAIT_S

    def _follow_agenda(self, now: float) -> float:
        reader = self._reader_found()
        match reader.agenda.next_task(now, reader.site):
            case Wait(until):
                return until
            case Fetch(endpoint):
                reader.fetch(endpoint)
            case Identify():
                reader.identify()
                self._publisher.publish_info(reader.info)
                self._report_expiry(now)
            case Poll() as poll:
                self._poll(reader, poll)
        return now

    def _poll(self, reader: GatewayReader, poll: Poll) -> None:
        """Read the gateway, and hand its readings to the outbox."""
        started_at = time.monotonic()
        readings = reader.poll(poll)
        self._stats.poll_duration_s = time.monotonic() - started_at
        self._stats.polls += 1
        self._outage = Outage()
        self._publisher.publish_status(online=True)
        if poll.sweep is not None:
            self._publisher.publish_info(reader.info)
        if readings:
            self._add(reader.site.identity.serial, readings)

    def _reader_found(self) -> GatewayReader:
        if self._reader is None:
            raise RuntimeError("the gateway is not found yet")
        return self._reader

    def _handle_event(self, timeout_s: float) -> None:
        """Handle what happened at the broker, waiting for it."""
        try:
            event = self.inbox.get(timeout=timeout_s) if timeout_s > 0 else self.inbox.get_nowait()
        except queue.Empty:
            return
        match event:
            case Connected():
                self._publisher.republish()
            case Token() as token:
                self._session.offer_token(token)

    def _report_expiry(self, now: float) -> None:
        """Log once a week that the gateway will renew its certificate soon."""
        certificate = self._session.certificate
        if certificate is None or now - self._expiry_logged_at < EXPIRY_LOG_INTERVAL_S:
            return
        if renewal_is_near(certificate, time.time()):
            self._expiry_logged_at = now
            expiry = describe_expiry(certificate, time.time())
            logger.warning("gateway %s: its certificate %s: %s", self.name, certificate.fingerprint, expiry)

    def _on_token_rejected(self, error: TokenRejected) -> None:
        """Authenticate with another credential; where there is none, retry with this one in five minutes."""
        credential = self._session.credential
        if self._session.state is not State.AUTHENTICATED or credential is None:
            logger.error("gateway %s rejects even /info, which needs no credential: %s", self.name, error)
            self._outage.retry_at = time.monotonic() + REJECTED_RETRY_S
            return
        self._session.reject()
        self._report_rejection(credential, error)

    def _report_rejection(self, credential: Credential, error: TokenRejected) -> None:
        hint = rejection_hint(credential)
        if credential.source != "the token at the broker" and self._outage.logged != hint:
            self._outage.logged = hint
            logger.error("gateway %s: %s (%s)", self.name, hint, error)
        if credential.source == "password":
            self._publisher.publish_status(online=False)
        else:
            self._publisher.request_token(self.name, "rejected", str(error))

    def _on_unreachable(self, error: GatewayError) -> None:
        """Search for the gateway again, after a delay that grows."""
        outage = self._outage
        outage.failures += 1
        delay_s = backoff_s(outage.failures, first_s=FIRST_RETRY_S, max_s=MAX_RETRY_S)
        if isinstance(error, GatewayUnavailable):
            delay_s = max(delay_s, error.retry_after_s)
        outage.retry_at = time.monotonic() + delay_s
        if isinstance(error, GatewayUntrusted):
            # The first failure is a broken connection; the search after it finds the other certificate.
            if str(error) != outage.logged:
                logger.error("gateway %s: %s", self.name, error)
            outage.logged = outage.untrusted = str(error)
        elif outage.failures == 1:
            logger.warning("gateway %s cannot be read: %s; retrying", self.name, error)
        self._publisher.publish_status(online=False)
        self._session.lose()
