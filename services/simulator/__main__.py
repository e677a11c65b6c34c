"""Start the simulator: ``python -m services.simulator``."""

import argparse
import logging
import sys
from functools import partial
from typing import Any, get_origin

from services.simulator.settings import CommandSettings
from shared import lifecycle, logs
from shared.lifecycle import ExitCode
from shared.settings import describe, load, settings_by_name

DESCRIPTION = "Simulate an Envoy and the Enlighten log-in: a house with solar panels, recorded gateways, and faults."

logger = logging.getLogger("services.simulator")


def main() -> int:
    """Run the simulator until a signal comes, after printing its URLs; return the exit code."""
    settings = load(CommandSettings, parse_options())
    logs.configure(settings.log.level, settings.log.format)
    lifecycle.restrict_new_files()
    try:
        from services.simulator.simulator import Simulator
    except ModuleNotFoundError as error:
        print(f"the simulator needs {error.name}: pip install 'enphase-pipeline[simulator]'", file=sys.stderr)
        return ExitCode.BAD_SETTINGS
    stop = lifecycle.stop_on_signals()
    simulator = Simulator(settings.simulator)
    try:
        simulator.start()
    except (OSError, ValueError) as error:
        print(f"the simulator cannot start: {error}", file=sys.stderr)
        return ExitCode.FAILED
    try:
        print(f"envoy: {simulator.envoy_url}")
        print(f"enlighten: {simulator.enlighten_url}")
        print(f"control: {simulator.control_url}", flush=True)
        logger.info("gateway %s is ready; the Enlighten account is %s", simulator.serial, settings.simulator.email)
        stop.wait()
    finally:
        simulator.stop()
    logger.info("stopped")
    return ExitCode.STOPPED


def parse_options() -> dict[str, dict[str, Any]]:
    """Return the command line's options by section; there is one for each setting.

    ``--speed`` is ``SIMULATOR_SPEED``, and ``--log-level`` is ``LOG_LEVEL``.
    """
    parser = argparse.ArgumentParser(
        prog="python -m services.simulator",
        usage="%(prog)s [OPTION]...",
        description=DESCRIPTION,
        formatter_class=partial(argparse.HelpFormatter, max_help_position=36),
        allow_abbrev=False,
    )
    group = parser.add_argument_group("settings (options, or the environment variables in parentheses)")
    for name, field in settings_by_name(CommandSettings):
        if field.annotation is bool:
            kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        else:
            kind = {"action": "append" if get_origin(field.annotation) is tuple else "store", "metavar": "VALUE"}
        option = name.removeprefix("SIMULATOR_").lower().replace("_", "-")
        help_text = f"{describe(field)} ({name})"
        group.add_argument(f"--{option}", dest=name, default=argparse.SUPPRESS, help=help_text, **kind)
    options: dict[str, dict[str, Any]] = {"simulator": {}}
    for name, value in vars(parser.parse_args()).items():
        section, field_name = name.lower().split("_", 1)
        options.setdefault(section, {})[field_name] = value
    return options


if __name__ == "__main__":
    sys.exit(main())
