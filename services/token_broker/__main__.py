"""Start token_broker: ``python -m services.token_broker``.

Libraries are imported where they are needed, so that ``--health`` and ``--help`` load neither paho nor requests.
"""

import argparse
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from services.token_broker.settings import TokenBrokerSettings
from shared import lifecycle, logs
from shared.checks import report
from shared.health import Health, check_health
from shared.lifecycle import ExitCode
from shared.settings import command_line, load, refuse
from shared.tokens import InvalidToken, Token, parse_token
from shared.topics import Topics

if TYPE_CHECKING:
    from services.token_broker.account import Account
    from services.token_broker.gateway_token import GatewayToken
    from services.token_broker.supply import TokenSupply
    from services.token_broker.token_cache import TokenCache

DESCRIPTION = "Fetch tokens for Envoy gateways from Enphase, cache them, and publish them to the poller."


def main() -> int:
    """Run the service, or do the one thing that the command line requests; return the exit code."""
    arguments = parse_arguments()
    settings = load(TokenBrokerSettings)
    logs.configure(settings.log.level, settings.log.format)
    lifecycle.restrict_new_files()
    state_dir = settings.state_dir / "token_broker"
    if arguments.health:
        return report([check_health(state_dir / "health", time.time())])

    from services.token_broker.checks import run_checks
    from services.token_broker.supply import TokenSupply
    from services.token_broker.token_cache import TokenCache

    public_key = read_public_key(settings)
    manual = parse_manual_token(settings, public_key)
    cache = TokenCache(state_dir / "tokens", public_key)
    try:
        account = new_account(settings, state_dir, public_key)
        if arguments.check:
            return report(run_checks(settings, cache, manual, account))
        supply = TokenSupply(account, cache, manual=manual)
        now = time.time()
        for serial in settings.envoy.serial or ([manual.serial] if manual else cache.serials()):
            supply.serve(serial, now)
    except OSError as error:
        refuse(f"STATE_DIR: cannot use {error.filename}: {error.strerror}")
    if arguments.once:
        return fetch_once(settings, supply, cache, account)
    return run_service(settings, supply, state_dir)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = command_line("token_broker", DESCRIPTION, TokenBrokerSettings)
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--once", action="store_true", help="fetch a token unless a valid one is cached, and exit; needs no broker"
    )
    only.add_argument(
        "--check", action="store_true", help="check account, Enphase, cache and broker without logging in, and exit"
    )
    return parser.parse_args()


def run_service(settings: TokenBrokerSettings, supply: "TokenSupply", state_dir: Path) -> int:
    """Publish tokens until a signal comes; return the exit code."""
    from services.token_broker.published import PublishedSerials
    from services.token_broker.service import TokenBroker
    from shared.mqtt import Connection, Subscription

    stop = lifecycle.stop_on_signals()
    token_requests = Subscription(Topics(settings.mqtt.base_topic).all_token_requests())
    connection = Connection(settings.mqtt, stop=stop, subscriptions=[token_requests])
    health, published = Health(state_dir / "health"), PublishedSerials(state_dir / "published")
    TokenBroker(connection, supply, health=health, published=published).run(stop)
    return connection.exit_code


def fetch_once(
    settings: TokenBrokerSettings, supply: "TokenSupply", cache: "TokenCache", account: "Account | None"
) -> int:
    """Fetch what is due and print the result for each gateway; return the exit code."""
    if not supply.gateways:
        refuse("ENVOY_SERIAL: must be set to the serial number of the gateway, which is printed on it")
    now = time.time()
    due = [gateway.serial for gateway in supply.gateways if gateway.fetch_at <= now]
    may_fetch = account is not None and account.logins.next_attempt_at(now) <= now
    action = f"requesting one from {settings.enlighten.login_url.host}" if may_fetch else "no request is allowed now"
    for serial in due:
        print(f"gateway {serial}: no valid token in the cache; {action}", flush=True)
    supply.fetch_due(now)
    for gateway in supply.gateways:
        print(f"gateway {gateway.serial}: {describe(gateway, cache, now, fetched=gateway.serial in due)}")
    all_valid = all(gateway.valid_token(now) is not None for gateway in supply.gateways)
    return ExitCode.STOPPED if all_valid else ExitCode.FAILED


def describe(gateway: "GatewayToken", cache: "TokenCache", now: float, *, fetched: bool) -> str:
    """Return a gateway's status, and for a token where it comes from."""
    status = gateway.status(now)
    message = status.message if status else "no token"
    if gateway.problem is not None or gateway.token is None:
        return message
    origin = "set as ENVOY_TOKEN" if gateway.token.kind == "manual" else f"cached in {cache.path(gateway.serial)}"
    return f"{message}; {origin}{', fetched now' if fetched else ''}"


def new_account(settings: TokenBrokerSettings, state_dir: Path, public_key: str | None) -> "Account | None":
    """Return the account of the settings; None without one. Raises OSError."""
    from services.token_broker.account import Account
    from services.token_broker.enlighten import Enlighten
    from services.token_broker.logins import LoginRecord

    enlighten = settings.enlighten
    if enlighten.email is None or enlighten.password is None:
        return None
    return Account(
        Enlighten(str(enlighten.login_url), str(enlighten.tokens_url), enlighten.email, enlighten.password, public_key),
        LoginRecord(state_dir / "logins.json", enlighten.email, enlighten.password),
    )


def parse_manual_token(settings: TokenBrokerSettings, public_key: str | None) -> Token | None:
    """Return the token of the settings; None without one. An invalid one ends the process."""
    if settings.envoy.token is None:
        return None
    text = settings.envoy.token.get_secret_value()
    try:
        token = parse_token(text, now=time.time(), manual=True, public_key=public_key)
    except InvalidToken as error:
        refuse(f"ENVOY_TOKEN: {error}")
    if settings.envoy.serial and token.serial not in settings.envoy.serial:
        refuse(f"ENVOY_TOKEN: it is for gateway {token.serial}, which ENVOY_SERIAL does not name")
    return token


def read_public_key(settings: TokenBrokerSettings) -> str | None:
    """Return Enphase's public key as PEM; None without one. An invalid one ends the process."""
    path = settings.enlighten.public_key_file
    if path is None:
        return None

    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key: object = None
    with suppress(OSError, ValueError, UnsupportedAlgorithm):
        pem = path.read_text()
        key = load_pem_public_key(pem.encode())
    if not isinstance(key, EllipticCurvePublicKey):
        refuse(f"ENLIGHTEN_PUBLIC_KEY_FILE: {path} must contain a public key for ES256 in PEM format")
    return pem


if __name__ == "__main__":
    sys.exit(main())
