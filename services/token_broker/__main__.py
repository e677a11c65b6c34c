"""Start token_broker: ``python -m services.token_broker``."""

import sys
import time

from services.token_broker.checks import run_checks
from services.token_broker.enlighten import Enlighten
from services.token_broker.logins import LoginRecord
from services.token_broker.published import Published
from services.token_broker.service import TokenBroker
from services.token_broker.settings import TokenBrokerSettings
from services.token_broker.supply import Supply, TokenSupply
from services.token_broker.tokens import NotAToken, Token, TokenCache
from shared import lifecycle, logs
from shared.checks import report
from shared.health import Health, check_health
from shared.lifecycle import ExitCode
from shared.mqtt import Connection, Subscription
from shared.settings import command_line, load, refuse
from shared.topics import Topics

WHAT_IT_DOES = "Fetch tokens for Envoy gateways from Enphase's log-in, keep them, and publish them to the poller."


def main() -> int:
    """Run the service, or do the one thing that the command line asks for; return the exit code."""
    parser = command_line("token_broker", WHAT_IT_DOES, TokenBrokerSettings)
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--once", action="store_true", help="put a good token into the cache, tell how it went, and end; no MQTT"
    )
    only.add_argument(
        "--check", action="store_true", help="try Enphase, the cache and the broker without logging in, and end"
    )
    arguments = parser.parse_args()
    settings = load(TokenBrokerSettings)
    logs.configure(settings.log.level, settings.log.format)
    lifecycle.restrict_new_files()
    health_file = settings.state_dir / "token_broker" / "health"
    if arguments.health:
        return report([check_health(health_file, time.time())])
    cache = TokenCache(settings.state_dir / "token_broker" / "tokens", _public_key(settings))
    manual = _manual_token(settings)
    now = time.time()
    try:
        logins = _logins(settings)
        if arguments.check:
            return report(run_checks(settings, cache, manual, logins))
        supply = TokenSupply(_enlighten(settings), logins, cache, manual=manual, public_key=_public_key(settings))
        for serial in set(settings.envoy.serial) or ({manual.serial} if manual else cache.serials()):
            supply.serve(serial, now)
    except OSError as error:
        refuse(f"STATE_DIR: {error.filename} cannot be used: {error.strerror}")
    if arguments.once:
        return _once(settings, supply, cache, logins)

    stop = lifecycle.stop_on_signals()
    requests_for_tokens = Subscription(Topics(settings.mqtt.base_topic).all_token_requests())
    connection = Connection(settings.mqtt, stop=stop, subscriptions=[requests_for_tokens])
    health = Health(health_file)
    published = Published(settings.state_dir / "token_broker" / "published")
    TokenBroker(connection, supply, health=health, published=published).run(stop)
    return connection.exit_code


def _enlighten(settings: TokenBrokerSettings) -> Enlighten | None:
    account = settings.enlighten
    if account.email is None or account.password is None:
        return None
    return Enlighten(str(account.login_url), str(account.tokens_url), account.email, account.password)


def _logins(settings: TokenBrokerSettings) -> LoginRecord | None:
    account = settings.enlighten
    if account.email is None or account.password is None:
        return None
    return LoginRecord(settings.state_dir / "token_broker" / "logins.json", account.email, account.password)


def _public_key(settings: TokenBrokerSettings) -> str | None:
    file = settings.enlighten.public_key_file
    return None if file is None else file.read_text()


def _manual_token(settings: TokenBrokerSettings) -> Token | None:
    if settings.envoy.token is None:
        return None
    try:
        token = Token.read(
            settings.envoy.token.get_secret_value(), now=time.time(), manual=True, public_key=_public_key(settings)
        )
    except NotAToken as error:
        refuse(f"ENVOY_TOKEN: {error}")
    if settings.envoy.serial and token.serial not in settings.envoy.serial:
        refuse(f"ENVOY_TOKEN: it is for gateway {token.serial}, which ENVOY_SERIAL does not name")
    return token


def _once(settings: TokenBrokerSettings, supply: TokenSupply, cache: TokenCache, logins: LoginRecord | None) -> int:
    if not supply.all:
        refuse("ENVOY_SERIAL: which gateway is the token for? The number is printed on the Envoy")
    now = time.time()
    due = [gateway.serial for gateway in supply.all if gateway.fetch_at <= now]
    may_ask = logins is not None and logins.may_try_at(now) <= now
    then = f"asking {settings.enlighten.login_url.host} ..." if may_ask else "Enphase is not asked now"
    for serial in due:
        print(f"gateway {serial}: the cache has no token that is good for long; {then}", flush=True)
    supply.fetch_due(now)
    return max(_told_once(gateway, cache, now, fetched=gateway.serial in due) for gateway in supply.all)


def _told_once(gateway: Supply, cache: TokenCache, now: float, *, fetched: bool) -> int:
    status = gateway.status(now)
    good = gateway.token is not None and gateway.token.expires_at > now
    origin = ""
    if gateway.problem is None and gateway.token is not None:
        where = f"kept in {cache.path(gateway.serial)}"
        origin = "; given as ENVOY_TOKEN" if gateway.token.kind == "manual" else f"; {where}"
        origin = f"{origin}, fetched now" if fetched else origin
    print(f"gateway {gateway.serial}: {status.message if status else 'no token'}{origin}")
    return ExitCode.STOPPED if good else ExitCode.FAILED


if __name__ == "__main__":
    sys.exit(main())
