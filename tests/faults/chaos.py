"""Injects random faults and counts what is lost: ``make chaos``, or ``python -m tests.faults.chaos --help``.

Every few seconds the broker, Carbon, the sink or the poller is killed, stopped, or paused for a while. At the end no
fault is left, and every reading that the poller has taken must be in Whisper at its time with its value. The seed
decides which faults come when; how the programs react is not repeatable.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.pipeline import ARRIVAL_DEADLINE_S, Pipeline, random_delay, running_pipeline
from tests.programs import Program, wait_until

REPORT_INTERVAL_S = 30.0
MAX_PAUSE_S = 8.0
MAX_DOWN_S = 4.0
MAX_UNDISTURBED_S = 3.0


@dataclass(slots=True)
class Outcome:
    """The counts of a run."""

    seed: int
    readings: int = 0
    lost: int = 0
    wrong: int = 0
    resent: float = 0.0
    max_recovery_s: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong, and nothing lost but polls in progress when the poller was ended."""
        return self.lost == 0 and self.wrong == 0

    def row(self) -> str:
        """Return the run as a row of the table in docs/delivery.md."""
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"| {self.seed} | {self.readings} | {self.lost} | {self.wrong} | {self.resent:.0f} | "
            f"{self.max_recovery_s:.1f} s | {faults} |"
        )


HEADER = """\
| seed | readings | lost | wrong | resent | longest recovery | faults |
|---|---|---|---|---|---|---|"""


def inject_fault(pipeline: Pipeline, chance: random.Random, outcome: Outcome) -> None:
    """Kill, stop or pause one of the programs for a while."""
    name, program = chance.choice(
        [("broker", pipeline.broker), ("carbon", pipeline.carbon), ("sink", pipeline.sink), ("poller", pipeline.poller)]
    )
    outcome.faults[name] = outcome.faults.get(name, 0) + 1
    fault = chance.choice(["kill", "kill", "stop", "pause"])
    if fault == "pause":
        pause(program, chance)
        return
    if program is pipeline.poller:
        pipeline.poller_ended_at.append(time.time())
    program.kill() if fault == "kill" else program.stop()
    random_delay(chance, MAX_DOWN_S)
    program.start()


def pause(program: Program, chance: random.Random) -> None:
    """Suspend a process for a while."""
    program.process.send_signal(signal.SIGSTOP)
    random_delay(chance, MAX_PAUSE_S)
    program.process.send_signal(signal.SIGCONT)


def run(seed: int, minutes: float, state: Path) -> Outcome:
    """Inject faults for so many minutes and return the counts."""
    chance, outcome = random.Random(seed), Outcome(seed)
    with running_pipeline(state) as pipeline:
        ends_at, report_at = time.monotonic() + 60 * minutes, 0.0
        while time.monotonic() < ends_at:
            inject_fault(pipeline, chance, outcome)
            injected_at, newest = time.monotonic(), max(pipeline.stored(), default=0)
            wait_until(lambda: max(pipeline.stored()) > newest, "a fresh reading", ARRIVAL_DEADLINE_S)  # noqa: B023
            outcome.max_recovery_s = max(outcome.max_recovery_s, time.monotonic() - injected_at)
            random_delay(chance, MAX_UNDISTURBED_S)
            if time.monotonic() >= report_at:
                report_at = time.monotonic() + REPORT_INTERVAL_S
                left_s = max(0.0, ends_at - time.monotonic())
                readings = len(pipeline.served())
                print(f"seed {seed}: {readings} readings, faults {outcome.faults}, {left_s:.0f} s left", flush=True)
        count(pipeline, outcome)
    return outcome


def count(pipeline: Pipeline, outcome: Outcome) -> None:
    """Wait until all that was taken has arrived, and count what has not."""
    pipeline.wait_for_polls(2)
    taken = pipeline.taken()
    ends_at = time.monotonic() + ARRIVAL_DEADLINE_S
    while (missing := taken.keys() - pipeline.stored().keys()) and time.monotonic() < ends_at:
        time.sleep(0.5)
    served = pipeline.served()
    outcome.readings, outcome.lost = len(taken), len(missing)
    outcome.wrong = sum(served.get(at) != value for at, value in pipeline.stored().items())
    outcome.resent = pipeline.resent()


def main() -> int:
    """Run with the options of the command line; exit 0 if nothing is lost or wrong, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to inject faults [10]")
    parser.add_argument("--seed", type=int, default=None, help="which faults come when [random]")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}; repeat with: make chaos SEED={seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        outcome = run(seed, arguments.minutes, Path(folder))
    print(HEADER)
    print(outcome.row())
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
