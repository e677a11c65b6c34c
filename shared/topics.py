"""The topics of the MQTT contract: the only module that builds or parses them.

``docs/asyncapi.yaml`` is the complete contract.
"""

import re
from dataclasses import dataclass

SERIAL_PATTERN = re.compile(r"[A-Za-z0-9]{1,32}")
"""A gateway's serial number. Real ones have twelve digits; anonymized ones may contain letters."""

KIND_PATTERN = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


class UnknownTopic(ValueError):
    """The topic is not one of the contract."""


@dataclass(frozen=True, slots=True)
class ReadingTopic:
    """The parts of a reading's topic; the source is a gateway's serial, or ``services/<client-id>`` for metrics."""

    source: str
    kind: str


@dataclass(frozen=True, slots=True)
class Topics:
    """Builds every topic below one base topic."""

    base: str

    def info(self, serial: str) -> str:
        """Return the topic of what a gateway is."""
        return f"{self.base}/{serial}/info"

    def gateway_status(self, serial: str) -> str:
        """Return the topic of whether a gateway responds."""
        return f"{self.base}/{serial}/status"

    def reading(self, serial: str, kind: str) -> str:
        """Return the retained topic of the newest reading of a kind."""
        return f"{self.base}/{serial}/readings/{kind}"

    def history(self, serial: str, kind: str) -> str:
        """Return the topic of readings of a kind that arrive late or are resent."""
        return f"{self.base}/{serial}/history/{kind}"

    def token(self, serial: str) -> str:
        """Return the topic of the token for a gateway; secret."""
        return f"{self.base}/{serial}/token"

    def token_request(self, serial: str) -> str:
        """Return the topic on which a token for a gateway is requested."""
        return f"{self.base}/{serial}/token/request"

    def token_status(self, serial: str) -> str:
        """Return the topic of the token's state, without the token."""
        return f"{self.base}/{serial}/token/status"

    def service_status(self, client_id: str) -> str:
        """Return the topic of a service's will and birth."""
        return f"{self.base}/services/{client_id}/status"

    def metrics(self, client_id: str) -> str:
        """Return the topic of a service's own counters and gauges."""
        return f"{self.base}/services/{client_id}/metrics"

    def receipts(self, client_id: str) -> str:
        """Return the topic on which a sink confirms which readings are stored."""
        return f"{self.base}/services/{client_id}/receipts"

    def all_token_requests(self) -> str:
        """Return the filter for the token requests of all gateways."""
        return self.token_request("+")

    def all_readings(self) -> tuple[str, str, str]:
        """Return the filters for all readings: the newest, the late ones, and the services' metrics."""
        return self.reading("+", "#"), self.history("+", "#"), self.metrics("+")

    def parse_reading(self, topic: str) -> ReadingTopic:
        """Return the parts of a topic that :meth:`all_readings` matches.

        Raises:
            UnknownTopic: it is not the topic of a reading.
        """
        below_base = topic.removeprefix(f"{self.base}/")
        match below_base.split("/", 2) if below_base != topic else []:
            case ["services", client_id, "metrics"] if KIND_PATTERN.fullmatch(client_id):
                return ReadingTopic(f"services/{client_id}", "metrics")
            case [serial, "readings" | "history", kind] if SERIAL_PATTERN.fullmatch(serial) and KIND_PATTERN.fullmatch(
                kind
            ):
                return ReadingTopic(serial, kind)
        raise UnknownTopic(f"not the topic of a reading: {topic!r}")

    def parse_token_request(self, topic: str) -> str:
        """Return the serial of the gateway that a token is requested for.

        Raises:
            UnknownTopic: it is not the topic of a token request.
        """
        match topic.removeprefix(f"{self.base}/").split("/"):
            case [serial, "token", "request"] if SERIAL_PATTERN.fullmatch(serial):
                return serial
        raise UnknownTopic(f"not the topic of a token request: {topic!r}")
