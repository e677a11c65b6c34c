"""When a gateway is asked for what.

The meters are asked in the middle of their slots of the clock, so that a reading stays in its slot, late or early as it
may be by a little. Everything else is asked in the gaps, one question at a time, and only where the answer is expected
before the next slot; so the answers that take a gateway seconds do not delay its meters. Where one takes longer than
a whole slot it is asked nevertheless, and the slots that it takes are missed: two questions at a time would only make
such a gateway slower. What takes long is asked less often, the meters as well as the rest.
"""

import time
from collections.abc import Callable

from services.poller.reader import Cycle
from services.poller.settings import PollSettings

MARGIN_S = 0.1
"""An answer is expected to end this long before the next slot."""

MAX_LATE_S = 0.5
MAX_LATE_SHARE = 0.25
"""A slot is missed by so much of the interval, or half a second if that is more: the next would be too near."""

MAX_BUSY_SHARE = 0.5
"""The share of the time that the meters of a slow gateway are asked for."""

SPREAD = 0.4
"""The share of the slot over which several gateways are spread."""

SLOW_SHARE = 0.2
"""The share of the time that everything else takes it."""


class Schedule:
    """The slots and cycles of one gateway, on the monotonic clock."""

    def __init__(self, settings: PollSettings, clock: Callable[[], float], phase: float = 0.5) -> None:
        """Begin with everything due at once.

        Args:
            settings: how often.
            clock: ours, epoch seconds.
            phase: where in its slot the gateway is asked, from 0 to 1.
        """
        self._clock = clock
        self._phase = phase
        self._interval_s = settings.interval_s
        self._cycles_s = {Cycle.SLOW: settings.slow_interval_s, Cycle.INVERTERS: settings.inverters_interval_s}
        self._due_at = dict.fromkeys(self._cycles_s, 0.0)
        self.slot_at = 0.0
        """When the meters are due next."""
        self.missed = 0
        """How many slots were not read, for whatever reason."""

    @property
    def next_at(self) -> float:
        """When there is something to do next."""
        return min(self.slot_at, *self._due_at.values())

    def take_due(self) -> list[Cycle]:
        """Return the cycles that are due, and set their next times."""
        now = time.monotonic()
        due = [cycle for cycle, due_at in self._due_at.items() if due_at <= now]
        for cycle in due:
            self._due_at[cycle] = now + self._cycles_s[cycle] - MARGIN_S
        return due

    def took(self, cycle: Cycle, duration_s: float) -> None:
        """Put a cycle off that takes the gateway long."""
        self._due_at[cycle] = max(self._due_at[cycle], time.monotonic() + duration_s / SLOW_SHARE)

    def next_slot(self, duration_s: float = 0.0) -> None:
        """Set the time of the next slot; after an answer that took long some are left out.

        Args:
            duration_s: how long the gateway took for this one.
        """
        wait_s = seconds_to_slot(self._clock(), self._interval_s, self._phase)
        left_out = int(duration_s / MAX_BUSY_SHARE / self._interval_s)
        self.missed += left_out
        self.slot_at = time.monotonic() + wait_s + left_out * self._interval_s

    def is_missed(self) -> bool:
        """Return whether it is too late for the slot."""
        late_s = time.monotonic() - self.slot_at
        return self.slot_at > 0 and late_s > max(MAX_LATE_SHARE * self._interval_s, MAX_LATE_S)

    def miss(self) -> None:
        """Let a slot go, and all that have passed with it."""
        self.missed += 1 + int((time.monotonic() - self.slot_at) / self._interval_s)
        self.next_slot()

    def fits(self, expected_s: float) -> bool:
        """Return whether a question may be asked now: its answer comes before the next slot, or never would."""
        if expected_s + MARGIN_S > self._interval_s:
            return True
        return time.monotonic() + expected_s + MARGIN_S <= self.slot_at


def seconds_to_slot(now: float, interval_s: float, phase: float = 0.5) -> float:
    """Return the seconds from now to that place in the next slot; slots begin at multiples of the interval."""
    return interval_s - (now - interval_s * phase) % interval_s


def phase_of(number: int, gateways: int) -> float:
    """Return where in the slot a gateway of several is asked: one in the middle, many around it, one after another."""
    return 0.5 + SPREAD * ((number + 0.5) / gateways - 0.5)
