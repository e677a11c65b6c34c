"""The meters: ``/ivp/meters`` and below."""

from dataclasses import replace

from services.simulator.gateway import Model, State
from services.simulator.meters import Line, Meter

METER_EID = 704643328
CHANNEL_EID = 1778385169


def _meters(_: Model, state: State) -> list[dict[str, object]]:
    return [
        {
            "eid": METER_EID + 256 * number,
            "state": "enabled",
            "measurementType": meter.kind,
            # A single-phase gateway has "three" too; only phaseCount distinguishes it.
            "phaseMode": "split" if len(meter.lines) == 2 else "three",  # noqa: PLR2004 - two legs
            "phaseCount": len(meter.lines),
            "meteringStatus": "normal",
            "statusFlags": [],
        }
        for number, meter in enumerate(state.meters)
    ]


def _reading(eid: int, time: int, line: Line) -> dict[str, object]:
    return {
        "eid": eid,
        "timestamp": time,
        "actEnergyDlvd": round(line.delivered_wh, 3),
        "actEnergyRcvd": round(line.received_wh, 3),
        "apparentEnergy": round(line.apparent_vah, 3),
        "reactEnergyLagg": round(line.lagging_varh, 3),
        "reactEnergyLead": round(line.leading_varh, 3),
        "instantaneousDemand": round(line.active_w, 3),
        "activePower": round(line.active_w, 3),
        "apparentPower": round(line.apparent_va, 3),
        "reactivePower": round(line.reactive_var, 3),
        "pwrFactor": round(line.power_factor, 3),
        "voltage": round(line.voltage_v, 3),
        "current": round(line.current_a, 3),
        "freq": round(line.frequency_hz, 3),
    }


def _channels(meter: Meter) -> list[Line]:
    """Return three channels, as the gateway always does: without a phase, all values but the frequency are zero."""
    unused = Line(0.0, 0.0, 0.0, 0.0, 0.0, meter.lines[0].frequency_hz, 0.0, 0.0, 0.0, 0.0, 0.0)
    return [*meter.lines, unused, unused][:3]


def _readings(_: Model, state: State) -> list[dict[str, object]]:
    return [
        _reading(METER_EID + 256 * number, state.time, meter.total)
        | {
            "channels": [
                _reading(CHANNEL_EID + 256 * number + place, state.time, line)
                for place, line in enumerate(_channels(meter))
            ]
        }
        for number, meter in enumerate(state.meters)
    ]


def _report_line(line: Line) -> dict[str, float]:
    return {
        "currW": round(line.active_w, 3),
        "actPower": round(line.active_w, 3),
        "apprntPwr": round(line.apparent_va, 3),
        "reactPwr": round(line.reactive_var, 3),
        "whDlvdCum": round(line.delivered_wh, 3),
        "whRcvdCum": round(line.received_wh, 3),
        "varhLagCum": round(line.lagging_varh, 3),
        "varhLeadCum": round(line.leading_varh, 3),
        "vahCum": round(line.apparent_vah, 3),
        "rmsVoltage": round(line.voltage_v, 3),
        "rmsCurrent": round(line.current_a, 3),
        "pwrFactor": round(line.power_factor, 2),
        "freqHz": round(line.frequency_hz, 2),
    }


def _reports(_: Model, state: State) -> list[dict[str, object]]:
    if not state.meters:
        return []
    production, net = state.meters[:2]
    total = Meter(
        "total-consumption",
        tuple(
            replace(
                grid,
                active_w=own.active_w + grid.active_w,
                reactive_var=own.reactive_var + grid.reactive_var,
                apparent_va=own.apparent_va + grid.apparent_va,
                current_a=own.current_a + grid.current_a,
                delivered_wh=state.lifetime.consumed_on_phase_wh(phase),
                received_wh=0.0,
            )
            for phase, (own, grid) in enumerate(zip(production.lines, net.lines, strict=True))
        ),
    )
    return [
        {
            "createdAt": state.time,
            "reportType": meter.kind,
            "cumulative": _report_line(meter.total),
            "lines": [_report_line(line) for line in meter.lines],
        }
        for meter in (production, net, total)
    ]


def _line_readings(meter: Meter) -> list[dict[str, object]]:
    return [
        {
            "channels": [
                {
                    "phase": f"L{place}",
                    "activePower": round(line.active_w, 3),
                    "reactivePower": round(line.reactive_var, 3),
                    "voltage": round(line.voltage_v, 3),
                    "current": round(line.current_a, 3),
                    "freq": round(line.frequency_hz, 3),
                }
                for place, line in enumerate(_channels(meter), 1)
            ]
        }
    ]


ENDPOINTS = {
    "/ivp/meters": _meters,
    "/ivp/meters/readings": _readings,
    "/ivp/meters/reports": _reports,
    "/ivp/meters/pvReading": lambda _, state: _line_readings(state.meters[0]) if state.meters else [],
    "/ivp/meters/gridReading": lambda _, state: _line_readings(state.meters[1]) if state.meters else [],
}
