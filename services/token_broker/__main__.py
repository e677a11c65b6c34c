"""Start token_broker: ``python -m services.token_broker``."""

import sys
import time

import requests

from services.token_broker.enlighten import Enlighten, EnlightenError
from services.token_broker.service import TokenBroker, obtain
from services.token_broker.settings import TokenBrokerSettings
from services.token_broker.tokens import NotAToken, Token, TokenCache
from shared import lifecycle, logs
from shared.lifecycle import ExitCode
from shared.mqtt import Connection, Subscription
from shared.settings import command_line, load, refuse
from shared.topics import Topics

WHAT_IT_DOES = "Fetch tokens for Envoy gateways from Enphase's log-in, keep them, and publish them to the poller."


def main() -> int:
    """Run the service, or do the one thing that the command line asks for; return the exit code."""
    parser = command_line("token_broker", WHAT_IT_DOES, TokenBrokerSettings)
    parser.add_argument(
        "--once", action="store_true", help="put a good token into the cache, tell how it went, and end; no MQTT"
    )
    arguments = parser.parse_args()
    settings = load(TokenBrokerSettings)
    logs.configure(settings.log.level, settings.log.format)
    cache = TokenCache(settings.state_dir / "token_broker")
    enlighten = _account(settings)
    try:
        by_hand = _token_by_hand(settings)
    except NotAToken as error:
        refuse(f"ENVOY_TOKEN: {error}")
    if arguments.once:
        return _once(settings, enlighten, cache, by_hand)

    stop = lifecycle.stop_on_signals()
    requests_for_tokens = Subscription(Topics(settings.mqtt.base_topic).all_token_requests())
    connection = Connection(settings.mqtt, stop=stop, subscriptions=[requests_for_tokens])
    TokenBroker(connection, enlighten, cache, serial=settings.envoy.serial, by_hand=by_hand).run(stop)
    return ExitCode.TAKEN_OVER if connection.taken_over else ExitCode.STOPPED


def _account(settings: TokenBrokerSettings) -> Enlighten | None:
    account = settings.enlighten
    if account.email is None or account.password is None:
        return None
    return Enlighten(
        requests.Session(), str(account.login_url), str(account.tokens_url), account.email, account.password
    )


def _token_by_hand(settings: TokenBrokerSettings) -> Token | None:
    if settings.envoy.token is None:
        return None
    return Token.read(
        settings.envoy.token.get_secret_value(), now=time.time(), serial=settings.envoy.serial, by_hand=True
    )


def _once(settings: TokenBrokerSettings, enlighten: Enlighten | None, cache: TokenCache, by_hand: Token | None) -> int:
    now = time.time()
    if by_hand is not None:
        print(f"gateway {by_hand.serial}: {by_hand.status(now).message}; given as ENVOY_TOKEN")
        return ExitCode.STOPPED
    serial = settings.envoy.serial
    if serial is None:
        refuse("ENVOY_SERIAL: which gateway is the token for? The number is printed on the Envoy")
    token, origin = cache.load(serial, now), "from the cache"
    if token is None or token.renew_at() <= now:
        print(f"gateway {serial}: asking {settings.enlighten.login_url.host} for a token ...")
        try:
            token, origin = obtain(serial, enlighten, cache, now), "fetched"
        except EnlightenError as error:
            print(f"gateway {serial}: {error}", file=sys.stderr)
            return ExitCode.FAILED
    print(f"gateway {serial}: {token.status(now).message}; {origin}, kept in {cache.path(serial)}")
    return ExitCode.STOPPED


if __name__ == "__main__":
    sys.exit(main())
