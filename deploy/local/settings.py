"""What ``make run`` can be told, by environment variables."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.settings import Port

HOST = "127.0.0.1"
"""Everything listens here, and nothing outside this machine can reach it."""


class LocalSettings(BaseSettings):
    """Ports, the place of the state, and which gateway; the services' own settings are passed on as they are."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")

    mqtt_port: Port = Field(1883, description="the MQTT broker")
    carbon_port: Port = Field(2004, description="Carbon's pickle receiver")
    graphite_port: Port = Field(8080, description="the page and Graphite's render API")
    simulator_envoy_port: Port = Field(8443, description="the simulated gateway")
    simulator_enlighten_port: Port = Field(8444, description="the simulated Enlighten")
    simulator_control_port: Port = Field(8445, description="the simulator's control endpoint")
    simulator_firmware: str = Field("8", description="the simulated gateway's: 5 speaks HTTP, newer ones HTTPS")
    simulator_email: str = Field("owner@example.com", description="the account at the simulated Enlighten")
    simulator_password: str = Field("sunshine", description="its password: made up, and good nowhere else")
    simulator_state_dir: Path | None = Field(None, description="the simulator's own state")
    carbon_prefix: str = Field("enphase", description="first part of every Graphite path")
    state_dir: Path = Field(Path("state"), description="where everything keeps what must outlive it")
    envoy_host: str | None = Field(None, description="the real gateway; without it one is simulated")
    envoys: str | None = Field(None, description="several real gateways")

    @field_validator("state_dir")
    @classmethod
    def _absolute(cls, state_dir: Path) -> Path:
        return state_dir.expanduser().absolute()

    @property
    def simulated(self) -> bool:
        """Whether a simulator stands in for the gateway and for Enlighten."""
        return self.envoy_host is None and self.envoys is None

    @property
    def graphite_url(self) -> str:
        """Where the page and the render API answer."""
        return f"http://{HOST}:{self.graphite_port}"

    def ports(self) -> dict[str, int]:
        """Return every port that will be listened on, by the setting that changes it."""
        names = ["mqtt_port", "carbon_port", "graphite_port"]
        if self.simulated:
            names += ["simulator_envoy_port", "simulator_enlighten_port", "simulator_control_port"]
        return {name.upper(): getattr(self, name) for name in names}

    def service_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the environment for the processes: the caller's, pointed at the programs that run here."""
        # Our own broker knows no TLS.
        left_out = {"MQTT_TLS", "MQTT_CA_FILE"}
        here = {
            "MQTT_HOST": HOST,
            "CARBON_HOST": HOST,
            "STATE_DIR": str(self.state_dir),
            "PYTHONUNBUFFERED": "1",
        }
        if self.simulated:
            # What is set for the real account and gateway does not fit the simulated ones, and does not concern them.
            left_out |= {name for name in environment if name.startswith(("ENVOY_", "ENLIGHTEN_"))}
            scheme = "http" if self.simulator_firmware == "5" else "https"
            enlighten_url = f"http://{HOST}:{self.simulator_enlighten_port}"
            here |= {
                "ENVOY_HOST": f"{scheme}://{HOST}:{self.simulator_envoy_port}",
                "ENLIGHTEN_LOGIN_URL": f"{enlighten_url}/login/login.json",
                "ENLIGHTEN_TOKENS_URL": f"{enlighten_url}/tokens",
                "ENLIGHTEN_EMAIL": self.simulator_email,
                "ENLIGHTEN_PASSWORD": self.simulator_password,
                "SIMULATOR_STATE_DIR": str(self.simulator_state_dir or self.state_dir / "simulator"),
            }
        kept = {name: value for name, value in environment.items() if name not in left_out}
        return kept | here | {name: str(port) for name, port in self.ports().items()}
