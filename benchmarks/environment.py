"""A virtual environment of a rival's own."""

from __future__ import annotations

import subprocess
import sysconfig
import venv
from pathlib import Path


def make(directory: Path, pins: Path, *, holds: str, over_this: bool = False) -> None:
    """Make the environment from `pins`, unless the path that matches `holds` is in it.

    With `over_this`, it also sees the packages of the environment that runs this.
    """
    if any(directory.glob(holds)):
        return
    venv.create(directory, with_pip=True)
    if over_this:
        (site_packages,) = directory.glob("lib/python*/site-packages")
        (site_packages / "sonde.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    subprocess.run([str(directory / "bin" / "pip"), "install", "--quiet", "--requirement", str(pins)], check=True)
