"""`python -m tests.support.failing_trainer slip|fault DIRECTORY`: a training process in which reading rows fails."""

from __future__ import annotations

import sys
from typing import NoReturn

from models.training import run

ERRORS = {"slip": IndexError("of\nours " + "x" * 999), "fault": RuntimeError("of the machine")}


def main() -> None:
    error = ERRORS[sys.argv.pop(1)]

    def fail(*_: object) -> NoReturn:
        raise error

    vars(run)["read_split"] = fail
    run.main()


if __name__ == "__main__":
    main()
