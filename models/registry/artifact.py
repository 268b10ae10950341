"""A trained model on disk: an immutable, hashed directory of safetensors and JSON."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from models.errors import ArtifactError, ModelError
from models.filesystem import Permit, commit, make_directory, permit_always, sha256_of, sync, temporary_in
from models.safety import PICKLES, require_safe_settings
from models.validation_messages import describe_fault

TrainedTask = Literal["classification", "embedding", "anomaly", "rerank", "forecast", "inference"]
MANIFEST = "manifest.json"
FORBIDDEN = PICKLES | {".py", ".pyc"}
# The file of an exported program, which is read without running any of it (decision 32).
PROGRAM_FILE = "model.pt2"
_MAX_MANIFEST_BYTES = 64 * 2**20
_FINITE = ConfigDict(allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs and the model's outputs for them after training.

    A loaded model must reproduce them within `tolerance`.

    A row is a text's probabilities (classification), its score (anomaly, one value) or its embedding. For rerank the
    text is a pair, and the row its relevance between 0 and 1. Models of images have data URIs as texts. Sensor models
    have `readings` in place of texts: a detector has a row of one score for each reading, a forecaster one for each
    step of its mean forecast.
    """

    __pydantic_config__ = _FINITE

    texts: tuple[str | tuple[str, str], ...]
    rows: tuple[tuple[float, ...], ...]
    tolerance: Annotated[float, Field(ge=0)]
    readings: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> Golden:
        """From `{"texts": […], "rows": [[…]], "tolerance": …}`. Raises ArtifactError."""
        golden: Golden = _validate(_GOLDEN, json.dumps(dict(read)), "golden")
        return golden


@dataclass(frozen=True, slots=True)
class Manifest:
    """A trained model's identity and origin, and the SHA-256 of each of its files.

    `base_version` is the version of the encoder that it was trained on. `encoder` is "own" when the directory has an
    encoder, and "base" when the model is a head on the base's embeddings. It is "none" for a sensor model, and
    "program" for an exported program that was registered. `sensor` describes a sensor model: `kind`, `columns`,
    `period_s`. `owner` is the API key whose job trained it; None in versions from before owners, and of programs.
    """

    __pydantic_config__ = _FINITE

    name: str
    version: Annotated[int, Field(ge=1)]
    task: TrainedTask
    base: str
    base_version: str
    encoder: Literal["base", "own", "none", "program"]
    labels: tuple[str, ...]
    metrics: dict[str, float]
    golden: Golden
    created: int
    job: str
    seed: int
    hyperparameters: dict[str, object] = field(default_factory=dict)
    sensor: dict[str, object] | None = None
    files: dict[str, str] = field(default_factory=dict)
    owner: str | None = None

    @property
    def reads_images(self) -> bool:
        """Whether it was trained on images."""
        return self.hyperparameters.get("kind") == "images"

    @property
    def digest(self) -> str:
        """12 hex digits of a digest over all files."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()[:12]


_GOLDEN = TypeAdapter(Golden)
_MANIFEST = TypeAdapter(Manifest)


def publish(staging: Path, target: Path, manifest: Manifest, permit: Permit = permit_always) -> None:
    """Make an artifact of the files in `staging` at `target`, in one step.

    It copies the files, so that a publication can be repeated after a power cut. `permit` is as in `commit`. Raises
    ArtifactError when `target` exists or a file is not allowed in an artifact.
    """
    if target.exists() or target.is_symlink():
        raise ArtifactError(f"{target.name} is there already: an artifact never changes")
    files = list(_files(staging))
    if MANIFEST in files:
        raise ArtifactError(f"{MANIFEST} is written by the publication: leave it out of the files to publish")
    _refuse_unsafe(staging, files, manifest)
    make_directory(target.parent)
    building = temporary_in(target.parent)
    try:
        hashes = {file: _copy(staging / file, building / file) for file in files}
        _write_manifest(building, replace(manifest, files=hashes))
        commit(building, target, permit)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    sync(target.parent)


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`, without verifying files. Raises ArtifactError."""
    file = path / MANIFEST
    try:
        if file.is_symlink() or file.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ArtifactError(f"{path.name}/{MANIFEST} is a link or larger than {_MAX_MANIFEST_BYTES} bytes")
        manifest: Manifest = _validate(_MANIFEST, file.read_bytes(), f"{path.name}/{MANIFEST}")
    except OSError as error:
        raise ArtifactError(f"{path.name}/{MANIFEST} cannot be read: {error.strerror}") from error
    return manifest


def verify(path: Path) -> Manifest:
    """Read every file of an artifact and compare it with the manifest.

    Raises ArtifactError for a changed, missing, additional or forbidden file, a link, or code.
    """
    if path.is_symlink():
        raise ArtifactError(f"{path.name} is a link; an artifact is a directory of its own")
    manifest = read_manifest(path)
    found = [file for file in _files(path) if file != MANIFEST]
    for file in sorted(set(found) ^ set(manifest.files)):
        raise ArtifactError(f"{path.name}/{file} is {'not in the manifest' if file in found else 'missing'}")
    _refuse_unsafe(path, found, manifest)
    for file in found:
        digest = sha256_of(path / file)
        if digest != manifest.files[file]:
            raise ArtifactError(f"{path.name}/{file} has SHA-256 {digest}, the manifest says {manifest.files[file]}")
    return manifest


def _files(root: Path, below: str = "") -> Iterator[str]:
    """Relative paths of all files, sorted. Raises ArtifactError for links and special files."""
    if not root.is_dir():
        raise ArtifactError(f"{root.name} is no directory")
    with os.scandir(root / below) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            path = f"{below}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _files(root, f"{path}/")
            elif entry.is_file(follow_symlinks=False):
                yield path
            else:
                raise ArtifactError(f"{path} is a link or no regular file; an artifact has none")


def _refuse_unsafe(root: Path, files: list[str], manifest: Manifest) -> None:
    """Raise ArtifactError for files that can run code or that name code to run."""
    program = PROGRAM_FILE if manifest.encoder == "program" else None
    for file in files:
        if file != program and Path(file).suffix.lower() in FORBIDDEN:
            raise ArtifactError(f"{file}: {Path(file).suffix} files can run code; an artifact has safetensors and JSON")
        try:
            require_safe_settings(root / file, file)
        except ModelError as error:
            raise ArtifactError(error.message) from error


def _copy(source: Path, target: Path) -> str:
    """Copy a file, flush it to the disk and return the copy's SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target, follow_symlinks=False)
    sync(target)
    return sha256_of(target)


def _write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest last: a directory with a manifest is complete."""
    try:
        content = json.dumps(asdict(manifest), indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"the manifest cannot be written as JSON: {error}") from error
    _validate(_MANIFEST, content, MANIFEST)
    directory.mkdir(exist_ok=True)
    (directory / MANIFEST).write_text(content, encoding="utf-8")
    sync(directory / MANIFEST)
    for folder in (*(path for path in directory.rglob("*") if path.is_dir()), directory):
        sync(folder)


def _validate(adapter: TypeAdapter[Any], content: str | bytes, where: str) -> Any:
    try:
        read = adapter.validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{where}: {path or 'content'}: {describe_fault(dict(first))}") from error
    golden = read.golden if isinstance(read, Manifest) else read
    if not golden.readings and len(golden.texts) != len(golden.rows):
        raise ArtifactError(f"{where}: {len(golden.texts)} golden texts have {len(golden.rows)} rows")
    return read
