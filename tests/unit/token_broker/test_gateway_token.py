import pytest

from services.token_broker.gateway_token import GatewayToken, next_fetch_at, renew_at
from services.token_broker.token_cache import CachedToken
from shared.messages import TokenState
from tests.unit.token_broker.signed_tokens import DAY_S, HALF_DAY_S, NOW, SERIAL, YEAR_S, new_token

PROBLEM: tuple[TokenState, str] = ("cloud_unreachable", "Enphase is down")


@pytest.mark.parametrize(
    ("lifetime_s", "left_s"),
    [(YEAR_S, 30 * DAY_S), (100 * DAY_S, 10 * DAY_S), (HALF_DAY_S, HALF_DAY_S // 10), (3600, 600)],
)
def test_a_token_is_renewed_with_a_tenth_of_its_lifetime_left_within_limits(lifetime_s: int, left_s: int) -> None:
    """A year's token 30 days before it expires, and none later than ten minutes before."""
    token = new_token(lifetime_s)

    assert token.expires_at - renew_at(token) == left_s


@pytest.mark.parametrize(
    ("lifetime_s", "age_s", "delay_s"),
    [(YEAR_S, 0, YEAR_S - 30 * DAY_S), (YEAR_S, 345 * DAY_S, 2 * DAY_S), (700, 0, 100), (300, 0, 60), (60, 0, 60)],
)
def test_a_token_issued_shortly_before_it_expires_is_not_replaced_at_once(
    lifetime_s: int, age_s: int, delay_s: int
) -> None:
    """The next one would not last longer: a tenth of the remaining time passes first, and a minute at least."""
    fetched_at = NOW + age_s

    assert next_fetch_at(CachedToken(new_token(lifetime_s), fetched_at)) - fetched_at == delay_s


def test_a_gateway_without_a_token_or_a_problem_has_no_status() -> None:
    """Nothing is known yet."""
    assert GatewayToken(SERIAL, fetch_at=NOW).status(NOW) is None


@pytest.mark.parametrize(
    ("lifetime_s", "manual", "problem", "rejected", "state", "words"),
    [
        (YEAR_S, False, None, False, "ok", "owner token, valid for 365 days"),
        (YEAR_S, True, None, False, "ok", "manual token, valid for 365 days"),
        (DAY_S // 10, False, None, False, "ok", "valid for 0.1 days"),
        (YEAR_S, False, PROBLEM, False, "expiring", "Enphase is down; next attempt at 2027-01-16 08:00 UTC"),
        (-1, False, PROBLEM, False, "cloud_unreachable", "Enphase is down"),
        (YEAR_S, False, ("locked_out", "blocked"), False, "locked_out", "blocked"),
        (500, True, None, False, "expiring", "ENVOY_TOKEN expires in 0.01 days; fetch a token manually"),
        (-1, True, None, False, "expiring", "ENVOY_TOKEN has expired; fetch a token manually"),
        (YEAR_S, False, None, True, "bad_credentials", "rejects a new token"),
        (YEAR_S, True, None, True, "bad_credentials", "rejects the token in ENVOY_TOKEN; fetch a token manually"),
    ],
)
def test_the_status_names_the_state_and_what_to_do(
    lifetime_s: int,
    problem: tuple[TokenState, str] | None,
    state: TokenState,
    words: str,
    *,
    manual: bool,
    rejected: bool,
) -> None:
    """A problem of a token that is still valid is only its renewal's, unless a person must act."""
    gateway = GatewayToken(SERIAL, fetch_at=NOW)
    gateway.accept(CachedToken(new_token(lifetime_s if lifetime_s > 0 else 1, manual=manual), NOW))
    if problem is not None:
        gateway.postpone(NOW + DAY_S, *problem)
    if rejected:
        gateway.rejected_until = NOW + DAY_S

    now = NOW if lifetime_s > 0 else NOW + 2
    status = gateway.status(now)

    assert status is not None
    assert status.state == state
    assert words in status.message
    assert (gateway.valid_token(now) is None) == (lifetime_s < 0)


def test_a_new_token_ends_a_problem_and_a_rejection() -> None:
    """The status is ok again, and the next fetch is the renewal."""
    gateway = GatewayToken(SERIAL, fetch_at=NOW)
    gateway.postpone(NOW + DAY_S, *PROBLEM)
    gateway.rejected_until = NOW + DAY_S

    gateway.accept(CachedToken(new_token(), NOW))

    status = gateway.status(NOW)
    assert status is not None
    assert status.state == "ok"
    assert gateway.fetch_at == renew_at(new_token())
