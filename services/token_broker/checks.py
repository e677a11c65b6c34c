"""What ``token_broker --check`` finds: the account, Enphase, the cache and the broker, without logging in."""

import os
import time
from collections.abc import Iterator
from http import HTTPStatus

import requests

from services.token_broker.logins import LoginRecord
from services.token_broker.settings import TokenBrokerSettings
from services.token_broker.supply import NO_ACCOUNT, Supply, utc
from services.token_broker.tokens import Token, TokenCache
from shared.checks import CHECK_TIMEOUT_S, CheckResult
from shared.http import BoundedSession, ExchangeFailed, exchange
from shared.mqtt_check import check_broker
from shared.topics import Topics


def run_checks(
    settings: TokenBrokerSettings, cache: TokenCache, manual: Token | None, logins: LoginRecord | None
) -> Iterator[CheckResult]:
    """Yield how each outside connection fares; nothing is spent on it, least of all a log-in."""
    now = time.time()
    if manual is not None:
        status = Supply(manual.serial, manual, float("inf")).status(now)
        yield CheckResult(
            manual.expires_at > now, "ENVOY_TOKEN", f"gateway {manual.serial}, {status and status.message}"
        )
    else:
        yield _account(logins, now)
        for url in (settings.enlighten.login_url, settings.enlighten.tokens_url):
            yield _reachable(str(url))
        for serial in sorted({*settings.envoy.serial, *cache.serials()}):
            token = cache.load(serial, now)
            text = f"good for {token.days_left(now):g} days" if token else "none; --once fetches one"
            yield CheckResult(token is not None or logins is not None, f"token of gateway {serial}", text)
    yield _writable(cache)
    topic = Topics(settings.mqtt.base_topic).token_status("0")
    yield check_broker(settings.mqtt, topic)


def _account(logins: LoginRecord | None, now: float) -> CheckResult:
    if logins is None:
        return CheckResult(ok=False, what="account", text=NO_ACCOUNT)
    if (again_at := logins.may_try_at(now)) > now:
        _state, message = logins.last_refusal
        return CheckResult(ok=False, what="account", text=f"{message}. Next attempt {utc(again_at)}")
    return CheckResult(ok=True, what="account", text="e-mail and password are set; not tried")


def _reachable(url: str) -> CheckResult:
    host = url.split("/")[2]
    try:
        answer = exchange(BoundedSession(), "GET", url, deadline_s=CHECK_TIMEOUT_S)
    except requests.exceptions.SSLError:
        return CheckResult(
            ok=False, what=host, text="does not prove who it is (TLS); is the clock right, is there a proxy?"
        )
    except ExchangeFailed as error:
        return CheckResult(ok=False, what=host, text=f"{error}; is the internet reachable from here?")
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return CheckResult(
            ok=False, what=host, text=f"is out of order (status {answer.status:d}); wait, it is tried again"
        )
    return CheckResult(ok=True, what=host, text=f"answers (status {answer.status:d})")


def _writable(cache: TokenCache) -> CheckResult:
    folder = next(path for path in (cache.folder, *cache.folder.parents) if path.exists())
    ok = os.access(folder, os.W_OK)
    return CheckResult(
        ok, "cache", f"{cache.folder} {'can' if ok else 'cannot'} be written" + ("" if ok else "; set STATE_DIR")
    )
