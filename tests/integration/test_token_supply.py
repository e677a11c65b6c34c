"""How often Enphase receives requests, and what follows from its responses, with a simulated Enlighten and clock."""

import random
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.simulator.faults import parse_fault
from services.simulator.simulator import Simulator
from services.token_broker.account import Account
from services.token_broker.enlighten import Enlighten
from services.token_broker.logins import LoginRecord
from services.token_broker.supply import TokenSupply
from services.token_broker.token_cache import TokenCache
from shared.tokens import parse_token
from tests.programs import simulator

DAY_S, HOUR_S, MINUTE_S = 86_400, 3600, 60


class Owner:
    """A token_broker with an account at the simulated Enlighten, which can be restarted and whose clock is set."""

    def __init__(self, roof: Simulator, state: Path) -> None:
        self.roof = roof
        self.state = state
        self.now = roof.clock.now()
        self.password = "sunshine"
        roof.token_issuer.clock = lambda: self.now
        self.start()

    def start(self) -> None:
        """Start as a new process does, with what is on disk."""
        enlighten = Enlighten(
            f"{self.roof.enlighten_url}/login/login.json",
            f"{self.roof.enlighten_url}/tokens",
            "owner@example.com",
            SecretStr(self.password),
            pause=lambda _s: None,
        )
        self.logins = LoginRecord(self.state / "logins.json", enlighten.email, enlighten.password)
        self.supply = TokenSupply(Account(enlighten, self.logins), TokenCache(self.state / "tokens"))
        self.gateway = self.supply.serve(self.roof.serial, self.now)

    def pass_time(self, seconds: float, step_s: float = MINUTE_S) -> None:
        """Advance the clock, and fetch what is due at each step."""
        ends_at = self.now + seconds
        while self.now < ends_at:
            self.supply.fetch_due(self.now)
            self.now += step_s

    @property
    def published_state(self) -> str | None:
        """The state that is published."""
        status = self.gateway.status(self.now)
        return status.state if status else None

    @property
    def published_message(self) -> str:
        """The message that is published."""
        status = self.gateway.status(self.now)
        return status.message if status else ""

    def counted(self, what: str) -> int:
        """Return a counter of the simulated Enlighten."""
        return int(str(self.roof.request_log.counters()[what]))

    @property
    def logins_served(self) -> int:
        """The number of log-ins, whatever their result."""
        return len(self.roof.request_log.served(server="enlighten", path="/login/login.json"))


@pytest.fixture
def owner(roof: Simulator, tmp_path: Path) -> Owner:
    """Return an owner's token_broker."""
    random.seed(7)
    return Owner(roof, tmp_path)


def test_a_wrong_password_causes_three_log_ins_a_day(owner: Owner) -> None:
    """On each of four days."""
    owner.password = "wrong"
    owner.start()

    per_day = []
    for _day in range(4):
        before = owner.logins_served
        owner.pass_time(DAY_S, step_s=10 * MINUTE_S)
        per_day.append(owner.logins_served - before)

    assert per_day == [3, 3, 3, 3]
    assert owner.published_state == "bad_credentials"


def test_a_wrong_password_causes_three_log_ins_a_day_also_with_restarts(owner: Owner) -> None:
    """A container that restarts every minute does not get the account locked, and its status still has the reason."""
    owner.password = "wrong"
    for _restart in range(50):
        owner.start()
        owner.pass_time(MINUTE_S)

    assert owner.logins_served == 3
    assert owner.published_state == "bad_credentials"
    assert "ENLIGHTEN_PASSWORD" in owner.published_message
    assert "next attempt at" in owner.published_message


def test_a_process_killed_during_a_log_in_has_counted_it(owner: Owner) -> None:
    """The attempt is recorded on disk before it is made."""
    for _kill in range(3):
        with owner.logins.locked():
            owner.logins.record_attempt(owner.now)
        owner.start()

    owner.pass_time(HOUR_S)

    assert owner.logins_served == 0


def test_changed_credentials_are_used_at_once(owner: Owner) -> None:
    """After correcting the password the owner need not wait a day."""
    owner.password = "wrong"
    for _restart in range(5):
        owner.start()
        owner.pass_time(MINUTE_S)
    owner.password = "sunshine"

    owner.start()
    owner.pass_time(MINUTE_S)

    assert owner.published_state == "ok"


def test_a_successful_log_in_resets_the_count(owner: Owner) -> None:
    """After two rejections and a success three more attempts are allowed."""
    for faults, expected in [(2, 2), (0, 1), (3, 3)]:
        if faults:
            owner.roof.faults.add(parse_fault(f"mfa:count={faults}"))
        before = owner.logins_served
        for _attempt in range(expected):
            owner.gateway.fetch_at = owner.now
            owner.supply.fetch_due(owner.now)
            owner.now += MINUTE_S
        assert owner.logins_served - before == expected


@pytest.mark.parametrize(
    ("fault", "state", "words", "max_logins"),
    [
        ("mfa", "mfa_required", "ENVOY_TOKEN", 3),
        ("mfa-required", "mfa_required", "ENVOY_TOKEN", 3),
        ("blocked", "locked_out", "unblock", 1),
        ("too-many-sessions", "locked_out", "too many sessions", 1),
        ("429:server=enlighten:retry_after_s=7200", "locked_out", "too many requests", 12),
        ("queue-full:server=enlighten", "cloud_unreachable", "page", 60),
        ("queue-full-503:server=enlighten", "cloud_unreachable", "status 503", 60),
        ("503:server=enlighten", "cloud_unreachable", "status 503", 60),
        ("html:server=enlighten", "cloud_unreachable", "page", 60),
        ("truncated:server=enlighten", "cloud_unreachable", "unreachable", 60),
        ("reset:server=enlighten", "cloud_unreachable", "unreachable", 60),
        ("not-a-jwt", "cloud_unreachable", "without a valid token", 60),
        ("401:server=enlighten:path=/tokens", "bad_credentials", "issues this account no token", 1),
        ("403:server=enlighten:path=/tokens", "bad_credentials", "issues this account no token", 1),
    ],
)
def test_each_failure_has_a_state_a_message_and_a_maximum_of_log_ins(
    fault: str, state: str, words: str, max_logins: int, owner: Owner
) -> None:
    """For a day of each failure."""
    owner.roof.faults.add(parse_fault(fault))

    owner.pass_time(DAY_S, step_s=10)

    assert owner.published_state == state
    assert words in owner.published_message
    assert owner.logins_served <= max_logins
    assert owner.gateway.token is None


@pytest.mark.parametrize(
    "fault", ["queue-full:server=enlighten", "503:server=enlighten", "reset:server=enlighten", "not-a-jwt"]
)
def test_a_cloud_that_is_available_again_is_noticed(fault: str, owner: Owner) -> None:
    """Retries are seconds and minutes apart at first."""
    owner.roof.faults.add(parse_fault(f"{fault}:count=4"))

    owner.pass_time(10 * MINUTE_S, step_s=1)

    assert owner.published_state == "ok"


def test_a_token_refused_right_after_the_log_in_is_requested_again(owner: Owner) -> None:
    """Enphase sometimes refuses a token at first; it needs no second log-in."""
    owner.roof.faults.add(parse_fault("403:server=enlighten:path=/tokens:count=1"))

    owner.pass_time(MINUTE_S)

    assert owner.published_state == "ok"
    assert owner.logins_served == 1


def test_a_years_token_is_fetched_once_in_eleven_months(owner: Owner) -> None:
    """It is renewed 30 days before it expires."""
    owner.pass_time(335 * DAY_S - HOUR_S, step_s=HOUR_S)
    assert owner.counted("exchanges") == 1

    owner.pass_time(2 * HOUR_S, step_s=MINUTE_S)

    assert owner.counted("exchanges") == 2


def test_an_installers_token_is_renewed_an_hour_before_it_expires(roof: Simulator, tmp_path: Path) -> None:
    """It is valid for twelve hours, and renewed with a tenth of them left."""
    with simulator(tmp_path / "installer", account="installer") as installers:
        owner = Owner(installers, tmp_path)
        owner.pass_time(MINUTE_S)
        first = owner.gateway.token
        assert first is not None
        assert (first.kind, first.expires_at - first.issued_at) == ("installer", 43_200)

        owner.pass_time(10.7 * HOUR_S)
        assert owner.counted("exchanges") == 1
        owner.pass_time(0.2 * HOUR_S)
        assert owner.counted("exchanges") == 2


def test_a_valid_token_stays_in_use_while_its_renewal_fails(owner: Owner) -> None:
    """The status is expiring, with the days left."""
    owner.pass_time(MINUTE_S)
    valid = owner.gateway.token
    owner.roof.faults.add(parse_fault("503:server=enlighten"))

    owner.pass_time(340 * DAY_S, step_s=6 * HOUR_S)

    status = owner.gateway.status(owner.now)
    assert status is not None
    assert (status.state, owner.gateway.token) == ("expiring", valid)
    assert status.days_left == pytest.approx(25, abs=0.5)


def test_a_restart_causes_no_request_to_enphase(owner: Owner) -> None:
    """The token is in the cache."""
    owner.pass_time(MINUTE_S)
    for _restart in range(5):
        owner.start()
        owner.pass_time(MINUTE_S)

    assert owner.logins_served == 1
    assert owner.published_state == "ok"


def test_a_rejected_token_is_exchanged_once_a_day_and_then_reported(owner: Owner) -> None:
    """For a gateway that rejects every token, with a request every minute of two days and some restarts."""
    owner.pass_time(HOUR_S)
    states = set()
    for minute in range(2 * 24 * 60 - 1):
        if minute % 700 == 0:
            owner.start()
        owner.supply.renew_rejected(owner.gateway, owner.now)
        owner.pass_time(MINUTE_S)
        states.add(owner.published_state)

    assert owner.counted("exchanges") == 3
    assert states == {"ok", "bad_credentials"}
    assert "rejects a new token" in owner.published_message


def test_a_rejected_token_younger_than_a_minute_is_not_exchanged(owner: Owner) -> None:
    """The request may have crossed the new token."""
    owner.pass_time(10, step_s=1)
    owner.supply.renew_rejected(owner.gateway, owner.now)
    owner.pass_time(10, step_s=1)

    assert owner.counted("exchanges") == 1


def test_a_rejected_token_does_not_shorten_a_wait(owner: Owner) -> None:
    """No request is sent to a blocked account, whatever the gateway rejects."""
    owner.pass_time(HOUR_S)
    owner.roof.faults.add(parse_fault("blocked"))
    owner.gateway.fetch_at = owner.now
    owner.pass_time(MINUTE_S)
    before = owner.logins_served

    for _minute in range(60):
        owner.supply.renew_rejected(owner.gateway, owner.now)
        owner.pass_time(MINUTE_S)

    assert owner.logins_served == before


def test_one_log_in_serves_several_gateways_also_if_one_is_refused(owner: Owner) -> None:
    """A token for a gateway of another account is requested once a day; the other gateways get theirs."""
    refused = owner.supply.serve_requested("999999999999", owner.now)
    assert refused is not None

    owner.pass_time(DAY_S - HOUR_S)

    assert owner.logins_served == 1
    assert owner.published_state == "ok"
    status = refused.status(owner.now)
    assert status is not None
    assert (status.state, "999999999999" in status.message) == ("bad_credentials", True)


def test_requests_for_too_many_gateways_are_ignored(owner: Owner) -> None:
    """Twenty gateways are served, with the one in the settings."""
    served = [owner.supply.serve_requested(f"{number:012d}", owner.now) for number in range(30)]

    assert sum(gateway is not None for gateway in served) == 19


def test_a_cached_token_that_cannot_be_read_is_reported_and_read_later(owner: Owner, tmp_path: Path) -> None:
    """A request for that gateway does not end the service."""
    folder_instead = tmp_path / "tokens" / "999999999999.json"
    folder_instead.mkdir(parents=True)

    gateway = owner.supply.serve_requested("999999999999", owner.now)
    assert gateway is not None
    owner.pass_time(MINUTE_S)

    assert gateway.problem is not None
    assert "STATE_DIR cannot be used" in gateway.problem[1]
    folder_instead.rmdir()
    owner.pass_time(2 * MINUTE_S)
    assert "issues this account no token" in gateway.problem[1]


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b'{"salt": "salt"}', b'{"tried_at": [null]}', b"\xff"])
def test_a_corrupt_record_of_log_ins_is_quarantined(content: bytes, owner: Owner, tmp_path: Path) -> None:
    """The count starts again, and each corrupt file is kept."""
    for _time in range(2):
        (tmp_path / "logins.json").write_bytes(content)
        owner.start()
        owner.gateway.fetch_at = owner.now
        owner.pass_time(MINUTE_S)

    assert [path.read_bytes() for path in tmp_path.glob("logins*.corrupt")] == [content, content]
    assert owner.published_state == "ok"


def test_rejections_recorded_by_a_clock_that_was_ahead_expire_after_a_day(owner: Owner) -> None:
    """They count from when the clock is right again."""
    owner.password = "wrong"
    owner.now += 400 * DAY_S
    for _restart in range(4):
        owner.start()
        owner.pass_time(MINUTE_S)
    owner.now -= 400 * DAY_S
    before = owner.logins_served

    owner.start()
    owner.pass_time(2 * DAY_S, step_s=HOUR_S)

    assert owner.logins_served > before


@pytest.mark.parametrize("back_s", [HOUR_S, 2 * DAY_S, 20_000 * DAY_S])
def test_a_clock_that_is_behind_for_a_while_allows_no_further_log_in(back_s: int, owner: Owner) -> None:
    """A machine without a battery for its clock starts in the past and is corrected later."""
    owner.password = "wrong"
    start = owner.now
    for _restart in range(3):
        owner.start()
        owner.pass_time(MINUTE_S)

    for reboot in range(1, 10):
        for moment in (start + reboot * HOUR_S - back_s, start + reboot * HOUR_S):
            owner.now = moment
            owner.start()
            owner.pass_time(MINUTE_S)

    assert owner.logins_served == 3


@pytest.mark.parametrize("left_s", [DAY_S, -DAY_S])
def test_a_manual_token_that_expires_is_reported_with_how_to_get_another(
    left_s: int, owner: Owner, tmp_path: Path
) -> None:
    """Enphase receives no request for it."""
    text = owner.roof.token(lifetime_s=2 * DAY_S)
    manual = parse_token(text, now=owner.now, manual=True)
    now = manual.expires_at - left_s
    supply = TokenSupply(None, TokenCache(tmp_path), manual=manual)

    assert supply.fetch_due(now) == []
    (gateway,) = supply.gateways
    status = gateway.status(manual.expires_at - left_s // 10 if left_s > 0 else now)
    assert status is not None
    assert status.state == "expiring"
    assert "fetch a token manually" in status.message
