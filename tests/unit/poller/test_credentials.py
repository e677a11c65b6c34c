"""Which credential is chosen, and what is done with one that the gateway rejected."""

import time
from typing import Any

import pytest
from pydantic import SecretStr

from services.poller.credentials import REJECTED_RETRY_S, Credentials, rejection_hint
from services.poller.identity import Identity
from services.poller.settings import EnvoySettings
from tests.tokens import broker_token, unsigned_token

SERIAL, OTHER = "122012345678", "122000000099"
NEW = Identity(SERIAL, None, "8.3.5169", metered_hardware=True)
OLD = Identity(SERIAL, None, "5.0.62", metered_hardware=True)
NOW = time.time()


def settings(**fields: Any) -> EnvoySettings:
    """Return the settings of a gateway."""
    return EnvoySettings.model_validate({"host": "roof"} | fields)


def test_a_rejected_token_is_blocked_for_five_minutes() -> None:
    """However often it is offered; another one is not."""
    credentials = Credentials(settings(), lambda: NOW)
    token = broker_token(SERIAL, signature="Zmlyc3Q")
    credentials.offer(token)
    rejected = credentials.choose(NEW, 100)
    assert rejected is not None

    credentials.reject(rejected, 100)
    assert credentials.choose(NEW, 101) is None
    credentials.offer(token)
    assert credentials.choose(NEW, 100 + REJECTED_RETRY_S - 1) is None
    assert credentials.choose(NEW, 100 + REJECTED_RETRY_S) == rejected
    credentials.offer(broker_token(SERIAL, signature="c2Vjb25k"))
    assert credentials.choose(NEW, 101) is not None


def test_a_rejected_envoy_token_gives_way_to_the_brokers_and_is_retried_without_it() -> None:
    """Two rejected tokens do not take turns."""
    credentials = Credentials(settings(token=unsigned_token(SERIAL)), lambda: NOW)
    manual = credentials.choose(NEW, 0)
    assert manual is not None
    assert manual.source == "ENVOY_TOKEN"
    credentials.reject(manual, 0)
    assert credentials.choose(NEW, 1) is None

    credentials.offer(broker_token(SERIAL, signature="Zmlyc3Q"))
    from_broker = credentials.choose(NEW, REJECTED_RETRY_S + 1)
    assert from_broker is not None
    assert from_broker.source == "the token at the broker"
    credentials.reject(from_broker, REJECTED_RETRY_S + 1)
    retried = credentials.choose(NEW, REJECTED_RETRY_S + 2)
    assert retried is not None
    assert retried.source == "ENVOY_TOKEN"
    credentials.reject(retried, REJECTED_RETRY_S + 2)
    credentials.offer(broker_token(SERIAL, signature="Zmlyc3Q"))
    assert credentials.choose(NEW, REJECTED_RETRY_S + 3) is None


def test_a_token_that_looks_invalid_is_used_only_where_there_is_no_better_one() -> None:
    """Our clock may be wrong: the gateway decides."""
    credentials = Credentials(settings(), lambda: NOW + 86_400)
    expired = broker_token(SERIAL, signature="b2xk")
    assert credentials.offer(expired)
    chosen = credentials.choose(NEW, 0)
    assert chosen is not None
    assert chosen.secret == expired.token

    now_right = Credentials(settings(), lambda: NOW)
    good = broker_token(SERIAL, signature="Z29vZA")
    assert now_right.offer(good)
    assert not now_right.offer(broker_token(SERIAL, signature="b2xk", lifetime_s=-3600))
    assert now_right.offer(broker_token(SERIAL, signature="bmV3"))


@pytest.mark.parametrize(
    "text",
    ["garbage", "a.b.c", unsigned_token(OTHER), unsigned_token(SERIAL).partition(".")[2]],
    ids=["text", "parts", "another gateway's", "without header"],
)
def test_what_is_not_a_token_for_its_gateway_is_ignored(text: str) -> None:
    """Not even where there is none."""
    credentials = Credentials(settings(), lambda: NOW)

    assert not credentials.offer(broker_token(SERIAL).model_copy(update={"token": SecretStr(text)}))
    assert credentials.choose(NEW, 0) is None


def test_old_firmware_gets_the_password() -> None:
    """The last six digits of the serial number, or ENVOY_PASSWORD; a rejected one is retried in five minutes."""
    default = Credentials(settings(token=unsigned_token(SERIAL)), lambda: NOW).choose(OLD, 0)
    credentials = Credentials(settings(password="given", username="installer"), lambda: NOW)
    given = credentials.choose(OLD, 0)

    assert default is not None
    assert given is not None
    assert default.secret.get_secret_value() == SERIAL[-6:]
    assert default.name == "user envoy with the last six digits of the serial number"
    assert given.name == "user installer with ENVOY_PASSWORD"
    assert "check ENVOY_USERNAME and ENVOY_PASSWORD" in rejection_hint(given)
    credentials.reject(given, 0)
    assert credentials.choose(OLD, 1) is None
    assert credentials.choose(OLD, REJECTED_RETRY_S) is not None


def test_what_is_missing_is_reported_with_what_to_do() -> None:
    """Without a token, and with one that cannot be used."""
    missing = Credentials(settings(), lambda: NOW).missing_hint(NEW)
    wrong = Credentials(settings(token=unsigned_token(OTHER)), lambda: NOW).missing_hint(NEW)

    assert "set ENVOY_TOKEN, or start token_broker" in missing
    assert "ENVOY_TOKEN cannot be used for it: it is for another gateway" in wrong


def test_no_message_and_no_representation_holds_a_secret() -> None:
    """They end up in logs."""
    text = unsigned_token(SERIAL)
    credential = Credentials(settings(token=text), lambda: NOW).choose(NEW, 0)

    assert credential is not None
    assert text not in repr(credential) + str(credential.auth) + rejection_hint(credential)
