"""`python -m service.jobs.golden_check PATH SPEC DEVICE DTYPE`: does the artifact at PATH give what it gave when it
was trained?

A process of its own, so that the worker holds no model, and a check that dies fails the gate and not the worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

from models.errors import SondeError
from models.registry.artifact import Manifest
from service.config import Settings
from service.jobs.publishing import Check

_WRONG = 4
_TIMEOUT_S = 600.0


def checker(settings: Settings) -> Check:
    """The check, where the settings have models compute."""

    def check(path: Path, spec: str) -> str | None:
        with_death_signal = (
            sys.executable,
            "-m",
            "service.processes.parent_death",
            str(os.getpid()),
            str(int(signal.SIGKILL)),
        )
        command = (
            *with_death_signal,
            sys.executable,
            "-m",
            "service.jobs.golden_check",
            str(path),
            spec,
            settings.device,
            settings.dtype,
        )
        try:
            ended = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603  # ours, no shell
        except subprocess.TimeoutExpired:
            return f"its golden inputs were not computed within {_TIMEOUT_S:g} s"
        if ended.returncode == 0:
            return None
        said = ended.stdout.decode(errors="replace").strip()
        return (
            said
            if ended.returncode == _WRONG
            else f"the process that ran its golden inputs ended with {ended.returncode}"
        )

    return check


def main() -> int:
    """Exit code 0, or 4 with what is wrong on standard output."""
    from models.loader import load
    from models.registry.artifact import verify
    from models.runtime.placement import DeviceName, DtypeName, place
    from models.source import locate
    from models.text.golden import reproduce

    path, spec = Path(sys.argv[1]), sys.argv[2]
    try:
        manifest = verify(path)
        if manifest.encoder == "none":
            return _reproduce_readings(path, manifest)
        placement = place(cast(DeviceName, sys.argv[3]), cast(DtypeName, sys.argv[4]))
        model = load(locate(f"own={path / 'encoder'}" if manifest.encoder == "own" else spec), placement)
        if manifest.encoder == "base" and model.card.version != manifest.base_version:
            print(f"it was trained on version {manifest.base_version} of its base, and here is {model.card.version}")
            return _WRONG
        reproduce(path, manifest, model)
    except SondeError as error:
        print(error.message)
        return _WRONG
    return 0


def _reproduce_readings(path: Path, manifest: Manifest) -> int:
    """A model of numbers needs no base. Raises SondeError."""
    from models.sensors.golden import reproduce
    from models.sensors.serialization import load_sensor

    reproduce(manifest, load_sensor(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
