"""What to ask a gateway for, and what to remember of its answers from one poll to the next."""

import enum
import logging
from collections.abc import Callable
from typing import TypeVar

from pydantic import TypeAdapter

from services.poller import answers as shapes
from services.poller.envoy import BadAnswer, EndpointMissing, Envoy, Identity, TokenRejected
from services.poller.sources import Answers, ProductionSource, info_of, production_source, readings_of
from shared.messages import GatewayInfo
from shared.readings import Reading

logger = logging.getLogger(__name__)

Shape = TypeVar("Shape")


class Cycle(enum.Enum):
    """Which questions are due: those that are answered at once, the inverters', or those that take seconds."""

    METERS = enum.auto()
    INVERTERS = enum.auto()
    SLOW = enum.auto()


EVERYTHING = frozenset(Cycle)


class GatewayReader:
    """Reads one gateway; which meters it has and whose count of the production to believe is looked up when slow."""

    def __init__(self, envoy: Envoy, identity: Identity, clock: Callable[[], float]) -> None:
        self.identity = identity
        self._envoy = envoy
        self._clock = clock
        self._meter_details: tuple[shapes.MeterDetails, ...] = ()
        self._source: ProductionSource | None = None
        self._info = info_of(identity, Answers(), None)
        self._bad_answers: dict[str, str] = {}
        self._newest_report: dict[str, int] = {}

    @property
    def info(self) -> GatewayInfo:
        """What the gateway is, as far as it has been read."""
        return self._info

    def read(self, due: frozenset[Cycle] = EVERYTHING) -> list[Reading]:
        """Ask what is due and return the readings of it.

        Raises:
            GatewayUnavailable: the gateway does not answer.
            TokenRejected: it refuses everything that it was asked.
        """
        asked = _Asked()
        production_json = gateway_production = None
        if Cycle.SLOW in due:
            self._meter_details = self._ask(asked, "/ivp/meters", shapes.METER_DETAILS) or ()
            production_json = self._ask(asked, "/production.json", shapes.PRODUCTION_JSON)
            gateway_production = self._ask(asked, "/api/v1/production", shapes.GATEWAY_PRODUCTION)
        inverters = None
        if Cycle.INVERTERS in due:
            inverters = self._ask(asked, "/api/v1/production/inverters", shapes.INVERTER_REPORTS)
        meter_readings = None
        if Cycle.METERS in due and self._meter_details:
            meter_readings = self._ask(asked, "/ivp/meters/readings", shapes.METER_READINGS)
        asked.raise_if_all_refused()
        answers = Answers(
            self._meter_details, meter_readings or (), production_json, gateway_production, self._new(inverters or ())
        )
        if Cycle.SLOW in due:
            self._source = production_source(self.identity, answers)
            self._info = info_of(self.identity, answers, self._source)
        return readings_of(self.identity, answers, self._source, int(self._clock()))

    def _new(self, reports: tuple[shapes.InverterReport, ...]) -> tuple[shapes.InverterReport, ...]:
        """Return the reports that were not read before: an inverter reports every five minutes, and not at night."""
        new = tuple(
            report for report in reports if report.lastReportDate > self._newest_report.get(report.serialNumber, 0)
        )
        self._newest_report |= {report.serialNumber: report.lastReportDate for report in new}
        return new

    def _ask(self, asked: "_Asked", path: str, shape: TypeAdapter[Shape]) -> Shape | None:
        """Return the answer, or None where this gateway has no such answer or gives none that can be read."""
        try:
            answer = self._envoy.get(path, shape)
        except EndpointMissing:
            asked.answered += 1
            return None
        except TokenRejected as error:
            asked.refusal = error
            return None
        except BadAnswer as error:
            asked.answered += 1
            if self._bad_answers.get(path) != str(error):
                self._bad_answers[path] = str(error)
                logger.warning("gateway %s: passed over an answer to %s", self.identity.serial, error)
            return None
        asked.answered += 1
        if self._bad_answers.pop(path, None):
            logger.info("gateway %s: %s can be read again", self.identity.serial, path)
        return answer


class _Asked:
    """How a poll's questions fared: some answers need a higher role than an owner's, so one refusal means nothing."""

    def __init__(self) -> None:
        self.answered = 0
        self.refusal: TokenRejected | None = None

    def raise_if_all_refused(self) -> None:
        if self.refusal is not None and self.answered == 0:
            raise self.refusal
