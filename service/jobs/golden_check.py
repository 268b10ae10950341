"""`python -m service.jobs.golden_check PATH SPEC DEVICE DTYPE AUTOTUNE`: check an artifact against its golden rows.

It runs as a process of its own, so that the worker holds no model. A check that dies fails the promotion, not the
worker.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

from models.errors import SondeError
from models.interpreter import RUN_MODULE
from models.registry.artifact import Manifest
from service.config import Settings
from service.jobs.publishing import Check
from service.processes.parent_death import with_parent_death_signal

_WRONG = 4
_TIMEOUT_S = 600.0


def checker(settings: Settings) -> Check:
    """A check that computes on the device and in the dtype of the settings."""

    def check(path: Path, spec: str) -> str | None:
        module = (*RUN_MODULE, "service.jobs.golden_check")
        command = (*module, str(path), spec, settings.device, settings.dtype, str(settings.autotune_file))
        try:
            ended = subprocess.run(  # noqa: S603  # a command of ours, no shell
                with_parent_death_signal(signal.SIGKILL, *command), capture_output=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"its golden inputs were not computed within {_TIMEOUT_S:g} s"
        if ended.returncode == _WRONG:
            return ended.stdout.decode(errors="replace").strip()
        return f"the process that ran its golden inputs ended with {ended.returncode}" if ended.returncode else None

    return check


def main() -> int:
    """Exit code 0, or 4 with what is wrong on standard output."""
    path, spec, device, dtype, autotuned = sys.argv[1:]
    try:
        wrong = _check(Path(path), spec, device, dtype, Path(autotuned))
    except SondeError as error:
        wrong = error.message
    if wrong is not None:
        print(wrong)
    return 0 if wrong is None else _WRONG


def _check(path: Path, spec: str, device: str, dtype: str, autotuned: Path) -> str | None:
    """What is wrong with the artifact's base. Raises SondeError when its rows are not reproduced."""
    from models.images import golden_images
    from models.images.model import ImageModel
    from models.loader import load, load_images
    from models.registry.artifact import verify
    from models.runtime.autotune_cache import autotune_cache
    from models.runtime.device_names import DeviceName, DtypeName
    from models.runtime.placement import place
    from models.source import locate
    from models.text import golden_texts

    manifest = verify(path)
    if manifest.encoder == "none":
        _reproduce_readings(path, manifest)
        return None
    autotune_cache.keep_in(autotuned)
    placement = place(cast(DeviceName, device), cast(DtypeName, dtype))
    source = locate(f"own={path / 'encoder'}" if manifest.encoder == "own" else spec)
    model = (load_images(source, placement) if manifest.reads_images else None) or load(source, placement)
    version = model.metadata.version
    if manifest.encoder == "base" and version != manifest.base_version:
        return f"it was trained on version {manifest.base_version} of its base, and here is {version}"
    if isinstance(model, ImageModel):
        golden_images.reproduce(path, manifest, model)
    else:
        golden_texts.reproduce(path, manifest, model)
    return None


def _reproduce_readings(path: Path, manifest: Manifest) -> None:
    """Check a sensor model, which needs no base. Raises SondeError."""
    from models.sensors.golden_readings import reproduce
    from models.sensors.serialization import load_sensor

    reproduce(manifest, load_sensor(path))


if __name__ == "__main__":
    sys.exit(main())
