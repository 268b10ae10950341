"""The version loader: opens versions of the registry and checks hashes and golden inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from models.errors import ArtifactError
from models.images.golden_images import read_image_parts
from models.images.reader import ImageLimits
from models.registry.artifact import PROGRAM_FILE, Manifest, verify
from models.registry.registry import Registry
from models.source import ModelSource
from models.text.golden_texts import ModelParts, read_parts
from service.engine.row_engine import RowEngine
from service.serving.engine_factory import EngineFactory
from service.serving.fine_tuned import FineTunedModel, LiveVersion
from service.serving.fine_tuned_images import FineTunedImages
from service.serving.fine_tuned_metadata import sensor_metadata
from service.serving.image_kinds import serve_images
from service.serving.image_model import ReadsImages
from service.serving.model_opener import ModelOpener, OpenedImages
from service.serving.program_version import ProgramVersion, serve_version
from service.serving.sensor_model import SensorModel, ServedSensor
from service.serving.servable import Servable, ServingContext
from service.serving.text_model import ServedText

V = TypeVar("V", FineTunedModel, FineTunedImages)


class VersionLoader:
    """Loads versions. `base_model` finds the settings' model that a head sits on."""

    def __init__(
        self,
        registry: Registry,
        engines: EngineFactory,
        opener: ModelOpener,
        context: ServingContext,
        base_model: Callable[[str], Servable | None],
        limits: ImageLimits,
    ) -> None:
        self._registry = registry
        self._engines = engines
        self._opener = opener
        self._context = context
        self._base_model = base_model
        self._limits = limits

    def load(self, name: str, version: int) -> LiveVersion:
        """Load a version. Raises RegistryError, ModelError, or any error of a broken file."""
        path = self._registry.path(name, version)
        manifest = verify(path)
        if (manifest.name, manifest.version) != (name, version):
            other = f"{manifest.name}:v{manifest.version}"
            raise ArtifactError(f"the directory of {name}:v{version} has the manifest of {other}")
        if manifest.encoder == "none":
            return self._load_sensor(path, manifest)
        if manifest.encoder == "program":
            return self._load_program(path, manifest)
        if manifest.reads_images:
            return self._load_images(path, manifest)
        parts = read_parts(path, manifest)
        on_base = manifest.encoder == "base"
        return _checked(
            self._load_on_base(manifest, parts) if on_base else self._load_with_encoder(path, manifest, parts)
        )

    def _load_sensor(self, path: Path, manifest: Manifest) -> ServedSensor:
        from models.sensors.golden_readings import reproduce
        from models.sensors.serialization import load_sensor

        model = load_sensor(path)
        metadata = sensor_metadata(model, manifest)
        with self._engines.device(metadata.device).computing(alone=False):
            reproduce(manifest, model)
        return ServedSensor(SensorModel(model, metadata), self._engines.start_sensor(metadata), manifest, self._context)

    def _load_program(self, path: Path, manifest: Manifest) -> ProgramVersion:
        file = str(manifest.hyperparameters.get("file", PROGRAM_FILE))
        source = ModelSource(manifest.name, path / PROGRAM_FILE, f"registered as {file}", f"v{manifest.version}")
        opened = self._opener.open_program(source)
        with _closed_at_failure(opened.engine):
            return serve_version(opened, manifest, self._context, self._limits)

    def _load_images(self, path: Path, manifest: Manifest) -> FineTunedImages:
        parts = read_image_parts(path, manifest)
        if manifest.encoder == "own" and parts.detector is not None:
            raise ArtifactError(f"it detects by patches of {manifest.base}: expected that encoder, got one of its own")
        base = self._open_images(path, manifest) if manifest.encoder == "own" else self._find_base(manifest)
        if not isinstance(base, ReadsImages) or (parts.detector is not None and base.patches is None):
            raise ArtifactError(f"{manifest.base} reads {base.reads}: expected the encoder of images it was trained on")
        return _checked(FineTunedImages(base, manifest, parts, self._context))

    def _open_images(self, path: Path, manifest: Manifest) -> ReadsImages:
        """The encoder of images that a version has of its own, with an engine. Raises ArtifactError."""
        opened = self._opener.open_version(_own_source(path, manifest))
        model, engine = (opened.model, opened.engine) if isinstance(opened, OpenedImages) else opened
        if not isinstance(opened, OpenedImages) or model.metadata.task != "embedding":
            engine.close()
            raise ArtifactError(f"its encoder does {model.metadata.task}, expected an encoder of images")
        return serve_images(opened, self._context, self._limits)

    def _load_on_base(self, manifest: Manifest, parts: ModelParts) -> FineTunedModel:
        base = self._find_base(manifest)
        if not isinstance(base, ServedText):
            raise ArtifactError(f"{manifest.base} reads {base.reads}: expected the encoder of texts it was trained on")
        if base.metadata.task != "embedding" or manifest.task not in {"classification", "anomaly"}:
            raise ArtifactError(
                f"{manifest.task} on the rows of a model for {base.metadata.task}: expected a head on an encoder"
            )
        return FineTunedModel(base.model, base.engine, manifest, parts, self._context)

    def _find_base(self, manifest: Manifest) -> Servable:
        """The settings' model that a version sits on. Raises ArtifactError without it, or for another version."""
        base = self._base_model(manifest.base)
        if base is None:
            raise ArtifactError(f"it is a head on {manifest.base}, which is not served here: start it with --model")
        if base.metadata.version != manifest.base_version:
            raise ArtifactError(
                f"it was trained on {manifest.base} of version {manifest.base_version}, the one served is "
                f"{base.metadata.version}: train again"
            )
        return base

    def _load_with_encoder(self, path: Path, manifest: Manifest, parts: ModelParts) -> FineTunedModel:
        opened = self._opener.open_version(_own_source(path, manifest))
        if isinstance(opened, OpenedImages):
            opened.engine.close()
            raise ArtifactError("its encoder reads images, expected one of texts")
        model, engine = opened
        without_head = manifest.task == "classification" and parts.head is None
        expected = manifest.task if manifest.task == "rerank" or without_head else "embedding"
        if model.metadata.task != expected or (
            expected == "classification" and model.metadata.labels != manifest.labels
        ):
            engine.close()
            raise ArtifactError(
                f"its encoder does {model.metadata.task} with labels {list(model.metadata.labels)}, expected {expected}"
            )
        return FineTunedModel(model, engine, manifest, parts, self._context)


def _own_source(path: Path, manifest: Manifest) -> ModelSource:
    """Where a version's own encoder is. Raises ArtifactError without one."""
    if not (path / "encoder").is_dir():
        raise ArtifactError("its manifest says that it has an encoder of its own, and there is none")
    return ModelSource(manifest.name, path / "encoder", f"trained from {manifest.base}", manifest.digest)


def _checked(version: V) -> V:
    """A version that reproduces its golden inputs. Raises ArtifactError, and closes an engine of its own."""
    with _closed_at_failure(version.engine) if version.owns_engine else nullcontext():
        version.check_golden()
    return version


@contextmanager
def _closed_at_failure(engine: RowEngine[Any]) -> Iterator[None]:
    """Close the engine of a version that cannot be served after all: the watcher tries it again and again."""
    try:
        yield
    except BaseException:
        engine.close()
        raise
