"""`python -m tests.support.reading_process FILE…`: read training files as a trainer does, and measure each.

Writes a line of JSON for each file: its name, its outcome, the seconds, and the megabytes that it took at its peak.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from models.errors import SondeError
from models.training.data.dataset import read_rows
from models.training.data.table import ColumnRoles, read_table
from tests.support.processes import peak_mb, reset_peak, resident_mb


def main(paths: list[str]) -> None:
    for path in map(Path, paths):
        for read in (read_rows, lambda path: read_table(path, ColumnRoles())):
            before = resident_mb()
            reset_peak()
            began = time.perf_counter()
            outcome = _outcome(read, path)
            seconds, growth_mb = time.perf_counter() - began, peak_mb() - before
            print(json.dumps([path.name, outcome, round(seconds, 2), round(growth_mb)]), flush=True)


def _outcome(read: object, path: Path) -> str:
    assert callable(read)
    try:
        read(path)
    except SondeError as error:
        return f"refused: {error.message[:100]}"
    except MemoryError:
        return "refused: no memory"
    return "read"


if __name__ == "__main__":
    main(sys.argv[1:])
