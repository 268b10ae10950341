"""`python -m service.jobs.held_out_check`: count the rows of a file that is to judge every version of a name.

Standard input says which: JSON, as `bound` of `job.json`. It runs as a process of its own, because a hostile file may
cost more memory than the service has.
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
from models.interpreter import RUN_MODULE
from service.errors import InvalidRequest, Unavailable
from service.jobs.memory_watch import MemoryWatch
from service.processes.parent_death import with_parent_death_signal

_WRONG = 4
_TIMEOUT_S = 120.0
# One check at a time in each process of the service: it takes seconds of one core.
_TURN = threading.Lock()


def count_rows(file: Mapping[str, Any], max_memory_bytes: int) -> int:
    """The rows of a file, `file` being what `BoundFile` has.

    Raises InvalidRequest for a file that its task cannot read, also within the time and memory for that; Unavailable
    while another file is checked.
    """
    if not _TURN.acquire(blocking=False):
        raise Unavailable("another file is being checked: try again in a few seconds", retry_after_s=5)
    try:
        return _run(json.dumps(file, default=str).encode(), max_memory_bytes)
    finally:
        _TURN.release()


def _run(file: bytes, max_memory_bytes: int) -> int:
    command = with_parent_death_signal(signal.SIGKILL, *RUN_MODULE, "service.jobs.held_out_check")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:  # noqa: S603  # ours
        watch = MemoryWatch(process.pid, max_memory_bytes, process.kill)
        try:
            output, _ = process.communicate(file, _TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise _unreadable(f"its rows were not read within {_TIMEOUT_S:g} s; bind fewer") from None
        finally:
            process.kill()
            watch.end()
    if watch.exceeded.is_set():
        raise _unreadable(
            f"reading its rows took more than {max_memory_bytes:,} bytes of memory: bind fewer or smaller rows, or "
            "raise --max-trainer-memory"
        )
    if process.returncode == _WRONG:
        raise InvalidRequest(output.decode(errors="replace").strip(), param="file")
    if process.returncode:
        raise _unreadable(f"the process that read its rows ended with {process.returncode}; bind fewer or smaller rows")
    return int(output)


def _unreadable(why: str) -> InvalidRequest:
    return InvalidRequest.at("file", why)


def main() -> int:
    """Exit code 0 with the number of rows on standard output, or 4 with what is wrong."""
    try:
        print(_count(sys.stdin.buffer.read()))
    except SondeError as error:
        print(error.message)
        return _WRONG
    return 0


def _count(file: bytes) -> int:
    from pydantic import TypeAdapter

    from models.training.data.bound_readings import read_bound_readings
    from models.training.data.dataset import read_bound
    from models.training.data.image_reader import small_reader
    from models.training.hyperparameters import IMAGES
    from models.training.job import BoundFile

    bound: BoundFile = TypeAdapter(BoundFile).validate_json(file)
    kind = bound.hyperparameters.get("kind")
    if kind == IMAGES:
        with small_reader(bound.task) as reader:
            return len(read_bound(bound, reader.rows))
    of_sensors = bound.task == "forecast" or kind is not None
    return len(read_bound_readings(bound) if of_sensors else read_bound(bound))


if __name__ == "__main__":
    sys.exit(main())
