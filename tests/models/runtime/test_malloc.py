"""Memory that tensors let go of is kept for the next ones."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import resource
{imports}
from models.runtime.malloc import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        kept = [{made} for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

said = keep_freed_memory()
faults()
print(said, faults())
"""
TENSORS = {"imports": "import torch", "made": "torch.empty(5_000_000, dtype=torch.uint8).fill_(1)"}
# The same of the same heap, in a process that does not import PyTorch, which takes most of the time.
BYTES = {"imports": "", "made": "b'x' * 5_000_000"}


def said(what: dict[str, str], **more: str) -> tuple[bool, int]:
    """Whether the heap keeps what is freed, and how many pages 0.3 GB of it, 15 MB at a time, then asked the system
    for.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(**what)],
        env={**environment, **more},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library can be told")
def test_what_is_freed_is_kept() -> None:
    kept, faults = said(TENSORS)
    assert kept
    assert faults < 1000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library reads these")
@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072")]
)
def test_what_the_user_has_set_stays(name: str, value: str) -> None:
    kept, faults = said(BYTES, **{name: value})
    assert not kept
    assert faults > 40_000


def test_a_number_of_arenas_that_the_user_has_set_is_no_business_of_ours() -> None:
    assert not said(BYTES, MALLOC_ARENA_MAX="8")[0]


RETURN = """
import ctypes
from pathlib import Path
from models.runtime.malloc import return_freed_memory

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
blocks = [libc.malloc(60_000) for _ in range(1000)]
for block in blocks:
    ctypes.memset(block, 1, 60_000)
for block in blocks[:-1]:  # the last keeps the heap's end
    libc.free(block)
before = resident_mb()
return_freed_memory()
print(before - resident_mb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library keeps it")
def test_what_is_free_is_returned_on_request() -> None:
    done = subprocess.run([sys.executable, "-c", RETURN], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 40
