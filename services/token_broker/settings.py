"""The settings of token_broker."""

from pydantic import ConfigDict, Field, HttpUrl, SecretStr

from shared.messages import Serial
from shared.settings import MqttSettings, Section, ServiceSettings

LOGIN_URL = HttpUrl("https://enlighten.enphaseenergy.com/login/login.json")
TOKENS_URL = HttpUrl("https://entrez.enphaseenergy.com/tokens")
"""Both as pyenphase uses them (pyenphase/pyenphase, src/pyenphase/auth.py)."""


class EnlightenSettings(Section):
    """The account at Enphase."""

    email: str | None = Field(None, description="the account at Enphase's Enlighten")
    password: SecretStr | None = Field(None, description="its password")
    login_url: HttpUrl = Field(LOGIN_URL, description="where one logs in")
    tokens_url: HttpUrl = Field(TOKENS_URL, description="where tokens are handed out")


class EnvoySettings(Section):
    """The gateway that tokens are for; the poller reads more settings of this name."""

    model_config = ConfigDict(extra="ignore")

    serial: Serial | None = Field(
        None, description="the gateway's serial number; learnt from the poller's request if not given"
    )
    token: SecretStr | None = Field(None, description="a token fetched by hand; nothing is asked of Enphase then")


class TokenBrokerSettings(ServiceSettings):
    """What token_broker can be told."""

    mqtt: MqttSettings = MqttSettings(client_id="token-broker")
    enlighten: EnlightenSettings = EnlightenSettings()
    envoy: EnvoySettings = EnvoySettings()
