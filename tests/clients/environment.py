"""The clients' own virtual environment, made once for each content of `requirements.txt`.

`python -m tests.clients.environment` makes it and prints its interpreter.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


class CannotInstall(Exception):
    """The clients cannot be installed here; the message says why."""


def interpreter() -> Path:
    """The interpreter of the environment, which is made where it is missing. Raises CannotInstall."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sonde"
    home.mkdir(parents=True, exist_ok=True)
    content = REQUIREMENTS.read_bytes() + sys.version.encode()
    made = home / f"clients-{hashlib.sha256(content).hexdigest()[:16]}"
    with (home / "clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "ready").exists():
            _run(sys.executable, "-m", "venv", "--clear", str(made))
            _run(str(made / "bin/pip"), "install", "--quiet", "--requirement", str(REQUIREMENTS))
            (made / "ready").touch()
    return made / "bin/python"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise CannotInstall(f"the clients cannot be installed: {lines[-1]}")


if __name__ == "__main__":
    print(interpreter())
