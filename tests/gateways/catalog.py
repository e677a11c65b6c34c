"""One gateway for each generation of firmware, and one for each thing that gateways report wrongly.

The firmware in a name is one on which the behaviour was seen (`docs/gateways.md`, `interpret/quirks.py`).
"""

from dataclasses import replace

from tests.gateways import (
    NOON,
    NOT_FOUND,
    UNAUTHORIZED,
    Battery,
    Change,
    Counts,
    Expected,
    Gateway,
    Inverter,
    Meter,
    Phase,
    Response,
    Responses,
    inverters,
)

DAY_S = 86_400


def change(name: str, *path: str | int, **values: object) -> Change:
    """Return an oddity: fields of the response with a file name, at a path inside its JSON, have other values."""

    def apply(responses: Responses) -> None:
        place = responses[name].body
        for step in path:
            place = place[step]
        place.update(values)

    return apply


def respond_with(response: Response, *names: str) -> Change:
    """Return an oddity: all of these paths have one response."""

    def apply(responses: Responses) -> None:
        responses.update(dict.fromkeys(names, response))

    return apply


def every_production_json(*path: str | int, **values: object) -> tuple[Change, ...]:
    """Return an oddity of all responses that carry the same counts."""
    return tuple(
        change(name, *path, **values) for name in ("production", "production.json", "production.json_details_1")
    )


def add_reading_without_meter(responses: Responses) -> None:
    """List a reading first that belongs to no meter and is all zero."""
    readings = responses["ivp_meters_readings"].body
    zero: dict[str, object] = {name: 0.0 for name in readings[0] if name != "channels"}
    stray = zero | {"eid": 1_023_410_688, "timestamp": NOON, "channels": []}
    readings.insert(0, stray)


def reverse_the_readings(responses: Responses) -> None:
    """List the readings in another order than the meters."""
    responses["ivp_meters_readings"].body.reverse()


def drop_the_last_reading(responses: Responses) -> None:
    """Give no reading of the last meter."""
    responses["ivp_meters_readings"].body.pop()


def add_system_controller(responses: Responses) -> None:
    """List a system controller, which measures in Fahrenheit, among the batteries."""
    controller = {
        "part_num": "861-00000-r01",
        "serial_num": "122099008690",
        "installed": NOON - 90 * DAY_S,
        "last_rpt_date": NOON - 60,
        "admin_state": 24,
        "admin_state_str": "ENPWR_STATE_OPER_CLOSED",
        "img_load_date": NOON - 90 * DAY_S,
        "img_pnum_running": "0.0.1_rel/00.01",
        "communicating": True,
        "temperature": 79,
        "comm_level_sub_ghz": 3,
        "comm_level_2_4_ghz": 3,
        "mains_admin_state": "closed",
        "mains_oper_state": "closed",
        "Enpwr_grid_mode": "multimode-ongrid",
    }
    responses["ivp_ensemble_inventory"].body.append({"type": "ENPOWER", "devices": [controller]})
    contacts = [{"id": name, "status": "open"} for name in ("NC1", "NC2", "NO1", "NO2")]
    responses["ivp_ensemble_dry_contacts"] = Response({"dry_contacts": contacts})
    responses["ivp_ss_dry_contact_settings"] = Response({"dry_contacts": []})


def repeat_storage_in_the_third_channel(responses: Responses) -> None:
    """Show a phase of the storage meter as the third channel of net-consumption, which has two phases."""
    _production, net, storage = responses["ivp_meters_readings"].body
    net["channels"][2] = storage["channels"][1]


def zero_the_first_storage_phase(responses: Responses) -> None:
    """Leave a phase of the storage meter out of the meter's total."""
    storage = responses["ivp_meters_readings"].body[2]
    zero, other = storage["channels"][:2]
    zero.update({name: 0.0 for name in zero if name not in ("eid", "timestamp", "freq")})
    storage.update({name: value for name, value in other.items() if name not in ("eid", "timestamp")})


SPLIT = {"voltage_v": 120.0}
SINGLE_ROOF = (Meter("production", (Phase(2400.125, 5_000_000.5, 1_200.25),)),)
SINGLE_GRID = (Meter("net-consumption", (Phase(-1600.5, 3_000_000.25, 2_500_000.75),)),)
NIGHT_GRID = (Meter("net-consumption", (Phase(520.5, 3_000_000.25, 2_500_000.75),)),)
SPLIT_ROOF = Meter(
    "production", (Phase(1200.25, 4_000_000.5, 10.5, **SPLIT), Phase(1300.5, 4_000_100.25, 12.25, **SPLIT))
)
SPLIT_GRID = Meter(
    "net-consumption",
    (Phase(-300.5, 3_000_000.5, 500_000.5, **SPLIT), Phase(-200.25, 3_100_000.25, 400_000.25, **SPLIT)),
)
SPLIT_STORAGE = Meter(
    "storage", (Phase(-700.25, 900_000.5, 1_000_000.5, **SPLIT), Phase(-710.5, 900_100.25, 1_000_100.25, **SPLIT))
)

GATEWAYS = (
    Gateway(
        "3.9.36",
        "121099003001",
        "3.9.36",
        inverters=inverters("121099003100", 8, power_w=150, lifetime_wh=900_000, dev_type=None),
        production_counts=Counts(3_100, 41_000, 7_200_000),
        expected=Expected(
            "gateway",
            (1200, 7_200_000),
            inverters=8,
            energy={"production_today_wh": 3_100, "production_last_7_days_wh": 41_000},
        ),
    ),
    Gateway(
        "4.2.33_fewer_readings_than_meters",
        "121099004001",
        "4.2.33",
        meters=(*SINGLE_ROOF, *SINGLE_GRID),
        inverters=inverters("121099004100", 6, power_w=400, lifetime_wh=800_000, dev_type=None),
        production_counts=Counts(8_000, 60_000, 5_000_000.5),
        consumption_counts=Counts(9_000, 70_000, 5_500_000.0),
        oddities=(drop_the_last_reading,),
        expected=Expected(
            "meter",
            (2400.125, 5_000_000.5),
            consumption=(799.625, 5_500_000.0),
            grid=(-1600.5, None, None),
            meters={"production": 0},
            inverters=6,
            energy={
                "production_today_wh": 8_000,
                "production_last_7_days_wh": 60_000,
                "consumption_today_wh": 9_000,
                "consumption_last_7_days_wh": 70_000,
            },
        ),
    ),
    Gateway(
        "4.10.35_split_phase",
        "121099004002",
        "4.10.35",
        is_metered_hardware=True,
        meters=(SPLIT_ROOF, SPLIT_GRID),
        inverters=inverters("121099004200", 10, power_w=250, lifetime_wh=800_000),
        production_counts=Counts(8_000, 60_000, 8_000_100.75),
        consumption_counts=Counts(9_000, 70_000, 13_200_000.0),
        # On this firmware the lifetime of net-consumption is what was imported alone.
        oddities=tuple(
            change(name, "consumption", 1, whLifetime=6_100_000.75)
            for name in ("production.json", "production.json_details_1")
        ),
        expected=Expected(
            "meter",
            (2500.75, 8_000_100.75),
            consumption=(2000.0, 13_200_000.0),
            grid=(-500.75, 6_100_000.75, 900_000.75),
            meters={"production": 2, "net-consumption": 2},
            inverters=10,
            energy={
                "production_today_wh": 8_000,
                "production_last_7_days_wh": 60_000,
                "consumption_today_wh": 9_000,
                "consumption_last_7_days_wh": 70_000,
            },
        ),
    ),
    Gateway(
        "5.0.62_unmetered",
        "121099005001",
        "5.0.62",
        is_metered_hardware=False,
        inverters=inverters("121099005100", 20, power_w=180, lifetime_wh=1_500_000),
        production_counts=Counts(12_000, 130_000, 30_000_000),
        expected=Expected(
            "gateway",
            (3600, 30_000_000),
            inverters=20,
            energy={"production_today_wh": 12_000, "production_last_7_days_wh": 130_000},
        ),
    ),
    Gateway(
        "7.3.130_production_meter_alone",
        "122099007001",
        "7.3.130",
        is_metered_hardware=True,
        meters=(SPLIT_ROOF,),
        inverters=inverters("122099007100", 9, power_w=280, lifetime_wh=890_000),
        # The counts of the day and of seven days are the lifetime's.
        production_counts=Counts(8_000_100.75, 8_000_100.75, 8_000_100.75),
        oddities=(respond_with(UNAUTHORIZED, "ivp_ensemble_power", "ivp_ensemble_secctrl"),),
        expected=Expected("meter", (2500.75, 8_000_100.75), meters={"production": 2}, inverters=9),
    ),
    Gateway(
        "7.3.466_disabled_meters",
        "122099007002",
        "7.3.466",
        is_metered_hardware=True,
        meters=tuple(replace(meter, state="disabled") for meter in (*SINGLE_ROOF, *SINGLE_GRID)),
        inverters=inverters("122099007200", 7, power_w=100, lifetime_wh=600_000),
        # Its own counts are zero, and the inverters' sum has wrapped.
        production_counts=None,
        consumption_counts=Counts(19_000, 5, 5_000_000),
        expected=Expected("inverters", (700, None), inverters=7),
    ),
    Gateway(
        "7.6.175_unmetered",
        "122099007003",
        "7.6.175",
        is_metered_hardware=True,
        inverters=inverters("122099007300", 24, power_w=200, lifetime_wh=300_000),
        production_counts=Counts(20_000, 210_000, 7_200_000),
        expected=Expected(
            "gateway",
            (4800, 7_200_000),
            inverters=24,
            energy={"production_today_wh": 20_000, "production_last_7_days_wh": 210_000},
        ),
    ),
    Gateway(
        "7.6.175_three_phases",
        "122099007004",
        "7.6.175",
        is_metered_hardware=True,
        meters=(
            Meter(
                "production",
                (
                    Phase(800.5, 1_000_000.5, 5.5),
                    Phase(810.25, 1_000_100.25, 6.25),
                    Phase(820.125, 1_000_200.125, 7.125),
                ),
            ),
            Meter(
                "net-consumption",
                (
                    Phase(100.25, 900_000.25, 300_000.25),
                    Phase(-400.5, 910_000.5, 310_000.5),
                    Phase(-500.75, 920_000.75, 320_000.75),
                ),
            ),
        ),
        inverters=inverters("122099007400", 12, power_w=205, lifetime_wh=250_000),
        production_counts=Counts(9_000, 80_000, 3_000_300.875),
        # Seven days of the house are less than its today.
        consumption_counts=Counts(12_000, 6, 4_800_300.75),
        expected=Expected(
            "meter",
            (2430.875, 3_000_300.875),
            consumption=(1629.875, 4_800_300.75),
            grid=(-801.0, 2_730_001.5, 930_001.5),
            meters={"production": 3, "net-consumption": 3},
            inverters=12,
            energy={"production_today_wh": 9_000, "production_last_7_days_wh": 80_000, "consumption_today_wh": 12_000},
        ),
    ),
    Gateway(
        "7.6.185_battery_at_night",
        "122099007005",
        "7.6.185",
        is_metered_hardware=True,
        meters=(
            # A roof at night takes a little, and reports nothing as minus zero.
            Meter("production", (Phase(-0.25, 2_400_000.5, 900.5, reactive_var=-0.0),)),
            Meter("net-consumption", (Phase(520.5, 2_400_000.25, 1_100_000.25),)),
        ),
        inverters=tuple(
            replace(inverter, reported_at=NOON - 9 * 3600)
            for inverter in inverters("122099007500", 5, power_w=0, lifetime_wh=480_000)
        ),
        batteries=tuple(
            Battery(f"12209900760{n}", 40 + 10 * n, 3_500, power_w) for n, power_w in enumerate((120.5, 121.5, 122.5))
        ),
        production_counts=Counts(0, 65_000, 2_400_000.5),
        consumption_counts=Counts(6_000, 3, 3_700_000),
        expected=Expected(
            "meter",
            (-0.25, 2_400_000.5),
            consumption=(520.25, 3_700_000),
            grid=(520.5, 2_400_000.25, 1_100_000.25),
            meters={"production": 0, "net-consumption": 0},
            inverters=5,
            batteries=3,
            battery={"power_w": 364.5, "charge_percent": 50, "available_energy_wh": 5_250, "capacity_wh": 10_500},
            energy={"production_today_wh": 0, "production_last_7_days_wh": 65_000, "consumption_today_wh": 6_000},
        ),
    ),
    Gateway(
        "8.2.4264_count_stalls_without_transformers",
        "122099008001",
        "8.2.4264",
        is_metered_hardware=True,
        inverters=inverters("122099008100", 30, power_w=200, lifetime_wh=1_000_000),
        production_counts=Counts(11, 1_600, 1_600),
        expected=Expected("inverters", (6_000, 30_000_000), inverters=30),
    ),
    Gateway(
        "8.2.4264_count_far_below_the_inverters",
        "122099008008",
        "8.2.4264",
        is_metered_hardware=False,
        inverters=inverters("122099008150", 10, power_w=200, lifetime_wh=1_000_000),
        production_counts=Counts(11, 1_600, 1_600),
        expected=Expected("inverters", (2_000, 10_000_000), inverters=10),
    ),
    Gateway(
        "8.2.4286_split_phase_storage_meter",
        "122099008002",
        "8.2.4286",
        is_metered_hardware=True,
        meters=(SPLIT_ROOF, SPLIT_GRID, SPLIT_STORAGE),
        inverters=inverters("122099008200", 15, power_w=170, lifetime_wh=540_000),
        batteries=tuple(Battery(f"12209900830{n}", 60, 5_000, -470.25) for n in range(3)),
        # Seven days are the lifetime before today; of the house neither day nor week are counted.
        production_counts=Counts(8_000.5, 7_992_100.25, 8_000_100.75),
        consumption_counts=Counts(0, 0, 13_000_000),
        oddities=(repeat_storage_in_the_third_channel,),
        expected=Expected(
            "meter",
            (2500.75, 8_000_100.75),
            consumption=(2000.0, 13_000_000),
            grid=(-500.75, 6_100_000.75, 900_000.75),
            meters={"production": 2, "net-consumption": 2, "storage": 2},
            inverters=15,
            batteries=3,
            battery={
                "power_w": -1410.75,
                "charge_percent": 60,
                "available_energy_wh": 9_000,
                "capacity_wh": 15_000,
                "charge_lifetime_wh": 2_000_100.75,
                "discharge_lifetime_wh": 1_800_100.75,
            },
            energy={"production_today_wh": 8_000.5},
        ),
    ),
    Gateway(
        "8.2.4382_ac_batteries",
        "122099008003",
        "8.2.4382",
        is_metered_hardware=True,
        meters=(*SINGLE_ROOF, *SINGLE_GRID),
        inverters=(
            *inverters("122099008400", 14, power_w=170, lifetime_wh=350_000),
            # AC Batteries report among the inverters.
            *inverters("122099008490", 2, power_w=90, lifetime_wh=0, dev_type=11),
        ),
        batteries=(Battery("122099008500", 54, 3_500, 110.0, temperature_c=11),),
        production_counts=Counts(8_000, 60_000, 5_000_000.5),
        consumption_counts=Counts(9_000, 70_000, 5_500_000),
        oddities=(
            # Only the plain list of inverters can be read.
            respond_with(UNAUTHORIZED, "ivp_pdm_device_data"),
            # Their power is hours old, the inventory's charge is not that of power and totals.
            *every_production_json(
                "storage",
                0,
                activeCount=2,
                readingTime=NOON - 41 * 3600,
                wNow=260,
                whNow=900,
                percentFull=25,
                state="discharging",
            ),
            change("ivp_ensemble_inventory", 0, "devices", 0, percentFull=10),
            change("ivp_ensemble_secctrl", agg_soc=39, Max_energy=7_100, ACB_agg_soc=25, ACB_agg_energy=900),
        ),
        expected=Expected(
            "meter",
            (2400.125, 5_000_000.5),
            consumption=(799.625, 5_500_000),
            grid=(-1600.5, 3_000_000.25, 2_500_000.75),
            meters={"production": 0, "net-consumption": 0},
            inverters=14,
            batteries=1,
            battery={"power_w": 110.0, "charge_percent": 39, "available_energy_wh": 2_790, "capacity_wh": 7_100},
            energy={
                "production_today_wh": 8_000,
                "production_last_7_days_wh": 60_000,
                "consumption_today_wh": 9_000,
                "consumption_last_7_days_wh": 70_000,
            },
        ),
    ),
    Gateway(
        "8.3.1598_disabled_car_charger_meter",
        "122099008004",
        "8.3.1598",
        is_metered_hardware=True,
        meters=(
            SPLIT_ROOF,
            SPLIT_GRID,
            replace(SPLIT_STORAGE, kind="backfeed", frequency_hz=0.0),
            Meter("evse", (Phase(-14.5, 0.0, -20.5, **SPLIT), Phase(-0.5, 0.0, 0.0, **SPLIT)), state="disabled"),
        ),
        inverters=inverters("122099008600", 11, power_w=230, lifetime_wh=730_000),
        # Its own count stays at zero, unlike the meter's.
        production_counts=Counts(8_000, 60_000, 8_000_100.75),
        consumption_counts=Counts(9_000, 70_000, 13_200_000),
        oddities=(
            change("api_v1_production", wattHoursToday=0, wattHoursSevenDays=0, wattHoursLifetime=0),
            # A system controller, in Fahrenheit, is no battery.
            add_system_controller,
        ),
        expected=Expected(
            "meter",
            (2500.75, 8_000_100.75),
            consumption=(2000.0, 13_200_000),
            grid=(-500.75, 6_100_000.75, 900_000.75),
            meters={"production": 2, "net-consumption": 2, "backfeed": 2},
            inverters=11,
            energy={
                "production_today_wh": 8_000,
                "production_last_7_days_wh": 60_000,
                "consumption_today_wh": 9_000,
                "consumption_last_7_days_wh": 70_000,
            },
        ),
    ),
    Gateway(
        "8.3.5169_generator",
        "122099008005",
        "8.3.5169",
        is_metered_hardware=True,
        meters=(SPLIT_ROOF, SPLIT_GRID),
        inverters=inverters("122099008700", 20, power_w=125, lifetime_wh=410_000),
        production_counts=Counts(8_000, 60_000, 8_000_100.75),
        consumption_counts=Counts(9_000, 70_000, 13_200_000),
        oddities=(
            add_reading_without_meter,
            lambda responses: responses["ivp_ensemble_inventory"].body.append({"type": "ENCHARGE", "devices": []}),
        ),
        expected=Expected(
            "meter",
            (2500.75, 8_000_100.75),
            consumption=(2000.0, 13_200_000),
            grid=(-500.75, 6_100_000.75, 900_000.75),
            meters={"production": 2, "net-consumption": 2},
            inverters=20,
            energy={
                "production_today_wh": 8_000,
                "production_last_7_days_wh": 60_000,
                "consumption_today_wh": 9_000,
                "consumption_last_7_days_wh": 70_000,
            },
        ),
    ),
    Gateway(
        "8.3.5169_unsigned_negative_power",
        "122099008006",
        "8.3.5169",
        is_metered_hardware=True,
        meters=(Meter("production", (Phase(-4.0, 5_000_000.5, 1_200.25),)), *NIGHT_GRID),
        inverters=inverters("122099008800", 4, power_w=0, lifetime_wh=1_250_000),
        production_counts=Counts(8_000, 60_000, 5_000_000.5),
        consumption_counts=Counts(9_000, 70_000, 5_500_000),
        oddities=(change("ivp_meters_readings", 0, activePower=2**32 - 4), reverse_the_readings),
        expected=Expected(
            "meter",
            (-4.0, 5_000_000.5),
            consumption=(516.5, 5_500_000),
            grid=(520.5, 3_000_000.25, 2_500_000.75),
            meters={"production": 0, "net-consumption": 0},
            inverters=4,
            energy={
                "production_today_wh": 8_000,
                "production_last_7_days_wh": 60_000,
                "consumption_today_wh": 9_000,
                "consumption_last_7_days_wh": 70_000,
            },
        ),
    ),
    Gateway(
        "8.3.5422_unmetered_counts_nothing",
        "122099008007",
        "8.3.5422",
        is_metered_hardware=False,
        inverters=inverters("122099008900", 16, power_w=240, lifetime_wh=2_000_000),
        production_counts=None,
        expected=Expected("inverters", (3_840, 32_000_000), inverters=16),
    ),
    Gateway(
        "8.3.5433_net_in_place_of_total",
        "122099009001",
        "8.3.5433",
        is_metered_hardware=True,
        meters=(*SINGLE_ROOF, *SINGLE_GRID),
        inverters=(
            *inverters("122099009100", 8, power_w=290, lifetime_wh=620_000),
            Inverter("122099009190", 0, 0, reported_at=0, is_active=False),
        ),
        production_counts=Counts(8_000, 60_000, 5_000_000.5),
        consumption_counts=Counts(499_999.5, 499_999.5, 499_999.5),
        oddities=(
            *every_production_json("consumption", 0, wNow=-1600.5, whLifetime=499_999.5),
            # Its own count is another than the meter's.
            change("api_v1_production", wattHoursToday=4_000, wattHoursSevenDays=30_000, wattHoursLifetime=3_400_000),
        ),
        expected=Expected(
            "meter",
            (2400.125, 5_000_000.5),
            consumption=(799.625, 5_500_000.0),
            grid=(-1600.5, 3_000_000.25, 2_500_000.75),
            meters={"production": 0, "net-consumption": 0},
            inverters=8,
            energy={"production_today_wh": 8_000, "production_last_7_days_wh": 60_000},
        ),
    ),
    Gateway(
        "8.3.5528_active_count_zero",
        "122099009002",
        "8.3.5528",
        is_metered_hardware=True,
        meters=(*SINGLE_ROOF, *SINGLE_GRID),
        inverters=inverters("122099009200", 8, power_w=290, lifetime_wh=620_000),
        production_counts=Counts(8_000, 60_000, 5_000_000.5),
        consumption_counts=Counts(9_000, 70_000, 5_500_000),
        oddities=every_production_json("production", 1, activeCount=0),
        expected=Expected(
            "meter",
            (2400.125, 5_000_000.5),
            consumption=(799.625, 5_500_000),
            grid=(-1600.5, 3_000_000.25, 2_500_000.75),
            meters={"production": 0, "net-consumption": 0},
            inverters=8,
            energy={"consumption_today_wh": 9_000, "consumption_last_7_days_wh": 70_000},
        ),
    ),
    Gateway(
        "8.3.5286_no_production_json",
        "122099009006",
        "8.3.5286",
        is_metered_hardware=True,
        meters=(*SINGLE_ROOF, *SINGLE_GRID),
        inverters=inverters("122099009600", 8, power_w=290, lifetime_wh=620_000),
        production_counts=Counts(8_000, 60_000, 5_000_000.5),
        oddities=(respond_with(UNAUTHORIZED, "production.json", "production.json_details_1", "production"),),
        expected=Expected(
            "meter",
            (2400.125, 5_000_000.5),
            consumption=(799.625, None),
            grid=(-1600.5, 3_000_000.25, 2_500_000.75),
            meters={"production": 0, "net-consumption": 0},
            inverters=8,
            energy={"production_today_wh": 8_000, "production_last_7_days_wh": 60_000},
        ),
    ),
    Gateway(
        "8.3.6000_storage_phase_lost",
        "122099009003",
        "8.3.6000",
        is_metered_hardware=True,
        meters=(SPLIT_ROOF, SPLIT_GRID, SPLIT_STORAGE),
        inverters=inverters("122099009300", 15, power_w=170, lifetime_wh=540_000),
        batteries=tuple(Battery(f"12209900940{n}", 60, 5_000, -470.25) for n in range(3)),
        production_counts=Counts(8_000, 60_000, 8_000_100.75),
        consumption_counts=Counts(9_000, 70_000, 13_000_000),
        oddities=(zero_the_first_storage_phase,),
        expected=Expected(
            "meter",
            (2500.75, 8_000_100.75),
            consumption=(2000.0, 13_000_000),
            grid=(-500.75, 6_100_000.75, 900_000.75),
            meters={"production": 2, "net-consumption": 2},
            lone_phases=("storage/phase/2",),
            inverters=15,
            batteries=3,
            energy={
                "production_today_wh": 8_000,
                "production_last_7_days_wh": 60_000,
                "consumption_today_wh": 9_000,
                "consumption_last_7_days_wh": 70_000,
            },
        ),
    ),
    Gateway(
        "8.3.5169_sixty_inverters",
        "122099009004",
        "8.3.5169",
        is_metered_hardware=False,
        # device_data lists fifty devices at most.
        inverters=inverters("122099009500", 60, power_w=250, lifetime_wh=500_000),
        production_counts=Counts(90_000, 700_000, 30_000_000),
        expected=Expected(
            "gateway",
            (15_000, 30_000_000),
            inverters=60,
            energy={"production_today_wh": 90_000, "production_last_7_days_wh": 700_000},
        ),
    ),
    Gateway(
        "8.2.4345_no_inverter_at_night",
        "122099009005",
        "8.2.4345",
        is_metered_hardware=True,
        meters=(Meter("production", (Phase(-0.0, 5_000_000.5, 1_200.25, reactive_var=-0.0),)), *NIGHT_GRID),
        production_counts=Counts(8_000, 60_000, 5_000_000.5),
        consumption_counts=Counts(9_000, 70_000, 5_500_000),
        oddities=(
            respond_with(NOT_FOUND, "ivp_pdm_device_data", "production.json_details_1"),
            *(change(name, "production", 0, readingTime=0) for name in ("production", "production.json")),
        ),
        expected=Expected(
            "meter",
            (0.0, 5_000_000.5),
            consumption=(520.5, 5_500_000),
            grid=(520.5, 3_000_000.25, 2_500_000.75),
            meters={"production": 0, "net-consumption": 0},
            energy={
                "production_today_wh": 8_000,
                "production_last_7_days_wh": 60_000,
                "consumption_today_wh": 9_000,
                "consumption_last_7_days_wh": 70_000,
            },
        ),
    ),
)

BY_NAME = {gateway.name: gateway for gateway in GATEWAYS}
