"""What to authenticate with: user name and password, ENVOY_TOKEN, or a token from the broker.

A token is only ever used for the gateway in its own ``aud``. A credential that the gateway rejected is blocked for five
minutes, however often it is offered.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import requests
from pydantic import SecretStr
from requests.auth import AuthBase, HTTPDigestAuth

from services.poller.identity import Identity
from services.poller.settings import EnvoySettings
from shared.tokens import InvalidToken, Token, parse_token

logger = logging.getLogger(__name__)

REJECTED_RETRY_S = 300.0
"""A rejected credential is not sent again before; the gateway's clock or ours may have been wrong."""

Source = Literal["ENVOY_TOKEN", "the token at the broker", "password"]


@dataclass(frozen=True, slots=True)
class BearerToken(AuthBase):
    """Sends a token with every request."""

    token: SecretStr

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token to a request's headers."""
        request.headers["Authorization"] = f"Bearer {self.token.get_secret_value()}"
        return request


@dataclass(frozen=True, slots=True)
class Credential:
    """What a gateway is sent to authenticate."""

    source: Source
    name: str
    """For messages."""
    secret: SecretStr
    auth: AuthBase


class Credentials:
    """Chooses what to authenticate with: the password, ENVOY_TOKEN or a token from the broker."""

    def __init__(self, settings: EnvoySettings, clock: Callable[[], float] = time.time) -> None:
        """Prepare the choice.

        Args:
            settings: user name, password and token.
            clock: epoch seconds.
        """
        self._settings = settings
        self._clock = clock
        self._offered: dict[str, Token] = {}
        """Tokens from the broker, by serial number."""
        self._blocked_until: dict[str, float] = {}
        """When a rejected secret may be sent again, on the monotonic clock."""
        self._manual_rejected = False

    def choose(self, identity: Identity, now: float) -> Credential | None:
        """Return what to authenticate with now; None if there is nothing, or only what was rejected a moment ago."""
        for candidate in self._candidates(identity):
            if self._blocked_until.get(candidate.secret.get_secret_value(), 0.0) <= now:
                return candidate
        return None

    def offer(self, token: Token) -> bool:
        """Take a token from the broker, and return whether it was taken.

        It must be for the gateway that it names. One that looks invalid, as an expired one does to our clock, is taken
        only where no better one is known: the gateway decides.
        """
        now = self._clock()
        try:
            parse_token(token.token.get_secret_value(), now=now, serial=token.serial, manual=True)
        except InvalidToken as error:
            logger.warning("ignored a token from the broker for gateway %s: %s", token.serial, error)
            return False
        known = self._offered.get(token.serial)
        if known is not None and known.looks_valid(now) and not token.looks_valid(now):
            return False
        self._offered[token.serial] = token
        return True

    def reject(self, credential: Credential, now: float) -> None:
        """Do not choose a credential again for five minutes; a token from the broker must also be offered again."""
        self._blocked_until = {secret: until for secret, until in self._blocked_until.items() if until > now}
        self._blocked_until[credential.secret.get_secret_value()] = now + REJECTED_RETRY_S
        if credential.source == "ENVOY_TOKEN":
            self._manual_rejected = True
        self._offered = {serial: token for serial, token in self._offered.items() if token.token != credential.secret}

    def missing_hint(self, identity: Identity) -> str:
        """Return what to do where there is nothing to authenticate with."""
        needed = f"gateway {identity.serial} has firmware {identity.firmware} and requires a token"
        try:
            self._parse_manual(identity)
        except InvalidToken as error:
            return f"{needed}, and ENVOY_TOKEN cannot be used for it: {error}; set ENVOY_TOKEN to another"
        return f"{needed}; set ENVOY_TOKEN, or start token_broker and a broker"

    def _candidates(self, identity: Identity) -> list[Credential]:
        """Return what there is, the preferred one first: a rejected ENVOY_TOKEN gives way to the broker's token."""
        if not identity.needs_token:
            return [self._password(identity)]
        tokens: list[Credential] = []
        if (offered := self._offered.get(identity.serial)) is not None:
            tokens.append(_token_credential("the token at the broker", offered.token))
        try:
            manual = self._parse_manual(identity)
        except InvalidToken:
            manual = None
        if manual is not None:
            tokens.insert(len(tokens) if self._manual_rejected else 0, _token_credential("ENVOY_TOKEN", manual))
        return tokens

    def _parse_manual(self, identity: Identity) -> SecretStr | None:
        """Return ENVOY_TOKEN, if it is set and for this gateway. Raises InvalidToken if it is set and is not."""
        if self._settings.token is None:
            return None
        text = self._settings.token.get_secret_value()
        return parse_token(text, now=self._clock(), serial=identity.serial, manual=True).token

    def _password(self, identity: Identity) -> Credential:
        """Return user name and password; the gateway's default is the last six digits of its serial number."""
        username, given = self._settings.username, self._settings.password
        password = given if given is not None else SecretStr(identity.serial[-6:])
        origin = "ENVOY_PASSWORD" if given is not None else "the last six digits of the serial number"
        auth = HTTPDigestAuth(username, password.get_secret_value())
        return Credential("password", f"user {username} with {origin}", password, auth)


def _token_credential(source: Source, token: SecretStr) -> Credential:
    return Credential(source, source, token, BearerToken(token))


def rejection_hint(credential: Credential) -> str:
    """Return what to do where a gateway rejects a credential."""
    to_do = "check ENVOY_USERNAME and ENVOY_PASSWORD" if credential.source == "password" else "fetch another token"
    return f"the gateway rejected {credential.name}; {to_do}"
