from collections.abc import Iterator

import pytest

from shared.checks import CheckResult, report
from shared.lifecycle import ExitCode

GOOD = CheckResult(ok=True, what="broker localhost:1883", text="accepts publications")
BAD = CheckResult(ok=False, what="clock", text="an hour off; set it")


def test_each_result_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The line begins with the verdict."""
    report([GOOD, BAD])

    assert capsys.readouterr().out.splitlines() == [
        "ok      broker localhost:1883: accepts publications",
        "FAILED  clock: an hour off; set it",
    ]


@pytest.mark.parametrize(
    ("results", "code"),
    [([], ExitCode.STOPPED), ([GOOD, GOOD], ExitCode.STOPPED), ([BAD, GOOD], ExitCode.FAILED)],
    ids=["none", "all good", "one bad"],
)
def test_the_exit_code_is_0_only_if_every_check_succeeds(results: list[CheckResult], code: ExitCode) -> None:
    """A later success does not hide a failure."""
    assert report(results) == code


def test_a_result_is_printed_before_the_next_check_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """A person sees which check is slow."""

    def checks() -> Iterator[CheckResult]:
        yield GOOD
        assert "accepts publications" in capsys.readouterr().out
        yield GOOD

    report(checks())
