"""The first hour of a new user: from `git clone` to a first embedding, and to a trained classifier.

    python3 -m benchmarks.first_hour

The commands are those of the README, run as printed in a fresh clone. It needs git, make and the standard library.
pip downloads all packages anew, unless `--pip-cache` lets it use its cache.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PRINTED_URL = "http://127.0.0.1:8000"
# Sections of the README whose first block is run, and the aim from the start of the clone, in seconds.
_AIMS = {"First call": 150.0, "Train a classifier": 480.0}
_READY = "Sonde is ready"


@dataclass
class Clock:
    """Seconds since the clone began, by what was reached."""

    begun: float = field(default_factory=time.monotonic)

    def reach(self, what: str, aim_s: float | None = None) -> None:
        """Print when something was reached, and whether that meets its aim."""
        seconds = time.monotonic() - self.begun
        verdict = "" if aim_s is None else f"  aim {aim_s:.0f} s: {'met' if seconds <= aim_s else 'MISSED'}"
        print(f"{seconds:7.1f} s  {what}{verdict}", flush=True)


def main() -> None:
    """Run the README's way and print the times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pip-cache", action="store_true", help="let pip use its cache, as at a second set-up")
    given = parser.parse_args()
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="sonde-first-hour-") as folder:
        clone = Path(folder) / "sonde"
        subprocess.run(["git", "clone", "--quiet", str(_ROOT), str(clone)], check=True)
        clock.reach("cloned")
        url = f"http://127.0.0.1:{_free_port()}"
        with _serving(clone, url, pip_cache=given.pip_cache):
            clock.reach("ready")
            for section, aim_s in _AIMS.items():
                _run(clone, _block(clone / "README.md", section), url)
                clock.reach(section, aim_s)


@contextmanager
def _serving(clone: Path, url: str, *, pip_cache: bool) -> Iterator[None]:
    """`make serve`, as a person starts it. Raises RuntimeError where it ends before it is ready."""
    environment = os.environ | ({} if pip_cache else {"PIP_NO_CACHE_DIR": "1"})
    port, log = url.rpartition(":")[2], clone.parent / "serve.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            ["make", "serve", f"PORT={port}"], cwd=clone, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        if not any(_READY in line for line in process.stdout):
            raise RuntimeError(f"make serve ended before it was ready:\n{log.read_text()[-3000:]}")
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def _run(clone: Path, block: str, url: str) -> None:
    """Run a block as printed, with `sonde` and `python` of the set-up."""
    path = f"{clone / '.venv' / 'bin'}:{os.environ['PATH']}"
    text = block.replace(_PRINTED_URL, url)
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=clone, env=os.environ | {"PATH": path, "SONDE_URL": url}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _block(document: Path, section: str) -> str:
    """The first `bash` block below a heading."""
    text = document.read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(section)}\n.*?^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{document}: expected a section {section!r} with a bash block")
    return found[1]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
