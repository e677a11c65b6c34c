"""Batteries, system controller and storage settings: ``/ivp/ensemble``, ``/ivp/ss``, ``/ivp/sc`` and the tariff."""

from services.simulator.battery import RESERVE_FRACTION
from services.simulator.gateway import Model, State

PART_NUMBER = "830-01760-r37"
FIRST_FIRMWARE_WITHOUT_ZIGBEE = 8
DRY_CONTACTS = ("NC1", "NC2", "NO1", "NO2")


def _charge_percent(model: Model, state: State) -> int:
    return round(100 * state.power.stored_wh / model.battery.capacity_wh) if model.batteries else 0


def _ensemble_inventory(model: Model, state: State) -> list[dict[str, object]]:
    if not model.batteries:
        return []
    common: dict[str, object] = {
        "installed": model.commissioned_at,
        "device_status": ["envoy.global.ok", "prop.done"],
        "created_date": model.commissioned_at,
        "img_load_date": model.commissioned_at,
        "communicating": True,
        "sleep_enabled": False,
        "comm_level_sub_ghz": 0 if model.firmware >= FIRST_FIRMWARE_WITHOUT_ZIGBEE else 4,
        "comm_level_2_4_ghz": 0 if model.firmware >= FIRST_FIRMWARE_WITHOUT_ZIGBEE else 4,
    }
    if model.firmware < FIRST_FIRMWARE_WITHOUT_ZIGBEE:
        common |= {"operating": True, "zigbee_dongle_fw_version": "100F"}
    charge = _charge_percent(model, state)
    capacity_wh = round(model.battery.capacity_wh / model.batteries)
    temperature_c = 18 + round(abs(state.power.battery_w) / model.batteries / 200)
    encharge = [
        {
            "part_num": PART_NUMBER,
            "serial_num": serial,
            "last_rpt_date": state.time - state.time % 60,
            "admin_state": 6,
            "admin_state_str": "ENCHG_STATE_READY",
            "img_pnum_running": "3.0.7545_rel/31.33",
            "bmu_fw_version": "3.8.63",
            "percentFull": charge,
            "temperature": temperature_c,
            "maxCellTemp": temperature_c + 1,
            "reported_enc_grid_state": "grid-tied",
            "led_status": 12 if state.power.battery_w < 0 else 13,
            "dc_switch_off": False,
            "encharge_rev": 2,
            "encharge_capacity": capacity_wh,
            "phase": f"ph-{'abc'[number % model.phases]}",
            "der_index": 2,
            **common,
        }
        for number, serial in enumerate(model.battery_serials)
    ]
    enpower = {
        "part_num": "865-00378-r27",
        "serial_num": _system_controller(model),
        "last_rpt_date": state.time - state.time % 60,
        "admin_state": 24,
        "admin_state_str": "ENPWR_STATE_OPER_CLOSED",
        "img_pnum_running": "3.0.6297_rel/31.33",
        "temperature": 79,  # in Fahrenheit, unlike the batteries'
        "mains_admin_state": "closed",
        "mains_oper_state": "closed",
        "Enpwr_grid_mode": "multimode-ongrid",
        "Enchg_grid_mode": "multimode-ongrid",
        "Enpwr_relay_state_bm": 15868,
        "Enpwr_curr_state_id": 16,
        **common,
    }
    return [{"type": "ENCHARGE", "devices": encharge}, {"type": "ENPOWER", "devices": [enpower]}]


def _system_controller(model: Model) -> str:
    return f"4823{model.battery_serials[0][4:]}"


def _ensemble_power(model: Model, state: State) -> dict[str, object]:
    each_mw = round(state.power.battery_w * 1000 / model.batteries) if model.batteries else 0
    charge = _charge_percent(model, state)
    return {
        # The colon is part of the name in every firmware.
        "devices:": [
            {"serial_num": serial, "real_power_mw": each_mw, "apparent_power_mva": each_mw, "soc": charge}
            for serial in model.battery_serials
        ]
    }


def _ensemble_secctrl(model: Model, state: State) -> dict[str, object]:
    capacity_wh = round(model.battery.capacity_wh)
    charge = _charge_percent(model, state)
    reserve = round(100 * RESERVE_FRACTION) if model.batteries else 0
    return {
        "shutdown": False,
        "freq_bias_hz": 0.0,
        "voltage_bias_v": 0.0,
        "freq_bias_hz_q8": 0,
        "voltage_bias_v_q5": 0,
        "configured_backup_soc": reserve,
        "adjusted_backup_soc": reserve,
        "agg_soc": charge,
        "Max_energy": capacity_wh,
        "ENC_agg_soc": charge,
        "ENC_agg_soh": 100 if model.batteries else 0,
        "ENC_agg_backup_energy": round(model.battery.reserve_wh),
        "ENC_agg_avail_energy": round(state.power.stored_wh),
        "Enc_commissioned_capacity": capacity_wh,
        "Enc_max_available_capacity": capacity_wh,
        "ACB_agg_soc": 0,
        "ACB_agg_energy": 0,
    }


def _ensemble_status(model: Model, state: State) -> dict[str, object]:
    devices = {
        serial: {
            "device_type": 13,
            "com_interface_str": "CAN",
            "device_id": serial,
            "admin_state": 6,
            "admin_state_str": "ENCHG_STATE_READY",
            "msg_retry_count": 0,
            "part_number": PART_NUMBER,
            "submodule_count": 0,
            "submodules": {},
        }
        for serial in model.battery_serials
    }
    return {
        "inventory": {"serial_nums": devices},
        "counters": {"rest_StatusGet": 1},
        "secctrl": _ensemble_secctrl(model, state),
        "relay": _ensemble_relay(model, state),
    }


def _ensemble_relay(model: Model, _: State) -> dict[str, object]:
    if not model.batteries:
        return {"mains_admin_state": "unknown", "mains_oper_state": "unknown", "der1_state": 0, "Enchg_grid_mode": ""}
    return {
        "mains_admin_state": "closed",
        "mains_oper_state": "closed",
        "der1_state": 1,
        "der2_state": 1,
        "der3_state": 1,
        "Enchg_grid_mode": "multimode-ongrid",
        "Solar_grid_mode": "multimode-ongrid",
    }


def _dry_contacts(model: Model, _: State) -> dict[str, object]:
    status = "closed" if model.batteries else "open"
    return {"dry_contacts": [{"id": name, "status": status} for name in DRY_CONTACTS]}


def _dry_contact_settings(_: Model, __: State) -> dict[str, object]:
    return {
        "dry_contacts": [
            {
                "id": name,
                "type": "NONE",
                "grid_action": "none",
                "micro_grid_action": "none",
                "gen_action": "none",
                "essential_start_time": 32400.0,
                "essential_end_time": 57600.0,
                "priority": 1.0,
                "black_s_start": 5.0,
                "override": "false",
                "manual_override": "true",
                "load_name": "",
                "mode": "manual",
                "soc_low": 30.0,
                "soc_high": 70.0,
                "pv_serial_nb": [],
            }
            for name in DRY_CONTACTS
        ]
    }


def _generator(_: Model, __: State) -> dict[str, object]:
    return {
        "admin_state": "unknown",
        "oper_state": "open",
        "admin_mode": 0,
        "schedule": 0,
        "start_soc": 100,
        "stop_soc": -1,
        "exc_on": 0,
        "present": 0,
        "type": 1,
    }


def _tariff(model: Model, _: State) -> dict[str, object]:
    tariff: dict[str, object] = {
        "currency": {"code": "EUR"},
        "logger": "mylogger",
        "date": str(model.commissioned_at),
        "single_rate": {"rate": 0.31, "sell": 0.08},
        "seasons": [],
        "seasons_sell": [],
    }
    if model.batteries:
        tariff["storage_settings"] = {
            "mode": "self-consumption",
            "operation_mode_sub_type": "",
            "reserved_soc": 100 * RESERVE_FRACTION,
            "very_low_soc": 5,
            "charge_from_grid": False,
            "date": str(model.commissioned_at),
        }
    return {"tariff": tariff, "schedule": {"source": "Tariff", "version": "00.00.02"}}


ENDPOINTS = {
    "/ivp/ensemble/inventory": _ensemble_inventory,
    "/ivp/ensemble/power": _ensemble_power,
    "/ivp/ensemble/secctrl": _ensemble_secctrl,
    "/ivp/ensemble/status": _ensemble_status,
    "/ivp/ensemble/relay": _ensemble_relay,
    "/ivp/ensemble/dry_contacts": _dry_contacts,
    "/ivp/ensemble/generator": _generator,
    "/ivp/ss/dry_contact_settings": _dry_contact_settings,
    "/ivp/ss/gen_config": lambda _, __: {},
    "/ivp/ss/gen_schedule": lambda _, __: {},
    "/ivp/ss/gen_mode": lambda _, __: {"gen_cmd": "off", "last_updated_by": "ITK"},
    "/ivp/ss/pel_settings": lambda _, __: {"PEL": False},
    "/ivp/sc/pvlimit": lambda _, __: {"enable": False, "pv_limit_pct": 100},
    "/admin/lib/tariff": _tariff,
}
