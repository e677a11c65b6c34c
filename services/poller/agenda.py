"""What to do next for one gateway: :meth:`Agenda.next_task` decides, the ``record_…`` methods note what was done.

::

    slots of the meters     ──┬───────────────┬───────────────┬──►  one poll in each
    a sweep in the gaps       │ ▪▪ ▪   ▪▪▪▪▪▪▪ │▪              │
                                              └ its responses are part of this poll

The meters respond at once and are polled in the middle of their slots of the clock, so that a reading stays in its
slot although it is a little late or early. Everything else is fetched between two polls, one endpoint at a time, and
only where the response is expected before the next slot: endpoints that take a gateway seconds do not delay its meters.
Where one takes longer than a whole slot it is fetched nevertheless, and the slots that it takes are missed: two
requests at a time would only make such a gateway slower. What is slow is fetched less often.

A *sweep* is one fetch of each wanted endpoint of the cadences that are due. Its responses are interpreted together in
the next poll. An endpoint that keeps failing is fetched less and less often.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from services.poller.endpoints import METER_READINGS, SWEEP, Cadence, Endpoint
from services.poller.errors import (
    EndpointBroken,
    EndpointMissing,
    GatewayError,
    GatewayUnavailable,
    GatewayUntrusted,
    TokenRejected,
)
from services.poller.settings import PollSettings
from services.poller.snapshot import Site, Snapshot
from shared.backoff import backoff_s

T = TypeVar("T")

MARGIN_S = 0.1
"""A response is expected to end this long before the next slot."""

MAX_LATE_S = 0.5
MAX_LATE_SHARE = 0.25
"""A slot is missed when the poll is later than both: this long, and this share of the interval."""

ROUNDING_S = 1e-6

MAX_METERS_SHARE = 0.5
"""The share of the time for which the meters of a slow gateway are being fetched."""

MAX_SWEEP_SHARE = 0.2
"""The share of the time for which everything else is being fetched."""

PHASE_SPREAD = 0.4
"""The share of the slot over which several gateways are spread."""

MAX_REJECTIONS = 4
"""Some endpoints require a higher role than an owner's; when the first of a sweep are all rejected, the token is."""

FIRST_RETRY_S, MAX_RETRY_S = 60.0, 3600.0
"""Between attempts for an endpoint that failed twice and more; a gateway that restarts fails once."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Fetch an endpoint."""

    endpoint: Endpoint[Any]


@dataclass(frozen=True, slots=True)
class Identify:
    """Fetch ``/info``: is it the same gateway with the same firmware, and what does its clock show."""


@dataclass(frozen=True, slots=True)
class Poll:
    """Fetch the meters, if there are any, and interpret what was fetched since the last poll."""

    meters: bool
    sweep: "Sweep | None"
    """The sweep that is complete."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until a time of the monotonic clock."""

    until: float


Task = Fetch | Identify | Poll | Wait


@dataclass(slots=True)
class Sweep:
    """What was fetched since the last poll with a complete sweep."""

    cadences: set[Cadence] = field(default_factory=set)
    fetched: set[Endpoint[Any]] = field(default_factory=set)
    """With or without success."""
    responses: Snapshot = field(default_factory=Snapshot)
    responded: int = 0
    """How many endpoints showed that the gateway accepts the credential, if only with 404."""
    rejected: int = 0
    incomplete: bool = False
    """Whether an endpoint failed that may work another time."""

    def record_failure(self, error: GatewayError) -> None:
        """Note how an endpoint failed."""
        match error:
            case TokenRejected():
                self.rejected += 1
            case GatewayUnavailable():
                self.incomplete = True
            case _:
                self.responded += 1
                self.incomplete |= isinstance(error, EndpointBroken)


@dataclass(slots=True)
class EndpointHealth:
    """How an endpoint responded lately."""

    failures: int = 0
    """In a row."""
    retry_at: float = 0.0
    duration_s: float = 0.0
    """How long it is expected to take."""
    outcome: str = ""
    """How the newest fetch failed, for people; empty if it did not."""
    timed_out: bool = False

    def record_success(self) -> None:
        """Note a response that serves its purpose."""
        self.failures, self.retry_at, self.outcome, self.timed_out = 0, 0.0, "", False

    def record_failure(self, outcome: str, now: float, *, timed_out: bool = False) -> None:
        """Note a failure; from the second in a row on, the endpoint is not fetched for a while."""
        self.failures += 1
        self.outcome, self.timed_out = outcome, timed_out
        delay_s = backoff_s(self.failures - 1, first_s=FIRST_RETRY_S, max_s=MAX_RETRY_S) if self.failures > 1 else 0.0
        self.retry_at = now + delay_s


class Slots:
    """The slots of the meters, on the monotonic clock; they begin at multiples of the interval on the wall clock."""

    def __init__(self, interval_s: float, phase: float, clock: Callable[[], float]) -> None:
        """Begin with a slot that is due at once.

        Args:
            interval_s: the length of a slot.
            phase: where in the slot the meters are polled, from 0 to 1.
            clock: epoch seconds.
        """
        self.interval_s = interval_s
        self.missed = 0
        """How many slots passed without a poll."""
        self._phase = phase
        self._clock = clock
        self._due_at = 0.0

    def next_at(self, now: float) -> float:
        """Return when the meters are due: now or earlier if they are, later where it is too late for this slot."""
        if now <= self._due_at:
            return self._due_at
        passed, late_s = divmod(now - self._due_at, self.interval_s)
        is_missed = late_s > max(MAX_LATE_SHARE * self.interval_s, MAX_LATE_S)
        return self._due_at + (passed + is_missed) * self.interval_s

    def record_poll(self, started_at: float, now: float) -> None:
        """Note a poll of the meters: count the slots that were missed before it, and skip some if it took long."""
        skipped = int((now - started_at) / MAX_METERS_SHARE / self.interval_s)
        passed = int((started_at - self._due_at + ROUNDING_S) // self.interval_s)
        self.missed += skipped + max(0, passed)
        self.start(now)
        self._due_at += skipped * self.interval_s

    def start(self, now: float) -> None:
        """Let the next slot be due, whatever was missed."""
        self._due_at = now + seconds_to_slot(self._clock(), self.interval_s, self._phase)


class Agenda:
    """The tasks of one gateway. All times are of the monotonic clock."""

    def __init__(self, settings: PollSettings, clock: Callable[[], float], phase: float = 0.5) -> None:
        """Begin with everything due at once.

        Args:
            settings: the intervals.
            clock: epoch seconds.
            phase: where in its slot the gateway is polled, from 0 to 1.
        """
        self.slots = Slots(settings.interval_s, phase, clock)
        self.sweep = Sweep()
        self.health = {endpoint: EndpointHealth() for endpoint in (METER_READINGS, *SWEEP)}
        self.identified_at = 0.0
        self._intervals_s = {
            Cadence.SLOW: settings.slow_interval_s,
            Cadence.INVERTERS: settings.inverters_interval_s,
        }
        self._due_at = dict.fromkeys(self._intervals_s, 0.0)
        self._first_poll_done = False

    def next_task(self, now: float, site: Site) -> Task:
        """Return what to do now. Before the first poll everything is fetched at once; Wait comes only after it."""
        endpoint = self.next_endpoint(now, site)
        with_meters = self._is_wanted(METER_READINGS, now, site)
        complete = self.sweep if endpoint is None and self.sweep.fetched else None
        if not self._first_poll_done:
            return Fetch(endpoint) if endpoint is not None else Poll(with_meters, complete)
        slot_at = self.slots.next_at(now) if with_meters else float("inf")
        if slot_at <= now or (complete is not None and not with_meters):
            return Poll(with_meters, complete)
        identify_at = self.identified_at + self._intervals_s[Cadence.SLOW]
        if identify_at <= now and now + MARGIN_S <= slot_at:
            return Identify()
        if endpoint is not None and self._fits(endpoint, now, slot_at):
            return Fetch(endpoint)
        later = [due_at for due_at in self._due_at.values() if due_at > now]
        return Wait(min(slot_at, identify_at, *later))

    def next_endpoint(self, now: float, site: Site) -> Endpoint[Any] | None:
        """Return the next endpoint of the sweep; None once it is complete."""
        cadences = self.sweep.cadences | {cadence for cadence, due_at in self._due_at.items() if due_at <= now}
        for endpoint in SWEEP:
            if (
                endpoint.cadence in cadences
                and endpoint not in self.sweep.fetched
                and self._is_wanted(endpoint, now, site)
            ):
                return endpoint
        return None

    def record_response(self, endpoint: Endpoint[T], response: T, started_at: float, now: float) -> None:
        """Note a response; one of a sweep's endpoints is part of the next poll."""
        health = self.health[endpoint]
        if endpoint.is_complete(response):
            health.record_success()
        else:
            health.record_failure("does not list everything", now)
        self._record_fetch(endpoint, started_at, now)
        if endpoint is not METER_READINGS:
            self.sweep.responded += 1
            self.sweep.responses = self.sweep.responses.with_response(endpoint, response)

    def record_failure(self, endpoint: Endpoint[Any], error: GatewayError, started_at: float, now: float) -> None:
        """Note that an endpoint gave no response that is usable."""
        timed_out = isinstance(error, GatewayUnavailable)
        self.health[endpoint].record_failure(_outcome(endpoint, error), now, timed_out=timed_out)
        self._record_fetch(endpoint, started_at, now)
        if endpoint is not METER_READINGS:
            self.sweep.record_failure(error)

    def record_poll(self, poll: Poll, started_at: float, now: float) -> None:
        """Note a poll: its sweep is over."""
        if poll.meters and self._first_poll_done:
            self.slots.record_poll(started_at, now)
        else:
            self.slots.start(now)
        if poll.sweep is not None:
            self.sweep = Sweep()
        self._first_poll_done = True

    def record_identified(self, now: float) -> None:
        """Note that ``/info`` was fetched."""
        self.identified_at = now

    def restart(self, now: float) -> None:
        """Make everything due at once, as before the first poll; the gateway was found a moment ago."""
        self.sweep = Sweep()
        self.identified_at = now
        self._due_at = dict.fromkeys(self._intervals_s, now)
        self._first_poll_done = False

    def forget_failures(self) -> None:
        """Fetch again at the next sweep what failed before: another credential may have other rights."""
        for health in self.health.values():
            health.retry_at = 0.0

    def abandon_sweep(self) -> None:
        """Drop the responses of this sweep: the gateway does not respond any more."""
        self.sweep = Sweep()

    def concerns_the_gateway(
        self, error: GatewayError, endpoint: Endpoint[Any], *, is_last: bool, will_retry: bool
    ) -> bool:
        """Return whether an error that was recorded is the whole gateway's rather than the endpoint's alone.

        Args:
            error: what was raised.
            endpoint: what was fetched.
            is_last: whether nothing else is left to fetch.
            will_retry: whether the gateway can be left alone now and read later.
        """
        nothing_responded = not self.sweep.responded
        match error:
            case GatewayUntrusted():
                return True
            case TokenRejected():
                return nothing_responded and (self.sweep.rejected >= MAX_REJECTIONS or is_last)
            case GatewayUnavailable():
                # Where it is busy for the same endpoint again and responds to others, only that endpoint is.
                is_busy = bool(error.retry_after_s) and self.health[endpoint].failures == 1
                return nothing_responded or (is_busy and will_retry)
        return False

    def _record_fetch(self, endpoint: Endpoint[Any], started_at: float, now: float) -> None:
        """Note how long an endpoint took; what was due when it started is part of this sweep."""
        health = self.health[endpoint]
        health.duration_s = max(now - started_at, 0.8 * health.duration_s)
        if endpoint is METER_READINGS:
            return
        self.sweep.fetched.add(endpoint)
        for cadence, due_at in self._due_at.items():
            if due_at <= started_at:
                self.sweep.cadences.add(cadence)
                self._due_at[cadence] = started_at + self._intervals_s[cadence] - MARGIN_S
        total_s = sum(self.health[each].duration_s for each in SWEEP if each.cadence is endpoint.cadence)
        self._due_at[endpoint.cadence] = max(self._due_at[endpoint.cadence], now + total_s / MAX_SWEEP_SHARE)

    def _is_wanted(self, endpoint: Endpoint[Any], now: float, site: Site) -> bool:
        if self.health[endpoint].retry_at > now or not endpoint.is_wanted(site, self.sweep.responses):
            return False
        replaced = endpoint.fallback_for
        if replaced is None:
            return True
        health = self.health[replaced]
        # One that timed out would time out under its other path too.
        return self.sweep.responses.get(replaced) is None and health.failures > 0 and not health.timed_out

    def _fits(self, endpoint: Endpoint[Any], now: float, slot_at: float) -> bool:
        """Return whether a response is expected before the next slot, or would never be."""
        expected_s = self.health[endpoint].duration_s + MARGIN_S
        return expected_s > self.slots.interval_s or now + expected_s <= slot_at


def _outcome(endpoint: Endpoint[Any], error: GatewayError) -> str:
    """Return how a fetch failed, for people, as what follows the endpoint's path in a sentence."""
    match error:
        case TokenRejected():
            return "is rejected"
        case EndpointMissing():
            return "does not exist"
        case GatewayUnavailable():
            return "does not respond"
    return f"is not readable ({str(error).removeprefix(endpoint.path).removeprefix(': ')})"


def seconds_to_slot(now: float, interval_s: float, phase: float = 0.5) -> float:
    """Return the seconds from now to that place in the next slot; slots begin at multiples of the interval."""
    return interval_s - (now - interval_s * phase) % interval_s


def phase_of(number: int, gateways: int) -> float:
    """Return where in the slot one of several gateways is polled: one in the middle, many around it, in turn."""
    return 0.5 + PHASE_SPREAD * ((number + 0.5) / gateways - 0.5)
