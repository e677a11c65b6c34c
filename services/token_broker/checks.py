"""``token_broker --check``: the account, Enphase, the cache and the broker, without logging in or writing."""

import os
import time
from collections.abc import Iterator
from http import HTTPStatus

import requests

from services.token_broker.account import Account
from services.token_broker.gateway_token import GatewayToken, format_time
from services.token_broker.settings import TokenBrokerSettings
from services.token_broker.supply import NO_ACCOUNT
from services.token_broker.token_cache import TokenCache
from shared.checks import CHECK_TIMEOUT_S, CheckResult
from shared.http import BoundedSession, ExchangeFailed, exchange
from shared.mqtt_check import check_broker
from shared.tokens import InvalidToken, Token
from shared.topics import Topics


def run_checks(
    settings: TokenBrokerSettings, cache: TokenCache, manual: Token | None, account: Account | None
) -> Iterator[CheckResult]:
    """Yield the result of each check; none logs in at Enphase or changes a file."""
    now = time.time()
    if manual is not None:
        yield _check_manual_token(manual, now)
    else:
        yield _check_account(account, now)
        for url in (settings.enlighten.login_url, settings.enlighten.tokens_url):
            yield _check_cloud(str(url))
        for serial in sorted({*settings.envoy.serial, *cache.serials()}):
            yield _check_cached_token(cache, serial, now, can_fetch=account is not None)
    yield _check_folder(cache)
    # Nothing is retained for gateway 0, so the empty message changes nothing.
    yield check_broker(settings.mqtt, Topics(settings.mqtt.base_topic).token_status("0"))


def _check_manual_token(token: Token, now: float) -> CheckResult:
    status = GatewayToken(token.serial, fetch_at=float("inf"), token=token).status(now)
    text = f"gateway {token.serial}, {status.message if status else 'no status'}"
    return CheckResult(ok=token.expires_at > now, what="ENVOY_TOKEN", text=text)


def _check_account(account: Account | None, now: float) -> CheckResult:
    if account is None:
        return CheckResult(ok=False, what="account", text=NO_ACCOUNT)
    if (next_attempt_at := account.logins.next_attempt_at(now)) > now:
        _state, message = account.logins.last_refusal
        text = f"{message}; next attempt at {format_time(next_attempt_at)}"
        return CheckResult(ok=False, what="account", text=text)
    return CheckResult(ok=True, what="account", text="e-mail and password are set; not checked with Enphase")


def _check_cloud(url: str) -> CheckResult:
    host = url.split("/")[2]
    try:
        response = exchange(BoundedSession(), "GET", url, deadline_s=CHECK_TIMEOUT_S)
    except requests.exceptions.SSLError:
        text = "its certificate is not valid; check the clock of this machine and whether a proxy intercepts TLS"
        return CheckResult(ok=False, what=host, text=text)
    except ExchangeFailed as error:
        return CheckResult(ok=False, what=host, text=f"{error}; check the connection to the internet")
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        text = f"responds with status {response.status:d}; wait until Enphase is available again"
        return CheckResult(ok=False, what=host, text=text)
    return CheckResult(ok=True, what=host, text=f"responds (status {response.status:d})")


def _check_cached_token(cache: TokenCache, serial: str, now: float, *, can_fetch: bool) -> CheckResult:
    what = f"token of gateway {serial}"
    try:
        cached = cache.read(serial, now)
    except InvalidToken as error:
        return CheckResult(ok=can_fetch, what=what, text=f"{cache.path(serial)} is corrupt ({error}); run --once")
    if cached is None:
        return CheckResult(ok=can_fetch, what=what, text="none in the cache; run --once to fetch one")
    return CheckResult(ok=True, what=what, text=f"valid for {cached.token.days_left(now):g} days")


def _check_folder(cache: TokenCache) -> CheckResult:
    folder = next(path for path in (cache.folder, *cache.folder.parents) if path.exists())
    if os.access(folder, os.W_OK):
        return CheckResult(ok=True, what="cache", text=f"{cache.folder} is writable")
    return CheckResult(ok=False, what="cache", text=f"{cache.folder} is not writable; set STATE_DIR")
