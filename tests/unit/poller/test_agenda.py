"""What an agenda names next: slots, sweeps, cadences and endpoints that fail."""

import itertools
from typing import Any

import pytest

from services.poller import models
from services.poller.agenda import (
    FIRST_RETRY_S,
    MARGIN_S,
    MAX_RETRY_S,
    Agenda,
    Fetch,
    Identify,
    Poll,
    Task,
    Wait,
    phase_of,
    seconds_to_slot,
)
from services.poller.endpoints import (
    BATTERIES,
    BATTERY_POWER,
    BATTERY_TOTALS,
    DEVICE_DATA,
    GATEWAY_PRODUCTION,
    INVERTERS,
    METER_READINGS,
    METERS,
    PRODUCTION,
    PRODUCTION_JSON,
    PRODUCTION_JSON_DETAILS,
    Endpoint,
)
from services.poller.errors import (
    BadResponse,
    EndpointBroken,
    EndpointMissing,
    GatewayError,
    GatewayUnavailable,
    GatewayUntrusted,
    TokenRejected,
)
from services.poller.identity import Identity
from services.poller.settings import PollSettings
from services.poller.snapshot import Site

NEW = Identity("122012345678", None, "8.3.5169", metered_hardware=True)
OLD = Identity("122012345678", None, "5.0.62", metered_hardware=True)
ANCIENT = Identity("122012345678", None, "3.9.36", metered_hardware=True)
METER = models.MeterDetails(eid=1, state="enabled", measurementType="production")
METERED = Site(NEW, (METER,))
UNMETERED = Site(NEW)
SETTINGS = PollSettings(interval_s=10, inverters_interval_s=60, slow_interval_s=60)

RESPONSES: dict[Endpoint[Any], Any] = {
    METER_READINGS: (),
    METERS: (METER,),
    GATEWAY_PRODUCTION: models.GatewayProduction(wattsNow=1),
    BATTERIES: (),
    BATTERY_POWER: models.EnsemblePower(),
    BATTERY_TOTALS: models.BatteryTotals(),
    DEVICE_DATA: models.DeviceData(
        deviceCount=1,
        deviceDataLimit=50,
        devices=(
            models.Device(
                devName="pcu",
                sn="1",
                active=True,
                channels=(
                    models.DeviceChannel(watts=models.ChannelWatts(now=1), lastReading=models.LastReading(endDate=1)),
                ),
            ),
        ),
    ),
    INVERTERS: (),
    PRODUCTION_JSON: models.ProductionJson(),
    PRODUCTION_JSON_DETAILS: models.ProductionJson(),
    PRODUCTION: models.ProductionJson(),
}


class Gateway:
    """A gateway with an agenda: does what it names, while the time passes."""

    def __init__(self, site: Site, settings: PollSettings = SETTINGS) -> None:
        self.site = site
        self.now = 1000.0
        self.agenda = Agenda(settings, lambda: self.now)
        self.agenda.restart(self.now)
        self.duration_s: dict[Endpoint[Any], float] = {}
        self.errors: dict[Endpoint[Any], GatewayError] = {}
        self.log: list[tuple[float, str]] = []

    def next_task(self) -> Task:
        """Return what is to be done now."""
        return self.agenda.next_task(self.now, self.site)

    def step(self) -> Task:
        """Do the next task, and return it."""
        match task := self.next_task():
            case Wait(until):
                self.now = max(until, self.now)
            case Fetch(endpoint):
                self._fetch(endpoint)
                if endpoint not in self.errors:
                    self.site = self.site.after(endpoint, self.agenda.sweep.responses)
            case Identify():
                self.log.append((self.now, "identify"))
                self.agenda.record_identified(self.now)
            case Poll() as poll:
                self._poll(poll)
        return task

    def run_until(self, end: float) -> None:
        """Do everything up to a time."""
        while self.now < end:
            self.step()

    def first_poll(self) -> None:
        """Do everything up to and including the first poll."""
        while not isinstance(self.step(), Poll):
            pass

    def fetched(self) -> list[str]:
        """Return the paths that were fetched, and forget them."""
        paths = [what for _, what in self.log if what.startswith("/")]
        self.log.clear()
        return paths

    def polls(self) -> list[float]:
        """Return when the gateway was polled."""
        return [at for at, what in self.log if what == "poll"]

    def _poll(self, poll: Poll) -> None:
        started_at = self.now
        self.log.append((self.now, "poll"))
        if poll.meters:
            self._fetch(METER_READINGS)
        self.agenda.record_poll(poll, started_at, self.now)

    def _fetch(self, endpoint: Endpoint[Any]) -> None:
        self.log.append((self.now, endpoint.path))
        started_at, self.now = self.now, self.now + self.duration_s.get(endpoint, 0.01)
        if (error := self.errors.get(endpoint)) is not None:
            self.agenda.record_failure(endpoint, error, started_at, self.now)
        else:
            self.agenda.record_response(endpoint, RESPONSES[endpoint], started_at, self.now)


def test_a_query_of_the_next_task_changes_nothing() -> None:
    """A query is only a query."""
    gateway = Gateway(METERED)

    assert [gateway.next_task() for _ in range(3)] == [Fetch(GATEWAY_PRODUCTION)] * 3
    gateway.first_poll()
    gateway.now = 1015.0
    assert gateway.next_task() == gateway.next_task() == Poll(meters=True, sweep=None)


def test_at_first_everything_is_fetched_at_once_and_then_polled() -> None:
    """The slow endpoint last; nothing waits for a slot."""
    gateway = Gateway(METERED)

    gateway.first_poll()

    assert gateway.fetched() == [
        "/api/v1/production",
        "/ivp/meters",
        "/ivp/ensemble/inventory",
        "/ivp/pdm/device_data",
        "/production.json",
        "/ivp/meters/readings",
    ]


@pytest.mark.parametrize(
    ("site", "unwanted"),
    [
        (Site(ANCIENT), {"/ivp/ensemble/inventory", "/ivp/pdm/device_data", "/ivp/pdm/energy"}),
        (Site(OLD), {"/ivp/pdm/device_data", "/ivp/ensemble/power"}),
        (Site(NEW), {"/api/v1/production/inverters", "/ivp/ensemble/secctrl"}),
    ],
)
def test_only_what_a_gateway_may_have_is_fetched(site: Site, unwanted: set[str]) -> None:
    """Batteries from firmware 5 on, details of inverters from 7 on, otherwise the plain list."""
    gateway = Gateway(site)

    gateway.first_poll()

    fetched = set(gateway.fetched())
    assert not fetched & unwanted
    assert ("/api/v1/production/inverters" in fetched) != ("/ivp/pdm/device_data" in fetched)


def test_batteries_that_are_found_have_power_and_totals_fetched_in_the_same_sweep() -> None:
    """Also where only the slow endpoint, which comes last, lists AC Batteries."""
    storage = models.ProductionEntry(type="acb", activeCount=1)
    gateway = Gateway(METERED)
    RESPONSES_WITH_BATTERIES = RESPONSES | {PRODUCTION_JSON: models.ProductionJson(storage=(storage,))}  # noqa: N806
    while (task := gateway.next_task()) != Poll(meters=True, sweep=gateway.agenda.sweep):
        assert isinstance(task, Fetch)
        response = RESPONSES_WITH_BATTERIES[task.endpoint]
        gateway.log.append((gateway.now, task.endpoint.path))
        gateway.agenda.record_response(task.endpoint, response, gateway.now, gateway.now)
        gateway.site = gateway.site.after(task.endpoint, gateway.agenda.sweep.responses)

    assert gateway.fetched()[-2:] == ["/ivp/ensemble/power", "/ivp/ensemble/secctrl"]


def test_meters_are_polled_once_in_each_slot() -> None:
    """In its middle, whatever else is fetched in between."""
    gateway = Gateway(METERED)
    gateway.first_poll()
    gateway.log.clear()

    gateway.run_until(1300)

    assert [round(at, 3) for at in gateway.polls()] == [1005 + 10 * slot for slot in range(30)]
    assert gateway.agenda.slots.missed == 0


def test_a_sweep_is_part_of_one_poll() -> None:
    """Its responses are interpreted together, once."""
    gateway = Gateway(METERED)
    gateway.first_poll()
    sweeps: list[float] = []

    while gateway.now < 1200:
        task = gateway.step()
        if isinstance(task, Poll) and task.sweep is not None:
            sweeps.append(round(gateway.now))
            assert task.sweep.responses.get(PRODUCTION_JSON) is not None
            assert task.sweep.responses.get(DEVICE_DATA) is not None

    assert sweeps == [1065, 1125, 1185]


def test_each_cadence_has_its_own_interval() -> None:
    """Here inverters every twenty seconds, the slow endpoints every minute."""
    gateway = Gateway(METERED, PollSettings(interval_s=10, inverters_interval_s=20, slow_interval_s=60))
    gateway.first_poll()
    gateway.fetched()

    gateway.run_until(1121)

    fetched = gateway.fetched()
    assert (fetched.count("/ivp/pdm/device_data"), fetched.count("/production.json")) == (6, 2)


def test_info_is_checked_once_in_each_slow_interval() -> None:
    """The search for the gateway has read it already."""
    gateway = Gateway(METERED)

    gateway.run_until(1200)

    assert [round(at) for at, what in gateway.log if what == "identify"] == [1060, 1120, 1180]


def test_a_slow_endpoint_is_fetched_where_it_ends_before_the_next_slot() -> None:
    """It takes seven of ten seconds; no slot is missed."""
    gateway = Gateway(METERED)
    gateway.duration_s[PRODUCTION_JSON] = 7.0
    gateway.first_poll()
    gateway.log.clear()

    gateway.run_until(1400)

    assert gateway.agenda.slots.missed == 0
    started = [at for at, what in gateway.log if what == "/production.json"]
    assert len(started) >= 3
    assert all((at - 5) % 10 <= 3 - MARGIN_S for at in started)


def test_an_endpoint_that_takes_longer_than_a_slot_is_fetched_nevertheless() -> None:
    """The slots that it takes are missed and counted, and it takes a fifth of the time at most."""
    gateway = Gateway(METERED)
    gateway.duration_s[PRODUCTION_JSON] = 25.0
    gateway.first_poll()
    gateway.log.clear()

    gateway.run_until(3000)

    started = [at for at, what in gateway.log if what == "/production.json"]
    assert len(started) >= 5
    assert all(later - earlier >= 125 for earlier, later in itertools.pairwise(started))
    assert gateway.agenda.slots.missed >= 2 * len(started)
    slots = [int(at // 10) for at in gateway.polls()]
    assert len(set(slots)) == len(slots)


def test_slow_meters_are_polled_less_often() -> None:
    """They take half of the time at most."""
    gateway = Gateway(METERED)
    gateway.duration_s[METER_READINGS] = 8.0
    gateway.first_poll()
    gateway.log.clear()

    gateway.run_until(1400)

    polls = gateway.polls()
    assert all(later - earlier >= 16 for earlier, later in itertools.pairwise(polls))
    assert gateway.agenda.slots.missed == pytest.approx(len(polls), abs=2)


def test_a_slot_that_was_missed_is_counted_and_the_next_one_is_polled() -> None:
    """Whatever kept the poller: only the slots that passed whole are missed."""
    gateway = Gateway(METERED)
    gateway.run_until(1016)
    gateway.log.clear()

    gateway.now = 1058.0  # too late for the slot of 1055
    gateway.run_until(1086)

    assert [round(at) for at in gateway.polls()] == [1065, 1075, 1085]
    assert gateway.agenda.slots.missed == 4


def test_an_unmetered_gateway_is_polled_when_a_sweep_is_complete() -> None:
    """There are no meters whose slot it would have to wait for, and none is missed."""
    gateway = Gateway(UNMETERED)
    RESPONSES[METERS] = ()
    try:
        gateway.first_poll()
        gateway.log.clear()
        gateway.run_until(1200)
    finally:
        RESPONSES[METERS] = (METER,)

    assert [round(at) for at in gateway.polls()] == [1060, 1120, 1180]
    assert gateway.agenda.slots.missed == 0


def test_an_endpoint_that_fails_once_is_fetched_in_the_next_sweep() -> None:
    """A gateway that restarts fails once."""
    gateway = Gateway(METERED)
    gateway.errors[GATEWAY_PRODUCTION] = EndpointBroken("500")
    gateway.first_poll()
    gateway.fetched()

    gateway.run_until(1075)

    assert "/api/v1/production" in gateway.fetched()


def test_an_endpoint_that_keeps_failing_is_fetched_less_and_less_often() -> None:
    """After about 1, 2, 4 … minutes, an hour at most."""
    gateway = Gateway(METERED)
    gateway.errors[GATEWAY_PRODUCTION] = EndpointMissing("404")

    gateway.run_until(1000 + 86_400)

    fetched = [at for at, what in gateway.log if what == "/api/v1/production"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(fetched)]
    assert gaps[1] <= 2 * FIRST_RETRY_S + 60
    assert max(gaps) <= MAX_RETRY_S + 120
    assert min(gaps[-3:]) >= MAX_RETRY_S / 2
    assert gateway.agenda.health[GATEWAY_PRODUCTION].outcome == "does not exist"


def test_a_success_ends_the_back_off() -> None:
    """From then on it is fetched at its cadence again."""
    gateway = Gateway(METERED)
    gateway.errors[GATEWAY_PRODUCTION] = EndpointMissing("404")
    gateway.run_until(2000)
    gateway.errors.clear()
    gateway.agenda.forget_failures()
    gateway.run_until(2100)
    gateway.fetched()

    gateway.run_until(2400)

    assert gateway.fetched().count("/api/v1/production") == 5
    assert gateway.agenda.health[GATEWAY_PRODUCTION].outcome == ""


@pytest.mark.parametrize(
    ("error", "fetched"),
    [
        (TokenRejected("401"), ["/production.json?details=1"]),
        (EndpointMissing("404"), ["/production.json?details=1"]),
        (BadResponse("<html>"), ["/production.json?details=1"]),
        # It would time out under its other path too.
        (GatewayUnavailable("timed out"), []),
    ],
)
def test_a_rejected_endpoint_is_replaced_by_its_fallback(error: GatewayError, fetched: list[str]) -> None:
    """The fallback's response counts as that of the endpoint."""
    gateway = Gateway(METERED)
    gateway.errors[PRODUCTION_JSON] = error

    while not isinstance(gateway.next_task(), Poll):
        gateway.step()

    assert [path for path in gateway.fetched() if "details" in path or path == "/production"] == fetched
    assert (gateway.agenda.sweep.responses.get(PRODUCTION_JSON) is not None) == bool(fetched)


def test_an_incomplete_list_of_devices_is_fetched_less_often_and_the_plain_list_instead() -> None:
    """It is truncated, and will be the next time."""
    gateway = Gateway(METERED)
    truncated = models.DeviceData(deviceCount=60, deviceDataLimit=50)
    gateway.agenda.record_response(DEVICE_DATA, truncated, 1000, 1000)

    gateway.first_poll()

    assert "/api/v1/production/inverters" in gateway.fetched()
    assert gateway.agenda.health[DEVICE_DATA].failures == 1


def test_a_restart_makes_everything_due_at_once() -> None:
    """As after the gateway was found again."""
    gateway = Gateway(METERED)
    gateway.run_until(1030)
    gateway.fetched()

    gateway.agenda.restart(gateway.now)
    gateway.first_poll()

    assert len(gateway.fetched()) == 6


def test_where_nothing_can_be_fetched_the_meters_are_polled_on() -> None:
    """Every other endpoint is in its back-off: the agenda waits, and does not spin."""
    gateway = Gateway(METERED)
    gateway.errors = dict.fromkeys(RESPONSES.keys() - {METER_READINGS}, EndpointMissing("404"))
    gateway.run_until(2000)
    gateway.log.clear()
    steps = 0
    while gateway.now < 2100:
        gateway.step()
        steps += 1

    assert len(gateway.polls()) == 10
    assert steps < 100


@pytest.mark.parametrize(
    ("before", "error", "is_last", "will_retry", "expected"),
    [
        ([], GatewayUnavailable("timed out"), False, True, True),
        (["responded"], GatewayUnavailable("timed out"), False, True, False),
        (["responded"], GatewayUnavailable("503", 30), False, True, True),
        (["responded"], GatewayUnavailable("503", 30), False, False, False),
        (["responded"], GatewayUntrusted("another certificate"), False, True, True),
        ([], TokenRejected("401"), False, True, False),
        ([], TokenRejected("401"), True, True, True),
        (["rejected", "rejected", "rejected"], TokenRejected("401"), False, True, True),
        (["responded"], TokenRejected("401"), True, True, False),
        ([], EndpointMissing("404"), True, True, False),
        ([], BadResponse("<html>"), True, True, False),
    ],
)
def test_an_error_concerns_the_gateway_where_nothing_shows_that_it_is_the_endpoints_alone(
    before: list[str],
    error: GatewayError,
    is_last: bool,  # noqa: FBT001 - a table
    will_retry: bool,  # noqa: FBT001 - a table
    expected: bool,  # noqa: FBT001 - a table
) -> None:
    """Another endpoint that responded shows that the gateway does, and accepts the credential."""
    agenda = Agenda(SETTINGS, lambda: 0.0)
    others: tuple[Endpoint[Any], ...] = (METERS, BATTERIES, DEVICE_DATA)
    for endpoint, outcome in zip(others, before, strict=False):
        if outcome == "responded":
            agenda.record_response(endpoint, RESPONSES[endpoint], 0, 0)
        else:
            agenda.record_failure(endpoint, TokenRejected("401"), 0, 0)
    agenda.record_failure(PRODUCTION_JSON, error, 0, 0)

    found = agenda.concerns_the_gateway(error, PRODUCTION_JSON, is_last=is_last, will_retry=will_retry)

    assert found is expected


@pytest.mark.parametrize(("now", "wait_s"), [(0.0, 5.0), (4.9, 0.1), (5.0, 10.0), (9.0, 6.0), (1_800_000_003.5, 1.5)])
def test_a_poll_is_in_the_middle_of_its_slot(now: float, wait_s: float) -> None:
    """With an interval of ten seconds at five past each: a little late or early, it stays in its slot."""
    assert seconds_to_slot(now, 10.0) == pytest.approx(wait_s, abs=1e-6)


def test_several_gateways_are_polled_in_turn() -> None:
    """One in the middle of the slot, many around it."""
    assert phase_of(0, 1) == 0.5
    assert [round(phase_of(number, 4), 2) for number in range(4)] == [0.35, 0.45, 0.55, 0.65]


def test_the_pace_does_not_change_when_the_wall_clock_is_set() -> None:
    """Slots are on the monotonic clock; only their places follow the wall clock."""
    gateway = Gateway(METERED)
    gateway.first_poll()
    gateway.log.clear()
    ahead_s = [0.0]
    gateway.agenda.slots._clock = lambda: gateway.now + ahead_s[0]
    for ahead_s[0] in (400 * 86_400.0, -86_400.0 - 3, 0.0):
        gateway.run_until(gateway.now + 60)

    polls = gateway.polls()
    assert all(later - earlier <= 20 for earlier, later in itertools.pairwise(polls))
    assert gateway.agenda.slots.missed <= 1
