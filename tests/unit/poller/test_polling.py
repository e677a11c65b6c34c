"""What the loop for one gateway does about errors; everything else of it is tested with a real broker and gateway."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.poller import polling
from services.poller.agenda import Agenda
from services.poller.errors import GatewayUnavailable, GatewayUntrusted, TokenRejected
from services.poller.identity import Identity
from services.poller.polling import GatewayPoller
from services.poller.publisher import GatewayPublisher
from services.poller.session import Session
from services.poller.settings import EnvoySettings, PollSettings
from services.poller.trust import TrustStore
from shared.mqtt import Connection
from shared.settings import MqttSettings
from tests.programs import wait_until


class FailingSession(Session):
    """A session that never finds its gateway."""

    def __init__(self, state: Path, error: Exception) -> None:
        super().__init__(EnvoySettings(host="roof"), TrustStore(state))
        self.searches = 0
        self._error = error

    def find(self) -> Identity:
        """Fail."""
        self.searches += 1
        raise self._error


@contextmanager
def running(session: Session) -> Iterator[GatewayPoller]:
    """Run the loop on a thread of its own; its connection to the broker is never made."""
    connection = Connection(MqttSettings(client_id="poller"), stop=threading.Event())
    poller = GatewayPoller(
        session, GatewayPublisher(connection), lambda *_: None, lambda: Agenda(PollSettings(), time.time)
    )
    stop = threading.Event()
    thread = threading.Thread(target=poller.run, args=(stop,))
    thread.start()
    try:
        yield poller
        assert thread.is_alive()
    finally:
        stop.set()
        thread.join(5)
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def _without_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_RETRY_S", "MAX_RETRY_S", "REJECTED_RETRY_S"):
        monkeypatch.setattr(polling, name, 0.01)


@pytest.mark.parametrize(
    ("error", "level", "logged"),
    [
        (GatewayUntrusted("another certificate"), logging.ERROR, 1),
        (GatewayUnavailable("no route to host"), logging.WARNING, 1),
        (TokenRejected("/info: 401"), logging.ERROR, None),
        (ValueError("unexpected"), logging.ERROR, None),
    ],
)
def test_the_search_continues_after_every_error(
    error: Exception, level: int, logged: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What concerns a person, or lasts, is logged once."""
    session = FailingSession(tmp_path, error)
    with caplog.at_level(logging.WARNING), running(session) as poller:
        wait_until(lambda: session.searches >= 4, "four searches")
        assert not poller.online

    records = [record for record in caplog.records if str(error) in record.getMessage() or record.exc_info]
    assert {record.levelno for record in records} == {level}
    assert logged in (None, len(records))


def test_a_gateway_that_is_not_found_has_its_metrics_and_the_name_of_its_host(tmp_path: Path) -> None:
    """Every metric from the start."""
    session = FailingSession(tmp_path, GatewayUnavailable("no route to host"))
    with running(session) as poller:
        stats = poller.stats()

    assert poller.name == "roof"
    assert (stats["gateways"], stats["gateways_online"], stats["polls"]) == (1, 0, 0)
    assert stats.keys() >= {"polls_missed", "counters_rejected", "clock_offset_s", "requests_failed", "fields_dropped"}
