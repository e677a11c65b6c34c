"""The settings of ``make run``, from environment variables."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.settings import Port

HOST = "127.0.0.1"
"""The loopback address on which everything listens: no other machine can connect."""

RECENT_S = 900
"""Older values are not printed as the newest ones."""


class LocalSettings(BaseSettings):
    """Ports, the state directory and the gateway; all other settings are passed to the services unchanged."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")

    mqtt_port: Port = Field(1883, description="the MQTT broker")
    carbon_port: Port = Field(2004, description="Carbon's pickle receiver")
    graphite_port: Port = Field(8080, description="the page and Graphite's render API")
    simulator_envoy_port: Port = Field(8443, description="the simulated gateway")
    simulator_enlighten_port: Port = Field(8444, description="the simulated Enlighten")
    simulator_control_port: Port = Field(8445, description="the simulator's control endpoint")
    simulator_firmware: str = Field("8", description="its firmware: 5 uses HTTP, 7 and 8 HTTPS")
    simulator_email: str = Field("owner@example.com", description="the account at the simulated Enlighten")
    simulator_password: str = Field("sunshine", description="its password, valid nowhere else")
    simulator_start: datetime | None = Field(None, description="the simulated time at the start, if not now")
    simulator_state_dir: Path | None = Field(None, description="the simulator's state, if not in STATE_DIR")
    carbon_prefix: str = Field("enphase", description="first part of every Graphite path")
    state_dir: Path = Field(Path("state"), description="directory of everything that is kept between runs")
    envoy_host: str | None = Field(None, description="a real gateway instead of the simulated one")
    envoys: str | None = Field(None, description="several real gateways instead, as JSON")

    @field_validator("state_dir")
    @classmethod
    def _absolute(cls, state_dir: Path) -> Path:
        return state_dir.expanduser().absolute()

    @property
    def simulated(self) -> bool:
        """Whether gateway and Enlighten are simulated."""
        return self.envoy_host is None and self.envoys is None

    @property
    def graphite_url(self) -> str:
        """Address of the page; the render API is at ``/render``."""
        return f"http://{HOST}:{self.graphite_port}"

    def ports(self) -> dict[str, int]:
        """Return the ports to listen on, by the setting that changes each."""
        names = ["mqtt_port", "carbon_port", "graphite_port"]
        if self.simulated:
            names += ["simulator_envoy_port", "simulator_enlighten_port", "simulator_control_port"]
        return {name.upper(): getattr(self, name) for name in names}

    def service_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the processes: the caller's, with the addresses of the programs that run here."""
        # The broker of make run has no TLS.
        removed = {"MQTT_TLS", "MQTT_CA_FILE"}
        added = {
            "MQTT_HOST": HOST,
            "CARBON_HOST": HOST,
            "STATE_DIR": str(self.state_dir),
            "PYTHONUNBUFFERED": "1",
        }
        if self.simulated:
            # Credentials of a real account or gateway do not belong to the simulated ones.
            removed |= {name for name in environment if name.startswith(("ENVOY_", "ENLIGHTEN_"))}
            scheme = "http" if self.simulator_firmware == "5" else "https"
            enlighten_url = f"http://{HOST}:{self.simulator_enlighten_port}"
            added |= {
                "ENVOY_HOST": f"{scheme}://{HOST}:{self.simulator_envoy_port}",
                "ENLIGHTEN_LOGIN_URL": f"{enlighten_url}/login/login.json",
                "ENLIGHTEN_TOKENS_URL": f"{enlighten_url}/tokens",
                "ENLIGHTEN_EMAIL": self.simulator_email,
                "ENLIGHTEN_PASSWORD": self.simulator_password,
                "SIMULATOR_STATE_DIR": str(self.simulator_state_dir or self.state_dir / "simulator"),
            }
        kept = {name: value for name, value in environment.items() if name not in removed}
        return kept | added | {name: str(port) for name, port in self.ports().items()}
