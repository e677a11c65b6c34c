"""The settings of poller."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from shared.readings import Serial
from shared.settings import JournalSettings, MqttSettings, Section, ServiceSettings
from shared.tokens import TokenText


def _host_or_url(host: str) -> str:
    url = urlsplit(host if "://" in host else f"//{host}")
    try:
        port = url.port
    except ValueError:
        port = 0
    has_more = "@" in url.netloc or url.path.strip("/")
    if url.scheme not in ("", "http", "https") or not url.hostname or port == 0 or has_more:
        raise ValueError("must be a host, host:port or http(s)://host[:port]")
    return host.rstrip("/")


def parse_fingerprint(text: str) -> str:
    """Return a SHA-256 fingerprint as 64 lower-case digits. Raises ValueError."""
    digits = text.replace(":", "").lower()
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):  # noqa: PLR2004 - SHA-256 has 32 bytes
        raise ValueError("must be a SHA-256 fingerprint: 64 hexadecimal digits, with or without colons")
    return digits


def _none_if_empty(value: object) -> object:
    """Return None for an empty text, as for every empty variable; in the JSON of ``ENVOYS`` it would be a token."""
    return None if isinstance(value, str) and not value.strip() else value


Seconds = Annotated[float, Field(ge=1, le=86_400)]


class EnvoySettings(Section):
    """Where a gateway is and how to authenticate."""

    host: Annotated[str, AfterValidator(_host_or_url)] = Field(
        "envoy.local", description="the Envoy: host, host:port or URL"
    )
    serial: Serial | None = Field(
        None, description="serial number of the gateway; any other is rejected [the one that responded first]"
    )
    token: Annotated[TokenText | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="a manually fetched token, where no token_broker runs"
    )
    username: str = Field("envoy", description="user name, for firmware before 7")
    password: SecretStr | None = Field(
        None, description="password, for firmware before 7 [last six digits of the serial number]"
    )
    cert_fingerprint: Annotated[str, AfterValidator(parse_fingerprint)] | None = Field(
        None, description="SHA-256 of the gateway's certificate, instead of pinning the first one presented"
    )


class PollSettings(Section):
    """How often a gateway is read."""

    interval_s: Seconds = Field(10, description="seconds between polls of the meters")
    inverters_interval_s: Seconds = Field(60, description="seconds between reports of the inverters")
    slow_interval_s: Seconds = Field(60, description="seconds between fetches of the slow endpoints")


class PollerSettings(ServiceSettings):
    """All settings of poller."""

    mqtt: MqttSettings = MqttSettings(client_id="poller")
    envoy: EnvoySettings = EnvoySettings()
    envoys: tuple[EnvoySettings, ...] = Field(
        (),
        description='several, instead of ENVOY_…: JSON such as [{"host": "10.0.0.2", "serial": …, "token": …}]',
    )
    poll: PollSettings = PollSettings()
    journal: JournalSettings = JournalSettings()

    @property
    def gateways(self) -> tuple[EnvoySettings, ...]:
        """The gateways to read."""
        return self.envoys or (self.envoy,)
