"""The settings of token_broker."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, FilePath, HttpUrl, SecretStr
from pydantic_settings import NoDecode

from shared.readings import Serial
from shared.settings import MqttSettings, Section, ServiceSettings

LOGIN_URL = HttpUrl("https://enlighten.enphaseenergy.com/login/login.json")
TOKENS_URL = HttpUrl("https://entrez.enphaseenergy.com/tokens")
"""Both as pyenphase uses them (pyenphase/pyenphase, src/pyenphase/auth.py)."""


def _safe_for_a_password(url: HttpUrl) -> HttpUrl:
    if url.scheme != "https" and not _is_near(url.host or ""):
        raise ValueError("must be https: a password is sent there")
    return url


def _is_near(host: str) -> bool:
    """Return whether a host is this machine, or a container beside us, whose name has no dot."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return "." not in host


def _split(serials: object) -> object:
    return tuple(filter(None, re.split(r"[\s,]+", serials))) if isinstance(serials, str) else serials


def _is_public_key(file: Path) -> Path:
    if not isinstance(load_pem_public_key(file.read_bytes()), EllipticCurvePublicKey):
        raise ValueError(  # noqa: TRY004 - pydantic tells of a ValueError
            "must hold the public key of an elliptic curve, which ES256 uses"
        )
    return file


PublicKeyFile = Annotated[FilePath, AfterValidator(_is_public_key)]
EnphaseUrl = Annotated[HttpUrl, AfterValidator(_safe_for_a_password)]
Serials = Annotated[tuple[Serial, ...], NoDecode, BeforeValidator(_split)]


class EnlightenSettings(Section):
    """The account at Enphase."""

    email: str | None = Field(None, description="the account at Enphase's Enlighten")
    password: SecretStr | None = Field(None, description="its password")
    login_url: EnphaseUrl = Field(LOGIN_URL, description="where one logs in")
    tokens_url: EnphaseUrl = Field(TOKENS_URL, description="where tokens are handed out")
    public_key_file: PublicKeyFile | None = Field(
        None, description="Enphase's public key (PEM), to check signatures with"
    )


class EnvoySettings(Section):
    """The gateways that tokens are for; the poller reads more settings of this name."""

    model_config = ConfigDict(extra="ignore")

    serial: Serials = Field((), description="serial numbers, commas between; learnt from pollers if not given")
    token: SecretStr | None = Field(None, description="a token fetched by hand; nothing is asked of Enphase then")


class TokenBrokerSettings(ServiceSettings):
    """What token_broker can be told."""

    mqtt: MqttSettings = MqttSettings(client_id="token-broker")
    enlighten: EnlightenSettings = EnlightenSettings()
    envoy: EnvoySettings = EnvoySettings()
