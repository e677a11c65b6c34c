"""Production and consumption: ``/production.json``, ``/api/v1/production`` and ``/ivp/pdm/energy``."""

from collections.abc import Sequence

from services.simulator.endpoints.inverters import sum_reports
from services.simulator.gateway import Model, State
from services.simulator.meters import Line

FIRST_FIRMWARE_WITHOUT_WRAP = 8
WRAP_WH = 2**32 // 3600
"""Before firmware 8 the sum of the inverters' joules wraps at 2^32."""
DAY_COUNTERS = ("whToday", "whLastSevenDays", "vahToday", "varhLeadToday", "varhLagToday")


def production(model: Model, state: State, *, details: bool) -> dict[str, object]:
    """Return the body of ``/production.json``; with details, meters have their phases in ``lines``."""
    totals = sum_reports(state)
    inverters = {
        "type": "inverters",
        "activeCount": len(state.reports),
        "readingTime": totals.time,
        "wNow": totals.power_w,
        "whLifetime": totals.energy_wh % WRAP_WH if model.firmware < FIRST_FIRMWARE_WITHOUT_WRAP else totals.energy_wh,
    }
    storage = {"type": "acb", "activeCount": 0, "readingTime": 0, "wNow": 0, "whNow": 0, "state": "idle"}
    if not state.meters:
        return {"production": [inverters], "storage": [storage]}
    measured, *consumption = _eims(state, details=details)
    return {"production": [inverters, measured], "consumption": consumption, "storage": [storage]}


def _eims(state: State, *, details: bool) -> list[dict[str, object]]:
    """Return the metered sections: production, total-consumption (computed) and net-consumption."""
    production_meter, net_meter = state.meters[:2]
    phases = len(production_meter.lines)
    production_lines, total_lines, net_lines = [], [], []
    for phase, (own, grid) in enumerate(zip(production_meter.lines, net_meter.lines, strict=True)):
        days_wh = state.today.produced_wh / phases, state.last_seven_days.produced_wh / phases
        production_lines.append(_eim_line(own, own.delivered_wh, *days_wh))
        net_lines.append(_eim_line(grid, grid.delivered_wh - grid.received_wh, 0, 0))
        total_lines.append(
            _sum_lines((production_lines[-1], net_lines[-1]))
            | {
                "whLifetime": state.lifetime.consumed_on_phase_wh(phase),
                "rmsVoltage": grid.voltage_v,
                "whToday": state.today.consumed_on_phase_wh(phase),
                "whLastSevenDays": state.last_seven_days.consumed_on_phase_wh(phase),
            }
        )
    sections = []
    for kind, lines in (
        ("production", production_lines),
        ("total-consumption", total_lines),
        ("net-consumption", net_lines),
    ):
        section: dict[str, object] = {"type": "eim", "activeCount": 1, "measurementType": kind}
        section |= {"readingTime": state.time, **_eim_numbers(_sum_lines(lines), kind)}
        if details:
            section["lines"] = [_eim_numbers(line, kind) for line in lines]
        sections.append(section)
    return sections


def _eim_line(line: Line, lifetime_wh: float, today_wh: float, last_seven_days_wh: float) -> dict[str, float]:
    """Return one phase; unlike in the meter readings, current and apparent power are negative on export."""
    sign = -1 if line.active_w < 0 else 1
    return {
        "wNow": line.active_w,
        "whLifetime": lifetime_wh,
        "varhLeadLifetime": line.leading_varh,
        "varhLagLifetime": line.lagging_varh,
        "vahLifetime": line.apparent_vah,
        "rmsCurrent": sign * line.current_a,
        "rmsVoltage": line.voltage_v,
        "reactPwr": line.reactive_var,
        "apprntPwr": sign * line.apparent_va,
        "whToday": today_wh,
        "whLastSevenDays": last_seven_days_wh,
    }


def _sum_lines(lines: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: sum(line[key] for line in lines) for key in lines[0]}


def _eim_numbers(values: dict[str, float], kind: str) -> dict[str, float]:
    numbers = {key: round(value, 3) for key, value in values.items()}
    apparent_va = abs(values["apprntPwr"])
    numbers["pwrFactor"] = round(max(-1.0, min(1.0, values["wNow"] / apparent_va)), 2) if apparent_va else 0.0
    if kind == "net-consumption":  # without day counters: integer zeros in every recording
        return numbers | dict.fromkeys(DAY_COUNTERS, 0)
    return numbers | {"vahToday": round(values["whToday"] * 1.02, 3), "varhLeadToday": 0.0, "varhLagToday": 0.0}


def _v1_production(_: Model, state: State) -> dict[str, int]:
    if state.meters:
        power_w, lifetime_wh = state.power.production_w, state.meters[0].total.delivered_wh
        today_wh, week_wh = state.today.produced_wh, state.last_seven_days.produced_wh
    else:
        totals = sum_reports(state)
        power_w, lifetime_wh = totals.power_w, totals.energy_wh
        today_wh = sum(report.today_wh for report in state.reports)
        week_wh = state.last_seven_days.produced_wh
    return {
        "wattHoursToday": round(today_wh),
        "wattHoursSevenDays": round(week_wh),
        "wattHoursLifetime": round(lifetime_wh),
        "wattsNow": round(power_w),
    }


def _pdm_energy(_: Model, state: State) -> dict[str, object]:
    totals = sum_reports(state)
    eim = _energy_summary(0, 0, 0, 0)
    consumption = eim
    if state.meters:
        own, grid = state.meters[0].total, state.meters[1].total
        eim = _energy_summary(
            state.today.produced_wh,
            state.last_seven_days.produced_wh,
            own.delivered_wh,
            # The power is unsigned here: -4 W becomes 4294967292.
            round(own.active_w) % 2**32,
        )
        consumption = _energy_summary(
            state.today.consumed_wh,
            state.last_seven_days.consumed_wh,
            state.lifetime.consumed_wh,
            own.active_w + grid.active_w,
        )
    pcu = _energy_summary(
        sum(report.today_wh for report in state.reports),
        state.last_seven_days.produced_wh,
        totals.energy_wh,
        totals.power_w,
    )
    return {
        "production": {"pcu": pcu, "rgm": _energy_summary(0, 0, 0, 0), "eim": eim},
        "consumption": {"eim": consumption},
    }


def _energy_summary(today_wh: float, week_wh: float, lifetime_wh: float, power_w: float) -> dict[str, int]:
    names = ("wattHoursToday", "wattHoursSevenDays", "wattHoursLifetime", "wattsNow")
    return dict(zip(names, map(round, (today_wh, week_wh, lifetime_wh, power_w)), strict=True))


ENDPOINTS = {"/api/v1/production": _v1_production, "/ivp/pdm/energy": _pdm_energy}
"""``/production.json`` is :func:`production`, because its body depends on the query."""
