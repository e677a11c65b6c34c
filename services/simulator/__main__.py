"""Run the simulator: `python -m services.simulator --help`."""

import logging
import sys

from shared.lifecycle import ExitCode, stop_on_signals
from shared.logs import configure

try:
    from services.simulator.settings import BadSettings, load_settings
    from services.simulator.simulator import Simulator
except ModuleNotFoundError as missing:
    print(f"the simulator needs {missing.name}: pip install 'enphase-pipeline[simulator]'", file=sys.stderr)
    sys.exit(ExitCode.BAD_SETTINGS)

logger = logging.getLogger("services.simulator")


def main() -> int:
    """Start everything, tell where it listens, and wait for a signal. Return the exit code."""
    try:
        settings = load_settings(sys.argv[1:])
    except BadSettings as error:
        for line in error.lines:
            print(f"bad setting {line}", file=sys.stderr)
        return ExitCode.BAD_SETTINGS
    configure(settings.log_level, settings.log_format)
    stop = stop_on_signals()
    simulator = Simulator(settings)
    try:
        simulator.start()
    except (OSError, ValueError) as error:
        logger.error("cannot start: %s", error)  # noqa: TRY400 - the message says it all
        return ExitCode.FAILED
    try:
        print(f"envoy: {simulator.envoy_url}")
        print(f"enlighten: {simulator.enlighten_url}")
        print(f"control: {simulator.control_url}", flush=True)
        logger.info("gateway %s is up, log in as %s", simulator.serial, settings.email)
        stop.wait()
    finally:
        simulator.stop()
    logger.info("stopped")
    return ExitCode.STOPPED


if __name__ == "__main__":
    sys.exit(main())
