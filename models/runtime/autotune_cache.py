"""What autotuning measured, kept in a file, so that a machine measures once and not at each start."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError

from models.filesystem import read_json, replace_file
from models.runtime import cpu

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_FORMAT = 1
# Machines may share a file. It keeps the results of those that measured last.
_MAX_MACHINES = 16
# Another process that measures holds the lock for less than a second. A frozen one must not hold up a start.
_LOCK_TIMEOUT_S, _LOCK_POLL_S = 5.0, 0.02
_CPUINFO = Path("/proc/cpuinfo")
# With these a processor computes like an older one.
_INSTRUCTION_SETS = (
    "ATEN_CPU_CAPABILITY",
    "FBGEMM_ENABLE_INSTRUCTIONS",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
)


class AutotuneCache:
    """Results of autotuning, in memory and, from `keep_in` on, by machine in one JSON file."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._results = dict[str, Any]()

    def keep_in(self, path: Path | None) -> None:
        """Keep results in a file from now on, or nowhere."""
        self._path = path

    def recall(self, name: str, kind: type[ResultT], run: Callable[[], ResultT]) -> ResultT:
        """The kept result of a name, a dataclass of type `kind`; else the result of `run`, which is then kept.

        Of several processes one measures, and the others wait for its result.
        """
        if name not in self._results:
            self._results[name] = self._read_or_run(name, kind, run)
        result: ResultT = self._results[name]
        return result

    def _read_or_run(self, name: str, kind: type[ResultT], run: Callable[[], ResultT]) -> ResultT:
        path, adapter = self._path, TypeAdapter[ResultT](kind)
        if path is None:
            return run()
        with suppress(_NotKept):
            return _find(path, name, adapter)
        with _hold_lock(path.with_suffix(".lock")):
            try:
                return _find(path, name, adapter)  # another process may have been first
            except _NotKept as reason:
                log.info("measuring %s: %s", name, reason)
            result = run()
            _keep(path, name, adapter.dump_python(result, mode="json"))
            return result


autotune_cache = AutotuneCache()


def describe_machine() -> str:
    """What a result depends on: the processor, its instruction sets, processors, and versions."""
    instructions = sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True)
    limits = [f"{name}={os.environ[name]}" for name in _INSTRUCTION_SETS if name in os.environ]
    processors = f"{len(cpu.usable_processors())} processors"
    versions = [f"torch {torch.__version__}", f"sonde {importlib.metadata.version('sonde')}"]
    return ", ".join([_processor(), *instructions, *limits, processors, *versions])


class _NotKept(Exception):
    """There is no usable result, with the reason."""


def _find(path: Path, name: str, adapter: TypeAdapter[ResultT]) -> ResultT:
    """A kept result of this machine. Raises _NotKept."""
    try:
        machines = _read(path)
        if not machines:
            raise _NotKept("nothing is kept yet")
        results = machines.get(describe_machine())
        if results is None:
            raise _NotKept(f"{path} has results of other machines or versions alone")
        if name not in results:
            raise _NotKept("it is not kept yet")
        return adapter.validate_python(results[name])
    except ValidationError as error:
        fault = error.errors()[0]
        raise _NotKept(f"{path} has no valid result: {fault['loc']}: {fault['msg']}") from error
    except (OSError, ValueError) as error:
        raise _NotKept(f"{path} cannot be read: {error}") from error


def _keep(path: Path, name: str, result: Any) -> None:
    machine = describe_machine()
    try:
        machines = _read(path)
    except (OSError, ValueError):  # said before measuring
        machines = {}
    mine = machines.pop(machine, {}) | {name: result}
    newest = dict([*machines.items(), (machine, mine)][-_MAX_MACHINES:])
    try:
        replace_file(path, json.dumps({"format": _FORMAT, "machines": newest}, indent=1).encode())
    except OSError as error:
        log.warning("the result is not kept, so that each start measures %s again: %s", name, error)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Results by machine and name. Raises OSError, and ValueError for a file that is torn or of another version."""
    content = read_json(path, dict)
    if not content:
        return {}
    machines = content.get("machines")
    if content.get("format") != _FORMAT or not isinstance(machines, dict):
        raise ValueError(f"expected format {_FORMAT}, got {content.get('format')!r}")
    if not all(isinstance(results, dict) for results in machines.values()):
        raise ValueError("expected an object for each machine")
    return machines


@contextmanager
def _hold_lock(lock: Path) -> Iterator[None]:
    """Wait until no other process measures, for some seconds at most, and without a lock where none can be made."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:  # nor can the result be kept, which is said then
        yield
        return
    try:
        ends = time.monotonic() + _LOCK_TIMEOUT_S
        while _is_locked(descriptor) and time.monotonic() < ends:
            time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    """Whether another process has the lock; else take it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    return False


def _processor() -> str:
    """The processor's name, as Linux says it."""
    with suppress(OSError), _CPUINFO.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
