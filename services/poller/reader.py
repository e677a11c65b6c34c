"""What to ask a gateway for, and what to remember of its answers from one poll to the next.

Its meters answer at once and are asked in every poll. Everything else is asked for in between, one question at a time,
and what was answered becomes part of the next poll's readings, so that all readings of a poll are of one moment.
A path that has no answer, or none that can be read, is asked for less and less often.
"""

import enum
import logging
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter

from services.poller import answers as shapes
from services.poller.answers import Answers
from services.poller.clock import told
from services.poller.counters import Counters
from services.poller.envoy import (
    DEADLINE_S,
    SLOW_DEADLINE_S,
    BadResponse,
    CertificateChanged,
    EndpointBroken,
    EndpointMissing,
    Envoy,
    GatewayUnavailable,
    Identity,
    TokenRejected,
)
from services.poller.inverters import lists_all_inverters
from services.poller.sources import ProductionSource, info_of, is_enabled, production_source, readings_of
from shared.messages import GatewayInfo
from shared.readings import Inverter, Reading

logger = logging.getLogger(__name__)

FIRST_FIRMWARE_WITH_BATTERIES = (5,)
"""IQ Batteries came with it (pyenphase/pyenphase, src/pyenphase/const.py)."""

MAX_REFUSALS = 4
"""Some answers need a higher role than an owner's; when so many are refused and none is given, all will be."""

ASK_AGAIN_S, ASK_AGAIN_AT_LAST_S = 60.0, 3600.0
NO_ANSWER = "does not answer"
LOOK_AT_CLOCK_S = 60.0
FUTURE_S = 3600
"""A reading from so far ahead was not taken then."""


class Cycle(enum.Enum):
    """Which questions are due: the meters', the inverters', or all others."""

    METERS = enum.auto()
    INVERTERS = enum.auto()
    SLOW = enum.auto()


@dataclass(frozen=True, slots=True)
class Question:
    """A path to ask for, and which of the answers it gives."""

    name: str
    path: str
    shape: TypeAdapter[Any]
    deadline_s: float = DEADLINE_S


INFO = Question("identity", "/info", TypeAdapter(object))
METERS = Question("meter_details", "/ivp/meters", shapes.METER_DETAILS)
METER_READINGS = Question("meter_readings", "/ivp/meters/readings", shapes.METER_READINGS)
GATEWAY_PRODUCTION = Question("gateway_production", "/api/v1/production", shapes.GATEWAY_PRODUCTION)
PDM_ENERGY = Question("pdm_energy", "/ivp/pdm/energy", shapes.PDM_ENERGY)
BATTERIES = Question("batteries", "/ivp/ensemble/inventory", shapes.BATTERIES)
BATTERY_POWER = Question("battery_power", "/ivp/ensemble/power", shapes.BATTERY_POWER)
BATTERY_TOTALS = Question("battery_totals", "/ivp/ensemble/secctrl", shapes.BATTERY_TOTALS)
DEVICE_DATA = Question("device_data", "/ivp/pdm/device_data", shapes.DEVICE_DATA)
INVERTERS = Question("inverters", "/api/v1/production/inverters", shapes.INVERTER_REPORTS)
PRODUCTION_JSON = Question("production_json", "/production.json", shapes.PRODUCTION_JSON, SLOW_DEADLINE_S)
PRODUCTION_ELSEWHERE = tuple(
    Question("production_json", path, shapes.PRODUCTION_JSON, SLOW_DEADLINE_S)
    for path in ("/production.json?details=1", "/production")
)
"""The same, for a gateway that refuses ``/production.json``, as some early firmware 7 does (pyenphase, updaters)."""

QUESTIONS = {
    Cycle.SLOW: (
        INFO,
        GATEWAY_PRODUCTION,
        METERS,
        BATTERIES,
        BATTERY_POWER,
        BATTERY_TOTALS,
        PDM_ENERGY,
        PRODUCTION_JSON,
        *PRODUCTION_ELSEWHERE,
    ),
    Cycle.INVERTERS: (DEVICE_DATA, INVERTERS),
}


@dataclass(slots=True)
class _Standing:
    """How the questions for a path fared lately."""

    failures: int = 0
    not_before: float = 0.0
    took_s: float = 0.0
    told: str | None = None
    outcome: str = ""

    def failed(self, outcome: str) -> None:
        self.failures += 1
        self.outcome = outcome
        # Once is nothing; a gateway that restarts fails once.
        delay_s = ASK_AGAIN_S * 2.0 ** min(self.failures - 2, 16) if self.failures > 1 else 0.0
        self.not_before = time.monotonic() + min(delay_s, ASK_AGAIN_AT_LAST_S)

    def answered(self) -> None:
        self.failures, self.not_before, self.outcome = 0, 0.0, ""

    def took(self, duration_s: float) -> None:
        self.took_s = max(duration_s, 0.8 * self.took_s)


@dataclass(slots=True)
class _Round:
    """How the questions between two polls fared."""

    answers: dict[str, Any] = field(default_factory=dict)
    answered: int = 0
    refusals: int = 0
    incomplete: bool = False
    """Whether something was not answered that may be another time."""


class GatewayReader:
    """Reads one gateway, whose identity and access are known."""

    def __init__(self, envoy: Envoy, identity: Identity) -> None:
        self.identity = identity
        self.counters = Counters(time.monotonic)
        self._envoy = envoy
        self._source: ProductionSource | None = None
        self._source_is_certain = False
        self._meter_details: tuple[shapes.MeterDetails, ...] = ()
        self._fewer_meters_seen = False
        self._has_batteries = False
        self._has_ac_batteries = False
        self._info = info_of(identity, Answers(), None)
        self._standings: dict[str, _Standing] = {}
        self._pending: deque[Question] = deque()
        self._round = _Round()
        self._finished: _Round | None = None
        self._newest_report: dict[str, int] = {}
        self._looked_at_clock = time.monotonic()
        self._clock_agrees = True
        self._production_json: shapes.ProductionJson | None = None

    @property
    def info(self) -> GatewayInfo:
        """What the gateway is, as far as it has been read."""
        return self._info

    @property
    def meters_enabled(self) -> bool:
        """Whether there are meters to be asked in the next poll."""
        if self._standing(METER_READINGS.path).not_before > time.monotonic():
            return False
        return any(is_enabled(details) for details in self._meter_details)

    def outcomes(self) -> dict[str, str]:
        """Return how the newest questions fared that were not answered, by their paths and for people."""
        return {path: standing.outcome for path, standing in self._standings.items() if standing.outcome}

    def access_changed(self) -> None:
        """Take into account that what was refused before may be answered now."""
        for standing in self._standings.values():
            standing.not_before = 0.0

    def read(self, *, only_once: bool = False) -> list[Reading]:
        """Ask for everything and return the readings of it.

        Args:
            only_once: it will not be asked again, so that what it does not answer now is done without.

        Raises:
            GatewayUnavailable: the gateway does not answer.
            TokenRejected: it refuses everything that it was asked.
        """
        self.begin((Cycle.SLOW, Cycle.INVERTERS))
        while (question := self.next_question()) is not None:
            self.ask(question, patient=not only_once)
        return self.poll()

    def begin(self, cycles: Iterable[Cycle]) -> None:
        """Let the questions of these cycles be pending; those that wait already wait on."""
        due = [question for cycle in cycles for question in QUESTIONS.get(cycle, ()) if question not in self._pending]
        # What takes seconds comes last: its answer is then the freshest in the next poll.
        self._pending.extend(sorted(due, key=lambda question: question.deadline_s))

    def next_question(self) -> Question | None:
        """Return the next question to ask before the next poll; None once all are answered."""
        while self._pending and not self._wanted(self._pending[0]):
            self._pending.popleft()
        if not self._pending and self._round.answered:
            self._finished, self._round = self._round, _Round()
        return self._pending[0] if self._pending else None

    @property
    def has_news(self) -> bool:
        """Whether answers wait for the next poll."""
        return self._finished is not None

    def expected_s(self, question: Question) -> float:
        """Return how long the answer will take, as far as is known."""
        return self._standing(question.path).took_s

    def ask(self, question: Question, *, patient: bool = True) -> None:
        """Ask a question that :meth:`next_question` returned.

        Args:
            question: the question.
            patient: a gateway that says "busy" is left alone, and asked again. Where it says so of the same path twice
                and answers others, that path alone is busy.

        Raises:
            GatewayUnavailable: the gateway does not answer.
            TokenRejected: it refuses everything that it was asked.
        """
        self._pending.remove(question)
        if question is INFO:
            self.look_at_clock()
            return
        this_round = self._round
        try:
            answer = self._ask(question)
        except TokenRejected:
            this_round.refusals += 1
            if not this_round.answered and (this_round.refusals >= MAX_REFUSALS or self.next_question() is None):
                self._forget_round()
                raise
        except (EndpointMissing, BadResponse) as error:
            this_round.answered += 1
            this_round.incomplete |= isinstance(error, EndpointBroken)
        except GatewayUnavailable as error:
            asked_to_wait = error.retry_after_s and patient and self._standing(question.path).failures == 1
            if asked_to_wait or not this_round.answered or isinstance(error, CertificateChanged):
                self._forget_round()
                raise
            # It answers others: this one is slow today.
            this_round.incomplete = True
        else:
            this_round.answered += 1
            this_round.answers[question.name] = answer
            self._take(question, answer)

    def _take(self, question: Question, answer: Any) -> None:  # noqa: ANN401 - the question tells its shape
        """Draw from an answer what is to be asked next."""
        match question.name:
            case "meter_details":
                self._take_meters(answer)
            case "batteries":
                self._has_batteries = bool(answer)
            case "production_json":
                self._has_ac_batteries = any(each.type == "acb" and each.activeCount > 0 for each in answer.storage)
                if self._has_ac_batteries and BATTERY_TOTALS.name not in self._round.answers:
                    self._pending.appendleft(BATTERY_TOTALS)
            case "device_data" if not lists_all_inverters(answer):
                self._standing(question.path).failed("does not list all inverters")

    def _forget_round(self) -> None:
        self._pending.clear()
        self._round = _Round()

    def _wanted(self, question: Question) -> bool:
        """Return whether a question is worth asking, after what was answered so far."""
        known = self._round.answers
        wanted = True
        match question:
            case _ if self._standing(question.path).not_before > time.monotonic():
                wanted = False
            case Question(name="identity"):
                wanted = time.monotonic() - self._looked_at_clock > LOOK_AT_CLOCK_S / 2
            case _ if question in PRODUCTION_ELSEWHERE:
                first = self._standing(PRODUCTION_JSON.path)
                wanted = "production_json" not in known and first.failures > 0 and first.outcome != NO_ANSWER
            case Question(name="batteries"):
                wanted = self.identity.version >= FIRST_FIRMWARE_WITH_BATTERIES
            case Question(name="battery_power" | "battery_totals"):
                wanted = self._has_batteries or self._has_ac_batteries
            case Question(name="pdm_energy"):
                wanted = self._source == "inverters"
            case Question(name="device_data"):
                wanted = self.identity.needs_token
            case Question(name="inverters"):
                wanted = "device_data" not in known or not lists_all_inverters(known["device_data"])
        return wanted

    def poll(self) -> list[Reading]:
        """Ask the meters, and return the readings of their answer and of what was answered since the last poll.

        Raises:
            GatewayUnavailable: the gateway does not answer.
            TokenRejected: it refuses the meters, and more.
        """
        meter_readings: tuple[shapes.MeterReading, ...] = ()
        if self.meters_enabled:
            try:
                meter_readings = self._ask(METER_READINGS)
            except TokenRejected:
                # If this is answered, whatever it is, it is the meters alone that are refused.
                with suppress(EndpointMissing, BadResponse):
                    self._ask(GATEWAY_PRODUCTION)
            except (EndpointMissing, BadResponse):
                pass
            if not meter_readings and self._finished is None:
                return []
        finished, self._finished = self._finished, None
        answers = self._together(meter_readings, finished)
        if finished is not None:
            self._choose_source(answers, certain=not finished.incomplete)
        self._watch_clock(meter_readings)
        if finished is not None:
            self._production_json = answers.production_json or self._production_json
            known = replace(answers, production_json=self._production_json)
            self._info = info_of(self.identity, known, self._source, self._envoy.clock.offset_s)
        elif self._info.clock_offset_s != self._envoy.clock.offset_s:
            self._info = self._info.model_copy(update={"clock_offset_s": self._envoy.clock.offset_s})
        readings = readings_of(self.identity, answers, self._source, self._envoy.clock.now())
        return [self.counters.checked(reading) for reading in self._at_true_times(self._new(readings))]

    def _together(self, meter_readings: tuple[shapes.MeterReading, ...], finished: _Round | None) -> Answers:
        answered = finished.answers if finished is not None else {}
        answered = {name: answer for name, answer in answered.items() if name != METERS.name}
        if "production_json" not in answered and self._has_ac_batteries:
            # The totals of IQ Batteries alone would pass for those of all.
            for name in ("batteries", "battery_power", "battery_totals"):
                answered.pop(name, None)
        return Answers(
            meter_details=self._meter_details,
            meter_readings=meter_readings,
            batteries_answer=self._has_batteries or self._has_ac_batteries,
            production_json_answers=self._production_json is not None,
            **answered,
        )

    def _take_meters(self, details: tuple[shapes.MeterDetails, ...]) -> None:
        """Take in which meters there are; that some are gone is believed when it was told twice."""
        known = {each.eid for each in self._meter_details if is_enabled(each)}
        fewer = bool(known - {each.eid for each in details if is_enabled(each)})
        if fewer and not self._fewer_meters_seen:
            self._fewer_meters_seen = True
            return
        self._fewer_meters_seen = False
        self._meter_details = details

    def _choose_source(self, answers: Answers, *, certain: bool) -> None:
        """Hold the source of the production: another counts differently, and the count would jump (pyenphase#480).

        It is chosen anew only where it never was certain, or when the production meter was switched on or off.
        """
        found = production_source(self.identity, answers)
        metered = any(each.measurementType == "production" and is_enabled(each) for each in answers.meter_details)
        switched = (found == "meter" and metered) or (self._source == "meter" and not metered and found is not None)
        if found is None or found == self._source:
            self._source_is_certain |= certain and found is not None
            return
        if self._source is not None:
            if self._source_is_certain and not (switched and certain):
                return
            logger.warning(
                "gateway %s: production comes from the %s from now on, not from the %s; its count may jump",
                self.identity.serial,
                found,
                self._source,
            )
        self._source, self._source_is_certain = found, certain

    def look_at_clock(self) -> None:
        """Look at the gateway's clock, and whether it is still the same gateway with the same firmware.

        Raises:
            GatewayUnavailable: it does not answer, or is another one now.
        """
        self._looked_at_clock = time.monotonic()
        before = self._envoy.clock.offset_s
        try:
            identity = self._envoy.identify()
        except (BadResponse, EndpointMissing, TokenRejected) as error:
            logger.debug("gateway %s: %s", self.identity.serial, error)
            return
        if identity != self.identity:
            raise GatewayUnavailable(f"{self._envoy.base_url} has become {identity.serial}, {identity.firmware}")
        after = self._envoy.clock.offset_s
        if after != before:
            self._tell_clock(after)

    def _tell_clock(self, offset_s: int | None) -> None:
        if offset_s is None:
            logger.info("gateway %s: its clock is right", self.identity.serial)
        elif self._envoy.clock.correction_s:
            logger.warning(
                "gateway %s: its clock is %s; the times of its readings are corrected",
                self.identity.serial,
                told(offset_s),
            )
        else:
            logger.warning(
                "gateway %s: its clock is %s; as it cannot be known which is wrong, its times are kept",
                self.identity.serial,
                told(offset_s),
            )

    def _watch_clock(self, meter_readings: tuple[shapes.MeterReading, ...]) -> None:
        """Look at the clock again where the meters' time stops fitting it, and now and then while it does not."""
        newest = max((reading.timestamp or 0 for reading in meter_readings), default=0)
        agreed, self._clock_agrees = self._clock_agrees, not newest or self._envoy.clock.agrees(newest)
        if not self._clock_agrees and (agreed or time.monotonic() - self._looked_at_clock > LOOK_AT_CLOCK_S):
            self.look_at_clock()

    def _at_true_times(self, readings: Iterable[Reading]) -> list[Reading]:
        """Return the readings with the gateway's times corrected, without those from the future."""
        correction_s = self._envoy.clock.correction_s
        latest = self._envoy.clock.ours() + FUTURE_S
        corrected = (
            reading.model_copy(update={"timestamp": reading.timestamp + correction_s}) if correction_s else reading
            for reading in readings
        )
        return [reading for reading in corrected if 0 < reading.timestamp <= latest]

    def _new(self, readings: Iterable[Reading]) -> list[Reading]:
        """Leave out the inverters' reports that were read before: they come every five minutes, and not at night.

        A report an hour older than the newest is a new one of a gateway whose clock was set back.
        """
        new = []
        for reading in readings:
            if isinstance(reading, Inverter):
                newest = self._newest_report.get(reading.serial, 0)
                if newest - 3600 <= reading.timestamp <= newest:
                    continue
                self._newest_report[reading.serial] = reading.timestamp
            new.append(reading)
        return new

    def _standing(self, path: str) -> _Standing:
        return self._standings.setdefault(path, _Standing())

    def _ask(self, question: Question) -> Any:  # noqa: ANN401 - the question tells its shape
        """Return the answer, and keep in mind how it fared."""
        standing = self._standing(question.path)
        began = time.monotonic()
        try:
            answer = self._envoy.get(question.path, question.shape, question.deadline_s)
        except EndpointMissing:
            standing.failed("is not there")
            raise
        except TokenRejected:
            standing.failed("is refused")
            raise
        except GatewayUnavailable:
            standing.failed(NO_ANSWER)
            raise
        except BadResponse as error:
            standing.failed(f"cannot be read ({str(error).removeprefix(question.path).removeprefix(': ')})")
            if standing.told != str(error):
                standing.told = str(error)
                logger.warning("gateway %s: passed over an answer to %s", self.identity.serial, error)
            raise
        finally:
            standing.took(time.monotonic() - began)
        standing.answered()
        if standing.told is not None:
            standing.told = None
            logger.info("gateway %s: %s can be read again", self.identity.serial, question.path)
        return answer
