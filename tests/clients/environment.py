"""What clients need, each made once for its content: environments, generated clients.

`python -m tests.clients.environment` makes them and prints where they are.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
INFERENCE = Path(__file__).with_name("inference.txt")
KSERVE = Path(__file__).with_name("kserve.txt")
GENERATORS = Path(__file__).with_name("generators.txt")
NODE_CLIENTS = Path(__file__).with_name("clients.json")
NODE_GENERATORS = Path(__file__).with_name("generators.json")
_UNUSED_S = 30 * 86400.0


class CannotInstall(Exception):
    """The clients cannot be installed here; the message says why."""


def interpreter(requirements: Path = REQUIREMENTS) -> Path:
    """The interpreter of a virtual environment, which is made where it is missing. Raises CannotInstall."""

    def make(directory: Path) -> None:
        _run(sys.executable, "-m", "venv", "--clear", str(directory))
        _run(str(directory / "bin/pip"), "install", "--quiet", "--requirement", str(requirements))

    return kept("clients", _with_version(requirements), make) / "bin/python"


def node_modules(packages: Path) -> Path:
    """The directory of node's packages, which are installed where they are missing. Raises CannotInstall."""
    if shutil.which("npm") is None:
        raise CannotInstall("the clients cannot be installed: npm is missing")

    def make(directory: Path) -> None:
        shutil.copy(packages, directory / "package.json")
        _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(directory))

    return kept("node", _with_version(packages), make) / "node_modules"


def _with_version(packages: Path) -> bytes:
    return packages.read_bytes() + sys.version.encode()


def kept(kind: str, content: bytes, make: Callable[[Path], None]) -> Path:
    """A directory that `make` has filled once for this content.

    One that no run asks for in 30 days is removed.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sonde"
    home.mkdir(parents=True, exist_ok=True)
    made = home / f"{kind}-{hashlib.sha256(content).hexdigest()[:16]}"
    with (home / "clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "ready").exists():
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            make(made)
        (made / "ready").touch()
        for ready in home.glob(f"{kind}-*/ready"):
            if ready.stat().st_mtime < time.time() - _UNUSED_S:
                shutil.rmtree(ready.parent)
    return made


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise CannotInstall(f"the clients cannot be installed: {lines[-1]}")


if __name__ == "__main__":
    problems = []
    for find in (
        interpreter,
        partial(interpreter, INFERENCE),
        partial(interpreter, KSERVE),
        partial(interpreter, GENERATORS),
        partial(node_modules, NODE_CLIENTS),
        partial(node_modules, NODE_GENERATORS),
    ):
        try:
            print(find())
        except CannotInstall as error:
            problems.append(str(error))
    sys.exit("\n".join(problems))
