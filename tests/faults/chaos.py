"""Kills and stops anything at random, and then counts: ``make chaos``, or ``python -m tests.faults.chaos --help``.

Every few seconds the broker, Carbon, the sink or the poller is killed, told to stop, or held for a while; at the end
all is left in peace, and every reading that the poller has taken must be in Whisper, at its time, with its value. The
seed decides what is hurt and when; how the programs take it is theirs.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.house import LATENESS_S, House, pause, standing_house
from tests.programs import Program

REPORT_EVERY_S = 30.0
MAX_HOLD_S = 8.0
MAX_AWAY_S = 4.0
MAX_PEACE_S = 3.0


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    seed: int
    readings: int = 0
    lost: int = 0
    spoilt: int = 0
    sent_again: float = 0.0
    max_recovery_s: float = 0.0
    hurt: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether nothing was lost but polls under way when the poller was hurt, and nothing spoilt."""
        return self.lost == 0 and self.spoilt == 0

    def row(self) -> str:
        """Return the run as a row of the table in docs/delivery.md."""
        hurt = ", ".join(f"{name} {count}" for name, count in sorted(self.hurt.items()))
        return (
            f"| {self.seed} | {self.readings} | {self.lost} | {self.spoilt} | {self.sent_again:.0f} | "
            f"{self.max_recovery_s:.1f} s | {hurt} |"
        )


HEADER = """\
| seed | readings | lost | spoilt | sent again | longest recovery | hurt |
|---|---|---|---|---|---|---|"""


def hurt_one(house: House, chance: random.Random, outcome: Outcome) -> None:
    """Kill, stop or hold one of the programs for a while."""
    name, victim = chance.choice(
        [("broker", house.broker), ("carbon", house.carbon), ("sink", house.sink), ("poller", house.poller)]
    )
    outcome.hurt[name] = outcome.hurt.get(name, 0) + 1
    how = chance.choice(["kill", "kill", "stop", "hold"])
    if how == "hold":
        hold(victim, chance.uniform(0, MAX_HOLD_S))
        return
    if victim is house.poller:
        house.poller_ended_at.append(time.time())
    victim.kill() if how == "kill" else victim.stop()
    pause(chance.uniform(0, MAX_AWAY_S))
    victim.start()


def hold(victim: Program, seconds: float) -> None:
    """Stop a process in its tracks for a while."""
    victim.process.send_signal(signal.SIGSTOP)
    pause(seconds)
    victim.process.send_signal(signal.SIGCONT)


def run(seed: int, minutes: float, state: Path) -> Outcome:
    """Hurt a house for so many minutes and return what it came to."""
    chance, outcome = random.Random(seed), Outcome(seed)
    with standing_house(state) as house:
        ends_at, report_at = time.monotonic() + 60 * minutes, 0.0
        while time.monotonic() < ends_at:
            hurt_one(house, chance, outcome)
            hurt_at, stored_before = time.monotonic(), max(house.stored(), default=0)
            while max(house.stored(), default=0) <= stored_before and time.monotonic() < hurt_at + LATENESS_S:
                pause(0.1)
            outcome.max_recovery_s = max(outcome.max_recovery_s, time.monotonic() - hurt_at)
            pause(chance.uniform(0, MAX_PEACE_S))
            if time.monotonic() >= report_at:
                report_at = time.monotonic() + REPORT_EVERY_S
                left_s = max(0.0, ends_at - time.monotonic())
                print(
                    f"seed {seed}: {len(house.served())} readings, hurt {outcome.hurt}, {left_s:.0f} s left", flush=True
                )
        judge(house, outcome)
    return outcome


def judge(house: House, outcome: Outcome) -> None:
    """Wait until all that was taken has arrived, and count what has not."""
    house.poll_on(2)
    taken = house.taken()
    ends_at = time.monotonic() + LATENESS_S
    while (missing := taken.keys() - house.stored().keys()) and time.monotonic() < ends_at:
        pause(0.5)
    served = house.served()
    outcome.readings, outcome.lost = len(taken), len(missing)
    outcome.spoilt = sum(served.get(at) != value for at, value in house.stored().items())
    outcome.sent_again = house.sent_again()


def main() -> int:
    """Run it as the command line says; exit 0 if nothing was lost or spoilt, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to hurt [10]")
    parser.add_argument("--seed", type=int, default=None, help="what to hurt and when [random]")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}; again with: make chaos SEED={seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        outcome = run(seed, arguments.minutes, Path(folder))
    print(HEADER)
    print(outcome.row())
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
