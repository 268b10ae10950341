"""Register an exported program as a version of a name, with its description and golden tensors."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from models.filesystem import make_directory
from models.programs.description import description_file
from models.programs.golden_tensors import write_golden
from models.programs.program import Program
from models.registry.artifact import PROGRAM_FILE, Golden, Manifest
from models.registry.names import model_name
from models.registry.registry import Registry

# The first part of the names of programs, which are trained elsewhere.
BASE = "program"
# Stands for a job in the registry's records.
BY = "sonde register"


def register(registry: Registry, root: Path, program: Program, file: Path, org: str, suffix: str) -> tuple[str, int]:
    """Publish a program that was read from `file`; its name and version. `root` is the registry's directory.

    Raises BadName, ArtifactError and RegistryBusy.
    """
    name = model_name(BASE, org, suffix)
    make_directory(root)
    with tempfile.TemporaryDirectory(dir=root, prefix=".register-") as folder:
        staging = Path(folder)
        shutil.copyfile(file, staging / PROGRAM_FILE)
        if description_file(file).is_file():
            shutil.copyfile(description_file(file), description_file(staging / PROGRAM_FILE))
        unchecked = write_golden(staging, program)
        about = {"file": file.name, "digest": program.metadata.version, "written_by": program.metadata.architecture}
        found: dict[str, object] = {**about, "batches": program.metadata.batches, "without_golden": unchecked}

        def make(version: int) -> Manifest:
            return Manifest(
                name=name,
                version=version,
                task=program.description.task,
                base=BASE,
                base_version="",
                encoder="program",
                labels=program.description.labels,
                metrics={},
                golden=Golden((), (), 0.0),
                created=int(time.time()),
                job=BY,
                seed=0,
                hyperparameters={**found, "signature": program.contract.signature()},
            )

        return name, registry.publish(name, staging, make)
