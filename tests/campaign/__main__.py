"""Run the campaign: checks that attack a service, and what they measured.

python -m tests.campaign [--only CHECK …] [--quick] [--write] [--seconds N] [--minutes FILE]

`--quick` takes the numbers of the suite. `--write` keeps the results and writes `docs/reliability.md` anew. `--seconds`
is the length of the soak, of each load of `overload`, and of the fuzzing of all parsers together.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from datetime import UTC, datetime

import pytest

from tests.campaign import results
from tests.campaign.catalogue import CHECKS, Check
from tests.campaign.results import Result


class Recorder:
    """A plugin of pytest that collects the reports of each check's tests."""

    def __init__(self, checks: list[Check]) -> None:
        self._checks = checks
        self._reports: dict[str, list[pytest.TestReport]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for check in self._checks:
            if report.nodeid.startswith(check.tests):
                self._reports[check.name].append(report)

    def results(self, size: str) -> dict[str, Result]:
        date, load = datetime.now(UTC).strftime("%Y-%m-%d"), round(os.getloadavg()[0], 1)
        return {
            name: Result(
                passed=all(report.passed for report in reports),
                figure=_figure(reports),
                size=size,
                seconds=round(sum(report.duration for report in reports), 1),
                date=date,
                load_average=load,
            )
            for name, reports in self._reports.items()
        }


def _figure(reports: list[pytest.TestReport]) -> str:
    """The figures that tests gave, or how many passed; and the tests that were skipped."""
    ran = [report for report in reports if report.when == "call"]
    given = [(key, value) for report in ran for key, value in report.user_properties]
    figures = [str(value) for key, value in given if key == "figure"]
    if cases := sum(int(str(value)) for key, value in given if key == "cases"):
        figures.append(f"{cases:,} cases")
    skipped = [report.nodeid.rpartition("::")[2] for report in reports if report.skipped]
    counted = f"{sum(report.passed for report in ran)} of {len(ran)} tests passed"
    return "; ".join([*(figures or [counted]), *([f"not run: {', '.join(skipped)}"] if skipped else [])])


def main() -> int:
    """Run the chosen checks; 1 where one did not pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [check.name for check in CHECKS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="CHECK", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="take the numbers of the suite")
    parser.add_argument("--write", action="store_true", help="keep the results and write docs/reliability.md anew")
    parser.add_argument("--seconds", type=float, help="length of the soak, the loads and the fuzzing")
    parser.add_argument("--minutes", help="file to which the soak adds a line each minute")
    chosen = parser.parse_args()
    checks = [check for check in CHECKS if check.name in chosen.only]
    recorder = Recorder(checks)
    flags = [] if chosen.quick else ["--full"]
    flags += [f"--seconds={chosen.seconds}"] if chosen.seconds else []
    flags += [f"--minutes={chosen.minutes}"] if chosen.minutes else []
    tests = [test for check in checks for test in check.tests]
    pytest.main(["-q", "-m", "", "--timeout=0", *flags, *tests], plugins=[recorder])
    length = f" for {chosen.seconds:g} s" if chosen.seconds else ""
    found = recorder.results(("quick" if chosen.quick else "full") + length)
    for check in checks:
        result = found.get(check.name)
        print(f"{check.name:16} {'passed' if result and result.passed else 'FAILED'}  {result and result.figure}")
    if chosen.write:
        results.keep(found)
    return int(not all(name in found and found[name].passed for name in chosen.only))


if __name__ == "__main__":
    sys.exit(main())
