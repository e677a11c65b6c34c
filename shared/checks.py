"""``--check``: the outside connections of a service, tested one by one; each result is one line."""

from collections.abc import Iterable
from typing import NamedTuple

from shared.escape import escape
from shared.lifecycle import ExitCode

CHECK_TIMEOUT_S = 5.0


class CheckResult(NamedTuple):
    """The result of one check; the text of a failed one ends with what to do."""

    ok: bool
    what: str
    text: str


def report(results: Iterable[CheckResult]) -> ExitCode:
    """Print each result as it comes, and return the exit code: FAILED if any failed."""
    code = ExitCode.STOPPED
    for result in results:
        print(f"{'ok    ' if result.ok else 'FAILED'}  {escape(f'{result.what}: {result.text}')}", flush=True)  # noqa: T201
        if not result.ok:
            code = ExitCode.FAILED
    return code
