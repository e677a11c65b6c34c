"""The settings of token_broker."""

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, FilePath, HttpUrl, SecretStr
from pydantic_settings import NoDecode

from shared.readings import Serial
from shared.settings import MqttSettings, Section, ServiceSettings

LOGIN_URL = HttpUrl("https://enlighten.enphaseenergy.com/login/login.json")
TOKENS_URL = HttpUrl("https://entrez.enphaseenergy.com/tokens")
"""The URLs that pyenphase uses (pyenphase/pyenphase, src/pyenphase/auth.py)."""


def _safe_for_a_password(url: HttpUrl) -> HttpUrl:
    if url.scheme != "https" and not _is_local(url.host or ""):
        raise ValueError("must be https, because a password is sent there")
    return url


def _is_local(host: str) -> bool:
    """Return whether a host is this machine, or a container on the same network, whose name has no dot."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return "." not in host


def _split(serials: object) -> object:
    return tuple(filter(None, re.split(r"[\s,]+", serials))) if isinstance(serials, str) else serials


EnphaseUrl = Annotated[HttpUrl, AfterValidator(_safe_for_a_password)]
Serials = Annotated[tuple[Serial, ...], NoDecode, BeforeValidator(_split)]


class EnlightenSettings(Section):
    """The account at Enphase."""

    email: str | None = Field(None, description="e-mail address of the Enlighten account")
    password: SecretStr | None = Field(None, description="password of the Enlighten account")
    login_url: EnphaseUrl = Field(LOGIN_URL, description="URL of the log-in")
    tokens_url: EnphaseUrl = Field(TOKENS_URL, description="URL that issues tokens")
    public_key_file: FilePath | None = Field(
        None, description="Enphase's public key (PEM), to check the signatures of tokens with"
    )


class EnvoySettings(Section):
    """The gateways that tokens are for; the poller has more settings with this prefix."""

    model_config = ConfigDict(extra="ignore")

    serial: Serials = Field((), description="serial numbers, separated by commas; if unset, those that pollers request")
    token: SecretStr | None = Field(None, description="a token fetched manually, which replaces the account")


class TokenBrokerSettings(ServiceSettings):
    """All settings of token_broker."""

    mqtt: MqttSettings = MqttSettings(client_id="token-broker")
    enlighten: EnlightenSettings = EnlightenSettings()
    envoy: EnvoySettings = EnvoySettings()
