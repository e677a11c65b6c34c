"""The settings of poller."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from shared.readings import Serial
from shared.settings import JournalSettings, MqttSettings, Section, ServiceSettings
from shared.tokens import TokenText


def _host_or_url(host: str) -> str:
    url = urlsplit(host if "://" in host else f"//{host}")
    try:
        port = url.port
    except ValueError:
        port = 0
    beside = "@" in url.netloc or url.path.strip("/")
    if url.scheme not in ("", "http", "https") or not url.hostname or port == 0 or beside:
        raise ValueError("must be a host, host:port or http(s)://host[:port]")
    return host.rstrip("/")


def _fingerprint(text: str) -> str:
    digits = text.replace(":", "").lower()
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):  # noqa: PLR2004 - SHA-256 has 32 bytes
        raise ValueError("must be a SHA-256 fingerprint: 64 hexadecimal digits, colons between them or not")
    return digits


def _none_if_empty(told: object) -> object:
    """Return nothing for an empty text, as everywhere in the environment; in ``ENVOYS`` it would be a token."""
    return None if isinstance(told, str) and not told.strip() else told


Seconds = Annotated[float, Field(ge=1, le=86_400)]


class EnvoySettings(Section):
    """The gateway and how to be let in."""

    @model_validator(mode="before")
    @classmethod
    def _without_the_tests_variable(cls, told: object) -> object:
        # ENVOY_RECORDINGS tells our tests where recorded gateways are, and reaches the services that they start.
        return {name: value for name, value in told.items() if name != "recordings"} if isinstance(told, dict) else told

    host: Annotated[str, AfterValidator(_host_or_url)] = Field(
        "envoy.local", description="the Envoy: host, host:port or URL"
    )
    serial: Serial | None = Field(None, description="refuse any other gateway than this one")
    token: Annotated[TokenText | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="a token fetched by hand, if no token_broker runs"
    )
    username: str = Field("envoy", description="for firmware before 7")
    password: SecretStr | None = Field(None, description="for firmware before 7 [last six digits of the serial]")
    cert_fingerprint: Annotated[str, AfterValidator(_fingerprint)] | None = Field(
        None, description="SHA-256 of the gateway's certificate, if the first one seen is not to be trusted"
    )


class PollSettings(Section):
    """How often the gateway is asked."""

    interval_s: Seconds = Field(10, description="seconds between readings of the meters")
    inverters_interval_s: Seconds = Field(60, description="seconds between looks at the inverters")
    slow_interval_s: Seconds = Field(60, description="seconds between the answers that a gateway takes long for")


class PollerSettings(ServiceSettings):
    """What poller can be told."""

    mqtt: MqttSettings = MqttSettings(client_id="poller")
    envoy: EnvoySettings = EnvoySettings()
    envoys: tuple[EnvoySettings, ...] = Field(
        (), description='several, instead of ENVOY_…: JSON such as [{"host": "10.0.0.2", "serial": …, "token": …}]'
    )
    poll: PollSettings = PollSettings()
    journal: JournalSettings = JournalSettings()

    @property
    def gateways(self) -> tuple[EnvoySettings, ...]:
        """The gateways to read."""
        return self.envoys or (self.envoy,)
