"""The gateway itself: ``/info`` and ``/home``."""

from datetime import datetime
from zoneinfo import ZoneInfo

from services.simulator.gateway import Model, State


def info(model: Model, state: State) -> str:
    """Return the body of ``/info``, which is XML."""
    part = "800-00654-r08" if model.metered else "800-00551-r02"
    web_tokens = "  <web-tokens>true</web-tokens>\n" if model.needs_token else ""
    major, minor, build = model.software[1:].split(".")
    return (
        "<?xml version='1.0' encoding='UTF-8'?>\n"
        "<envoy_info>\n"
        f"  <time>{state.time}</time>\n"
        "  <device>\n"
        f"    <sn>{model.serial}</sn>\n"
        f"    <pn>{part}</pn>\n"
        f"    <software>{model.software}</software>\n"
        "    <euaid>51a001</euaid>\n"
        "    <seqnum>0</seqnum>\n"
        "    <apiver>1</apiver>\n"
        f"    <imeter>{str(model.metered).lower()}</imeter>\n"
        "  </device>\n"
        f"{web_tokens}"
        "  <package name='app'>\n"
        "    <pn>500-00002-r01</pn>\n"
        f"    <version>{int(major):02d}.{int(minor):02d}.{build}</version>\n"
        "    <build>51a001</build>\n"
        "  </package>\n"
        "  <build_info>\n"
        "    <build_id>simulator</build_id>\n"
        f"    <build_time_gmt>{model.commissioned_at}</build_time_gmt>\n"
        "  </build_info>\n"
        "</envoy_info>\n"
    )


def _home(model: Model, state: State) -> dict[str, object]:
    local = datetime.fromtimestamp(state.time, ZoneInfo(model.timezone))
    count = len(state.reports)
    return {
        "software_build_epoch": model.commissioned_at,
        "timezone": model.timezone,
        "current_date": f"{local:%m/%d/%Y}",
        "current_time": f"{local:%H:%M}",
        "network": {
            "web_comm": True,
            "ever_reported_to_enlighten": True,
            "last_enlighten_report_time": state.time - state.time % 900,
            "primary_interface": "eth0",
            "interfaces": [
                {
                    "type": "ethernet",
                    "interface": "eth0",
                    "mac": "00:1D:C0:51:A0:01",
                    "dhcp": True,
                    "ip": "192.0.2.1",
                    "signal_strength": 1,
                    "signal_strength_max": 1,
                    "carrier": True,
                }
            ],
        },
        "tariff": "single_rate",
        "comm": {"num": count, "level": 5, "pcu": {"num": count, "level": 5}, "acb": {"num": 0, "level": 0}},
    }


ENDPOINTS = {"/home": _home, "/home.json": _home}
"""``/info`` is :func:`info`, because it is XML and needs no authentication."""
