"""Carries out the tasks of an agenda for one gateway, and turns its responses into readings.

::

    agenda → fetch → snapshot → interpret → corrections

The gateway is found and authenticated before; nothing here knows MQTT.
"""

import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from services.poller.agenda import Agenda, Fetch, Poll, Sweep
from services.poller.clock import GatewayClock, describe_offset
from services.poller.corrections import Corrections
from services.poller.endpoints import GATEWAY_PRODUCTION, METER_READINGS, Endpoint
from services.poller.envoy import Envoy
from services.poller.errors import BadResponse, EndpointMissing, GatewayError, GatewayUnavailable, TokenRejected
from services.poller.identity import Identity
from services.poller.interpret.info import interpret_info
from services.poller.interpret.production import find_production_source
from services.poller.interpret.readings import interpret
from services.poller.models import MeterReading
from services.poller.snapshot import PRODUCTION, Site, SiteView, Snapshot, view_site
from shared.messages import GatewayInfo
from shared.readings import Reading

logger = logging.getLogger(__name__)

CLOCK_CHECK_INTERVAL_S = 60.0
"""How often the gateway's clock is read while the meters' times do not fit what is known of it."""

T = TypeVar("T")


class GatewayReader:
    """Reads one gateway; what it learns of the site is kept from poll to poll."""

    def __init__(self, envoy: Envoy, identity: Identity, agenda: Agenda, clock: GatewayClock) -> None:
        """Prepare to read.

        Args:
            envoy: HTTP to the gateway, authenticated before anything is read.
            identity: which gateway it is; another one needs another reader.
            agenda: what to fetch when.
            clock: the gateway's clock.
        """
        self.agenda = agenda
        self.site = Site(identity)
        self.corrections = Corrections(clock)
        self._envoy = envoy
        self._clock = clock
        self._clock_agrees = True
        self._unreadable: dict[Endpoint[Any], str] = {}
        """By endpoint, the error that was logged; it is logged once."""

    @property
    def info(self) -> GatewayInfo:
        """What the gateway is, as far as it is established."""
        return interpret_info(self.site, self._clock.offset_s)

    def read(self, *, will_retry: bool = True) -> list[Reading]:
        """Fetch everything once and return its readings.

        Args:
            will_retry: whether the caller reads again later; otherwise what is busy now is left out.

        Raises:
            GatewayUnavailable: the gateway does not respond.
            TokenRejected: it rejects everything.
        """
        self.agenda.restart(time.monotonic())
        while True:
            match self.agenda.next_task(time.monotonic(), self.site):
                case Fetch(endpoint):
                    self.fetch(endpoint, will_retry=will_retry)
                case Poll() as poll:
                    return self.poll(poll)

    def fetch(self, endpoint: Endpoint[Any], *, will_retry: bool = True) -> None:
        """Fetch an endpoint of the sweep.

        Raises:
            GatewayUnavailable: the gateway does not respond, or responds that it is busy.
            TokenRejected: it rejects everything.
        """
        try:
            self._fetch(endpoint)
        except GatewayError as error:
            is_last = self.agenda.next_endpoint(time.monotonic(), self.site) is None
            if self.agenda.concerns_the_gateway(error, endpoint, is_last=is_last, will_retry=will_retry):
                self.agenda.abandon_sweep()
                raise
        else:
            self.site = self.site.after(endpoint, self.agenda.sweep.responses)

    def poll(self, poll: Poll) -> list[Reading]:
        """Fetch the meters, and return the readings of their response and of the sweep that is complete.

        Raises:
            GatewayUnavailable: the gateway does not respond.
            TokenRejected: it rejects the meters and more.
        """
        started_at = time.monotonic()
        meters = self._fetch_meters() if poll.meters else ()
        self._check_clock(meters)
        readings = self._readings(meters, poll.sweep) if meters or poll.sweep is not None else []
        self.agenda.record_poll(poll, started_at, time.monotonic())
        return readings

    def identify(self) -> None:
        """Check that it is still the same gateway with the same firmware, and read its clock.

        Raises:
            GatewayUnavailable: it does not respond, or is another one now.
        """
        self.agenda.record_identified(time.monotonic())
        try:
            info = self._envoy.fetch_info()
        except (BadResponse, EndpointMissing, TokenRejected) as error:
            logger.debug("gateway %s: %s", self.site.identity.serial, error)
            return
        if info.identity != self.site.identity:
            raise GatewayUnavailable(
                f"{self._envoy.base_url} is now gateway {info.identity.serial} with firmware {info.identity.firmware}"
            )
        before = self._clock.offset_s
        self._clock.observe(info.time, info.received_at, info.built_at)
        if self._clock.offset_s != before:
            self._log_clock()

    def _fetch(self, endpoint: Endpoint[T]) -> T:
        """Return a response, and note in the agenda what became of the request."""
        started_at = time.monotonic()
        try:
            response = self._envoy.fetch(endpoint)
        except GatewayError as error:
            self.agenda.record_failure(endpoint, error, started_at, time.monotonic())
            if isinstance(error, BadResponse) and self._unreadable.get(endpoint) != str(error):
                self._unreadable[endpoint] = str(error)
                logger.warning("gateway %s: ignored a response of %s", self.site.identity.serial, error)
            raise
        self.agenda.record_response(endpoint, response, started_at, time.monotonic())
        if self._unreadable.pop(endpoint, None) is not None:
            logger.info("gateway %s: %s is readable again", self.site.identity.serial, endpoint.path)
        return response

    def _fetch_meters(self) -> tuple[MeterReading, ...]:
        """Return the meters' readings; none where the gateway rejects them alone, or its response is not readable."""
        try:
            return self._fetch(METER_READINGS)
        except TokenRejected:
            # Any response to another endpoint shows that only the meters are rejected.
            with suppress(EndpointMissing, BadResponse):
                self._envoy.fetch(GATEWAY_PRODUCTION)
        except (EndpointMissing, BadResponse):
            pass
        return ()

    def _check_clock(self, meters: tuple[MeterReading, ...]) -> None:
        """Read the gateway's clock where the meters' time does not fit it, and again now and then while that lasts."""
        newest = max((reading.timestamp or 0 for reading in meters), default=0)
        agreed, self._clock_agrees = self._clock_agrees, not newest or self._clock.agrees(newest)
        age_s = time.monotonic() - self.agenda.identified_at
        if not self._clock_agrees and (agreed or age_s > CLOCK_CHECK_INTERVAL_S):
            self.identify()

    def _readings(self, meters: tuple[MeterReading, ...], sweep: Sweep | None) -> list[Reading]:
        """Return the readings of a poll: snapshot, interpretation, corrections."""
        snapshot = (sweep.responses if sweep is not None else Snapshot()).with_response(METER_READINGS, meters)
        view = view_site(self.site, snapshot, self._clock.now())
        if sweep is not None:
            self.site = hold_production_source(view, certain=not sweep.incomplete)
            view = replace(view, site=self.site)
        return self.corrections.apply(interpret(view))

    def _log_clock(self) -> None:
        offset_s = self._clock.offset_s
        if offset_s is None:
            logger.info("gateway %s: its clock is right", self.site.identity.serial)
            return
        logger.warning(
            "gateway %s: its clock is %s; %s",
            self.site.identity.serial,
            describe_offset(offset_s),
            "the times of its readings are corrected"
            if self._clock.correction_s
            else "its times are kept, because either clock may be wrong; check both",
        )


def hold_production_source(view: SiteView, *, certain: bool) -> Site:
    """Return the site with the source of its production, which is chosen again only for a reason.

    Each source counts a little differently, so that the lifetime would jump (pyenphase#480). The reasons are that it
    was never certain, or that the production meter was enabled or disabled.

    Args:
        view: a poll with a complete sweep.
        certain: whether every endpoint that could have given a better source responded.
    """
    site, found = view.site, find_production_source(view)
    held = site.production_source
    if found is None or found == held:
        return replace(site, source_is_certain=site.source_is_certain or (certain and found is not None))
    if held is not None:
        meter_enabled = PRODUCTION in site.enabled_types
        switched = (found == "meter" and meter_enabled) or (held == "meter" and not meter_enabled)
        if site.source_is_certain and not (switched and certain):
            return site
        logger.warning(
            "gateway %s: the source of the production changed from %s to %s; its lifetime energy may jump",
            site.identity.serial,
            held,
            found,
        )
    return replace(site, production_source=found, source_is_certain=certain)
