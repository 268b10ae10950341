"""`python -m service.jobs.held_out_check FILE`: count the rows of a file that is to judge every version of a name.

FILE is JSON, as `bound` of `job.json`. It runs as a process of its own, because a hostile file may cost more memory
than the service has.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from models.errors import SondeError
from service.errors import InvalidRequest, Unavailable
from service.processes.parent_death import with_parent_death_signal

_WRONG = 4
_TIMEOUT_S = 120.0
# One check at a time in each process of the service: it takes seconds of one core.
_TURN = threading.Lock()


def count_rows(file: Mapping[str, Any]) -> int:
    """The rows of a file, `file` being what `BoundFile` has.

    Raises InvalidRequest for a file that its task cannot read, Unavailable while another file is checked.
    """
    if not _TURN.acquire(blocking=False):
        raise Unavailable("another file is being checked: try again in a few seconds", retry_after_s=5)
    try:
        return _run(json.dumps(file, default=str))
    finally:
        _TURN.release()


def _run(file: str) -> int:
    command = with_parent_death_signal(signal.SIGKILL, sys.executable, "-m", "service.jobs.held_out_check", file)
    try:
        ended = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603  # ours
    except subprocess.TimeoutExpired:
        raise InvalidRequest(
            f"file: its rows were not read within {_TIMEOUT_S:g} s; bind fewer", param="file"
        ) from None
    if ended.returncode == _WRONG:
        raise InvalidRequest(ended.stdout.decode(errors="replace").strip(), param="file")
    if ended.returncode:
        message = f"file: the process that read its rows ended with {ended.returncode}; bind fewer or smaller rows"
        raise InvalidRequest(message, param="file")
    return int(ended.stdout)


def main() -> int:
    """Exit code 0 with the number of rows on standard output, or 4 with what is wrong."""
    try:
        print(_count(sys.argv[1]))
    except SondeError as error:
        print(error.message)
        return _WRONG
    return 0


def _count(file: str) -> int:
    from pydantic import TypeAdapter

    from models.training.data.bound_readings import read_bound_readings
    from models.training.data.dataset import read_bound
    from models.training.job import BoundFile

    bound: BoundFile = TypeAdapter(BoundFile).validate_json(file)
    of_sensors = bound.task == "forecast" or bound.hyperparameters.get("kind") is not None
    return len(read_bound_readings(bound) if of_sensors else read_bound(bound))


if __name__ == "__main__":
    sys.exit(main())
