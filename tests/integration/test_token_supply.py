"""How often Enphase is asked, and what is made of its answers: simulated Enlighten, frozen clock, restarts."""

import random
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.simulator.faults import parse_fault
from services.simulator.simulator import Simulator
from services.token_broker.enlighten import Enlighten
from services.token_broker.logins import LoginRecord
from services.token_broker.supply import TokenSupply
from services.token_broker.tokens import Token, TokenCache
from tests.programs import simulator

DAY_S, HOUR_S, MINUTE_S = 86_400, 3600, 60


class Owner:
    """An owner's token_broker at Enphase: started and started again, its clock moved by hand."""

    def __init__(self, roof: Simulator, state: Path) -> None:
        self.roof = roof
        self.state = state
        self.now = roof.clock.now()
        self.password = "sunshine"
        roof.token_issuer.clock = lambda: self.now
        self.start()

    def start(self) -> None:
        """Begin as a new process does, with what is on disk."""
        cache = TokenCache(self.state / "tokens")
        enlighten = Enlighten(
            f"{self.roof.enlighten_url}/login/login.json",
            f"{self.roof.enlighten_url}/tokens",
            "owner@example.com",
            SecretStr(self.password),
            pause=lambda _s: None,
        )
        logins = LoginRecord(self.state / "logins.json", enlighten.email, enlighten.password)
        self.supply = TokenSupply(enlighten, logins, cache)
        self.gateway = self.supply.serve(self.roof.serial, self.now)

    def pass_time(self, seconds: float, step_s: float = MINUTE_S) -> None:
        """Let time pass, fetching whatever falls due."""
        ends_at = self.now + seconds
        while self.now < ends_at:
            self.supply.fetch_due(self.now)
            self.now += step_s

    @property
    def state_told(self) -> str | None:
        """The state that is published."""
        status = self.gateway.status(self.now)
        return status.state if status else None

    @property
    def told(self) -> str:
        """The message that is published."""
        status = self.gateway.status(self.now)
        return status.message if status else ""

    def counted(self, what: str) -> int:
        """Return how often Enlighten has seen something."""
        return int(str(self.roof.request_log.counters()[what]))

    @property
    def log_ins(self) -> int:
        """How many log-ins were tried, with whatever outcome."""
        return len(self.roof.request_log.served(server="enlighten", path="/login/login.json"))


@pytest.fixture
def owner(roof: Simulator, tmp_path: Path) -> Owner:
    """Return an owner's token_broker."""
    random.seed(7)
    return Owner(roof, tmp_path)


def test_a_wrong_password_is_tried_three_times_a_day_at_most(owner: Owner) -> None:
    """In any day, left alone for four of them."""
    owner.password = "wrong"
    owner.start()

    per_day = []
    for _day in range(4):
        before = owner.log_ins
        owner.pass_time(DAY_S, step_s=10 * MINUTE_S)
        per_day.append(owner.log_ins - before)

    assert per_day == [3, 3, 3, 3]
    assert owner.state_told == "bad_credentials"


def test_a_wrong_password_is_tried_three_times_a_day_however_often_the_process_restarts(owner: Owner) -> None:
    """A container that is restarted every minute locks nobody out; it still says what is wrong."""
    owner.password = "wrong"
    for _restart in range(50):
        owner.start()
        owner.pass_time(MINUTE_S)

    assert owner.log_ins == 3
    assert owner.state_told == "bad_credentials"
    assert "ENLIGHTEN_PASSWORD" in owner.told
    assert "Next attempt" in owner.told


def test_a_process_killed_while_it_logs_in_has_still_counted_it(owner: Owner) -> None:
    """The attempt is on disk before it is made."""
    owner.supply._logins.trying(owner.now)  # type: ignore[union-attr]
    owner.start()
    owner.supply._logins.trying(owner.now)  # type: ignore[union-attr]
    owner.start()
    owner.supply._logins.trying(owner.now)  # type: ignore[union-attr]
    owner.start()

    owner.pass_time(HOUR_S)

    assert owner.log_ins == 0


def test_changed_credentials_are_tried_at_once(owner: Owner) -> None:
    """Whoever corrects the password need not wait a day."""
    owner.password = "wrong"
    for _restart in range(5):
        owner.start()
        owner.pass_time(MINUTE_S)
    owner.password = "sunshine"

    owner.start()
    owner.pass_time(MINUTE_S)

    assert owner.state_told == "ok"


def test_a_success_forgets_the_rejections_before_it(owner: Owner) -> None:
    """Two rejections, a success, then three more may follow."""
    for faults, expected in [(2, 2), (0, 1), (3, 3)]:
        if faults:
            owner.roof.faults.add(parse_fault(f"mfa:count={faults}"))
        before = owner.log_ins
        for _attempt in range(expected):
            owner.gateway.fetch_at = owner.now
            owner.supply.fetch_due(owner.now)
            owner.now += MINUTE_S
        assert owner.log_ins - before == expected


@pytest.mark.parametrize(
    ("fault", "state", "words", "log_ins_a_day"),
    [
        ("mfa", "mfa_required", "ENVOY_TOKEN", 3),
        ("mfa-required", "mfa_required", "ENVOY_TOKEN", 3),
        ("blocked", "locked_out", "unblock", 1),
        ("too-many-sessions", "locked_out", "too many sessions", 1),
        ("429:server=enlighten:retry_after_s=7200", "locked_out", "too often", 12),
        ("queue-full:server=enlighten", "cloud_unreachable", "page", 60),
        ("queue-full-503:server=enlighten", "cloud_unreachable", "status 503", 60),
        ("503:server=enlighten", "cloud_unreachable", "status 503", 60),
        ("html:server=enlighten", "cloud_unreachable", "page", 60),
        ("truncated:server=enlighten", "cloud_unreachable", "cannot be reached", 60),
        ("reset:server=enlighten", "cloud_unreachable", "cannot be reached", 60),
        ("not-a-jwt", "cloud_unreachable", "not the token", 60),
        ("401:server=enlighten:path=/tokens", "bad_credentials", "gives this account no token", 1),
        ("403:server=enlighten:path=/tokens", "bad_credentials", "gives this account no token", 1),
    ],
)
def test_each_trouble_has_a_state_words_that_help_and_a_pace(
    fault: str, state: str, words: str, log_ins_a_day: int, owner: Owner
) -> None:
    """A day of each: what is published, and how often Enphase hears from us."""
    owner.roof.faults.add(parse_fault(fault))

    owner.pass_time(DAY_S, step_s=10)

    assert owner.state_told == state
    assert words in owner.told
    assert owner.log_ins <= log_ins_a_day
    assert owner.gateway.token is None


@pytest.mark.parametrize(
    "fault", ["queue-full:server=enlighten", "503:server=enlighten", "reset:server=enlighten", "not-a-jwt"]
)
def test_a_cloud_that_comes_back_is_noticed_by_itself(fault: str, owner: Owner) -> None:
    """After some attempts seconds and minutes apart there is a token."""
    owner.roof.faults.add(parse_fault(f"{fault}:count=4"))

    owner.pass_time(10 * MINUTE_S, step_s=1)

    assert owner.state_told == "ok"


def test_a_refusal_right_after_the_log_in_is_asked_again_once(owner: Owner) -> None:
    """Enphase sometimes refuses a token in the first moment; one log-in is enough."""
    owner.roof.faults.add(parse_fault("403:server=enlighten:path=/tokens:count=1"))

    owner.pass_time(MINUTE_S)

    assert owner.state_told == "ok"
    assert owner.log_ins == 1


def test_a_token_is_renewed_in_time_and_meanwhile_nobody_is_asked(owner: Owner) -> None:
    """A year's token costs one exchange in eleven months, then a second."""
    owner.pass_time(335 * DAY_S - HOUR_S, step_s=HOUR_S)
    assert owner.counted("exchanges") == 1

    owner.pass_time(2 * HOUR_S, step_s=MINUTE_S)

    assert owner.counted("exchanges") == 2


def test_an_installers_token_is_renewed_every_half_day_and_is_always_good(roof: Simulator, tmp_path: Path) -> None:
    """Twelve hours each, renewed with a tenth left: for two days there is a good one at any time."""
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


def test_a_cloud_that_is_down_when_renewal_is_due_leaves_the_good_token_in_use(owner: Owner) -> None:
    """The status says expiring, with the days left; the token stays."""
    owner.pass_time(MINUTE_S)
    good = owner.gateway.token
    owner.roof.faults.add(parse_fault("503:server=enlighten"))

    owner.pass_time(340 * DAY_S, step_s=6 * HOUR_S)

    status = owner.gateway.status(owner.now)
    assert status is not None
    assert (status.state, owner.gateway.token) == ("expiring", good)
    assert status.days_left == pytest.approx(25, abs=0.5)


def test_a_restart_makes_no_request_to_the_cloud(owner: Owner) -> None:
    """The cache answers."""
    owner.pass_time(MINUTE_S)
    for _restart in range(5):
        owner.start()
        owner.pass_time(MINUTE_S)

    assert owner.log_ins == 1
    assert owner.state_told == "ok"


def test_a_rejected_token_is_exchanged_once_a_day_and_then_told(owner: Owner) -> None:
    """A gateway that rejects whatever it is shown, asked every minute for two days, restarts in between."""
    owner.pass_time(HOUR_S)
    states = set()
    for minute in range(2 * 24 * 60 - 1):
        if minute % 700 == 0:
            owner.start()
        owner.supply.rejected(owner.gateway, owner.now)
        owner.pass_time(MINUTE_S)
        states.add(owner.state_told)

    assert owner.counted("exchanges") == 3
    assert states == {"ok", "bad_credentials"}
    assert "fresh from Enphase" in owner.told


def test_a_token_just_fetched_is_not_fetched_again_whoever_rejects_it(owner: Owner) -> None:
    """Within a minute nothing is exchanged."""
    owner.pass_time(10, step_s=1)
    owner.supply.rejected(owner.gateway, owner.now)
    owner.pass_time(10, step_s=1)

    assert owner.counted("exchanges") == 1


def test_a_rejected_token_does_not_end_a_wait_for_the_cloud(owner: Owner) -> None:
    """While Enphase is to be left alone, no gateway's complaint changes that."""
    owner.pass_time(HOUR_S)
    owner.roof.faults.add(parse_fault("blocked"))
    owner.gateway.fetch_at = owner.now
    owner.pass_time(MINUTE_S)
    before = owner.log_ins

    for _minute in range(60):
        owner.supply.rejected(owner.gateway, owner.now)
        owner.pass_time(MINUTE_S)

    assert owner.log_ins == before


def test_one_log_in_serves_several_gateways_and_one_refused_spoils_none(owner: Owner) -> None:
    """A gateway that is not the account's is told so, once a day; the others have their tokens."""
    stranger = owner.supply.requested("999999999999", owner.now)
    assert stranger is not None

    owner.pass_time(DAY_S - HOUR_S)

    assert owner.log_ins == 1
    assert owner.state_told == "ok"
    status = stranger.status(owner.now)
    assert status is not None
    assert (status.state, "999999999999" in status.message) == ("bad_credentials", True)


def test_strangers_asking_for_ever_more_gateways_are_not_served(owner: Owner) -> None:
    """Twenty are learnt; then a request is passed over."""
    answers = [owner.supply.requested(f"{number:012d}", owner.now) for number in range(30)]

    assert sum(answer is not None for answer in answers) == 19


@pytest.mark.parametrize("damage", ["{", "", "[]", '{"salt": "salt"}', '{"tried_at": [null]}'])
def test_a_record_of_log_ins_that_is_damaged_is_put_aside(damage: str, owner: Owner, tmp_path: Path) -> None:
    """Counting begins anew; each such file is kept for a person to look at."""
    for _time in range(2):
        (tmp_path / "logins.json").write_text(damage)
        owner.start()
    owner.pass_time(MINUTE_S)

    assert [kept.read_text() for kept in tmp_path.glob("logins*.unusable")] == [damage, damage]
    assert owner.state_told == "ok"


def test_a_clock_that_was_a_year_ahead_keeps_nobody_out_for_a_year(owner: Owner) -> None:
    """Rejections noted in the future count as now."""
    owner.password = "wrong"
    owner.now += 400 * DAY_S
    for _restart in range(4):
        owner.start()
        owner.pass_time(MINUTE_S)
    owner.now -= 400 * DAY_S
    before = owner.log_ins

    owner.start()
    owner.pass_time(2 * DAY_S, step_s=HOUR_S)

    assert owner.log_ins > before


@pytest.mark.parametrize("back_s", [HOUR_S, 2 * DAY_S, 20_000 * DAY_S])
def test_a_clock_that_is_behind_for_a_while_forgets_no_rejection(back_s: int, owner: Owner) -> None:
    """A machine that wakes up in the past, and is then put right, tries no more often than any other."""
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

    assert owner.log_ins == 3


@pytest.mark.parametrize("left_s", [DAY_S, -DAY_S])
def test_a_token_by_hand_near_or_past_its_end_says_how_to_get_another(
    left_s: int, owner: Owner, tmp_path: Path
) -> None:
    """It is watched, and never exchanged."""
    text = owner.roof.token(lifetime_s=2 * DAY_S)
    manual = Token.read(text, now=owner.now, manual=True)
    now = manual.expires_at - left_s
    supply = TokenSupply(None, None, TokenCache(tmp_path), manual=manual)

    assert supply.fetch_due(now) == []
    (gateway,) = supply.all
    status = gateway.status(manual.expires_at - left_s // 10 if left_s > 0 else now)
    assert status is not None
    assert status.state == "expiring"
    assert "fetch a token by hand" in status.message
