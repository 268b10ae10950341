"""A trained model in service: a head or detector on an encoder, which it shares with others or has to itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
import torch
from numpy.typing import NDArray

from models.base import ModelMetadata, SensorSignature
from models.errors import ArtifactError
from models.preemption import NO_PREEMPTION, Preemption
from models.registry.artifact import Manifest, verify
from models.registry.golden import compare
from models.registry.registry import Registry
from models.sensors.base import Forecaster, Sensor
from models.source import ModelSource
from models.text.base import TextModel
from models.text.detectors.base import Verdict
from models.text.golden import ModelParts, answers, normalize_rows, read_parts, read_texts
from models.text.tokenization import TextProcessor
from models.text.tokens import Tokens
from service.engine.engine import Engine
from service.serving.sensor_model import ReadingsItem, SensorModel, ServedSensor
from service.serving.text_model import ServedText

_GOLDEN_TIMEOUT_S = 60.0
_UNCHECKED = "no golden inputs: its answers were not checked at load"
OpenEncoder = Callable[[ModelSource], tuple[TextModel, Engine[Tokens]]]
OpenSensor = Callable[[Path, Manifest], tuple[SensorModel, Engine[ReadingsItem[Any]]]]


class FineTunedModel(ServedText):
    """A version of a trained model. Its rows are the encoder's; `logits` and `judge` make answers of them.

    Whoever holds one can finish with it: its own engine, if it has one, runs until nobody does.
    """

    def __init__(
        self, model: TextModel, engine: Engine[Tokens], manifest: Manifest, parts: ModelParts, **resources: Any
    ) -> None:
        super().__init__(model, engine, **resources)
        self.manifest = manifest
        self._parts = parts

    @property
    def label(self) -> str:
        """What `x-sonde-model` says: a name that can be asked for."""
        return f"{self.manifest.name}:v{self.manifest.version}"

    @property
    def owns_engine(self) -> bool:
        return self.manifest.encoder == "own"

    @property
    def takes_pairs(self) -> bool:
        """Whether its encoder reads two texts at once."""
        return self._parts.head is None and self.manifest.task in {"classification", "rerank"}

    @property
    def calibrated_on(self) -> int:
        """How many normal items its p-values rest on; 0 without a detector."""
        return 0 if self._parts.detector is None else len(self._parts.detector.calibration)

    def logits(self, rows: NDArray[np.float32], tokens: Sequence[Tokens]) -> NDArray[np.float32]:
        """The encoder's rows [n, d] and the tokens they came from → logits [n, labels]."""
        return self._parts.logits(rows, tokens)

    def judge(self, rows: NDArray[np.float32]) -> Verdict | None:
        """Scores and p-values of the encoder's rows [n, d]; None without a detector."""
        if self._parts.detector is None:
            return None
        with torch.inference_mode():
            return self._parts.detector.judge(normalize_rows(rows))

    def threshold(self, alpha: float) -> float | None:
        """The score from which an item is an anomaly at `alpha`; None where that cannot be told."""
        return None if self._parts.detector is None else self._parts.detector.threshold(alpha)


LiveVersion = FineTunedModel | ServedSensor


class Loader:
    """Makes `FineTunedModel` and `ServedSensor` of versions in the registry: every hash verified, the golden inputs
    run.
    """

    def __init__(
        self,
        registry: Registry,
        base: Callable[[str], ServedText | None],
        open_encoder: OpenEncoder,
        open_sensor: OpenSensor,
        resources: dict[str, Any],
    ) -> None:
        self._registry = registry
        self._base = base
        self._open_encoder = open_encoder
        self._open_sensor = open_sensor
        self._resources = resources

    def load(self, name: str, version: int) -> LiveVersion:
        """A version ready to serve. Raises RegistryError, ModelError, or what reading a broken file raises."""
        path = self._registry.path(name, version)
        manifest = verify(path)
        if (manifest.name, manifest.version) != (name, version):
            raise ArtifactError(
                f"the directory of {name}:v{version} has the manifest of {manifest.name}:v{manifest.version}"
            )
        if manifest.encoder == "none":
            model, engine = self._open_sensor(path, manifest)
            return ServedSensor(model, engine, manifest, **self._resources)
        parts = read_parts(path, manifest)
        if manifest.encoder == "base":
            return self._ready(self._on_base(manifest, parts))
        trained = self._with_own_encoder(path, manifest, parts)
        try:
            return self._ready(trained)
        except BaseException:
            trained.engine.close()
            raise

    def _on_base(self, manifest: Manifest, parts: ModelParts) -> FineTunedModel:
        base = self._base(manifest.base)
        if base is None:
            raise ArtifactError(f"it is a head on {manifest.base}, which is not served here: start it with --model")
        if base.card.version != manifest.base_version:
            raise ArtifactError(
                f"it was trained on {manifest.base} of version {manifest.base_version}, the one served is "
                f"{base.card.version}: train again"
            )
        if base.card.task != "embedding" or manifest.task not in {"classification", "anomaly"}:
            raise ArtifactError(
                f"{manifest.task} on the rows of a model for {base.card.task}: expected a head on an encoder"
            )
        return self._trained(base.model, base.engine, manifest, parts)

    def _with_own_encoder(self, path: Path, manifest: Manifest, parts: ModelParts) -> FineTunedModel:
        if not (path / "encoder").is_dir():
            raise ArtifactError("its manifest says that it has an encoder of its own, and there is none")
        source = ModelSource(manifest.name, path / "encoder", f"trained from {manifest.base}", manifest.digest)
        model, engine = self._open_encoder(source)
        expected = manifest.task if manifest.task == "rerank" or _classifies_alone(manifest, parts) else "embedding"
        if model.card.task != expected or (expected == "classification" and model.card.labels != manifest.labels):
            engine.close()
            raise ArtifactError(
                f"its encoder does {model.card.task} with labels {list(model.card.labels)}, expected {expected}"
            )
        return self._trained(model, engine, manifest, parts)

    def _trained(
        self, model: TextModel, engine: Engine[Tokens], manifest: Manifest, parts: ModelParts
    ) -> FineTunedModel:
        return FineTunedModel(
            _Described(model, _card(model.card, manifest)), engine, manifest, parts, **self._resources
        )

    def _ready(self, trained: FineTunedModel) -> FineTunedModel:
        """Run the golden inputs through the engine, in turn with everybody else's."""
        golden = trained.manifest.golden
        if golden.texts:
            tokens = read_texts(golden, trained.model)
            rows = trained.engine.submit(tokens, client="golden inputs").future.result(_GOLDEN_TIMEOUT_S)
            given = answers(trained.manifest, trained._parts, rows, tokens)  # noqa: SLF001  # our class
            compare(trained.manifest, given, trained.card.dtype)
        return trained


class _Described:
    """An encoder with the card of the trained model it serves in."""

    def __init__(self, model: TextModel, card: ModelMetadata) -> None:
        self._model = model
        self.card = card

    @property
    def text(self) -> TextProcessor:
        return self._model.text

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """The encoder's rows."""
        return self._model.forward(batch, preempt)

    def memory_bytes(self) -> int:
        """The encoder's bytes."""
        return self._model.memory_bytes()


def sensor_card(model: Sensor | Forecaster, manifest: Manifest) -> ModelMetadata:
    """The card of a model of numbers. Raises ArtifactError when the manifest speaks of another task than the model
    does.
    """
    about = manifest.sensor or {}
    period = about.get("period_s")
    numbers = _numbers(model, float(period) if isinstance(period, int | float) else None)
    if (numbers.kind == "forecast") != (manifest.task == "forecast") or manifest.task not in {"anomaly", "forecast"}:
        raise ArtifactError(f"its manifest says that it does {manifest.task}, and it is a model for {numbers.kind}")
    return ModelMetadata(
        name=manifest.name,
        version=f"v{manifest.version}",
        task=manifest.task,
        origin=_origin(manifest),
        architecture=str(about.get("detector") or numbers.kind),
        width=1,
        max_tokens=0,
        vocabulary=0,
        device="cpu",
        dtype="float64",
        reason="models of numbers compute on the CPU, from readings in float64",
        notes=() if manifest.golden.readings else (_UNCHECKED,),
        sensor=numbers,
    )


def _numbers(model: Sensor | Forecaster, period_s: float | None) -> SensorSignature:
    if _forecasts(model):
        return SensorSignature("forecast", model.columns, model.context, model.horizon, period_s)
    sensor = cast(Sensor, model)
    return SensorSignature(sensor.kind, sensor.columns, sensor.window, period_s=period_s)


def _forecasts(model: Sensor | Forecaster) -> TypeGuard[Forecaster]:
    return hasattr(model, "horizon")


def _classifies_alone(manifest: Manifest, parts: ModelParts) -> bool:
    return manifest.task == "classification" and parts.head is None


def _card(encoder: ModelMetadata, manifest: Manifest) -> ModelMetadata:
    width = {"classification": len(manifest.labels), "embedding": encoder.width}.get(manifest.task, 1)
    return replace(
        encoder,
        name=manifest.name,
        version=f"v{manifest.version}",
        task=manifest.task,
        origin=_origin(manifest),
        width=width,
        labels=manifest.labels if manifest.task == "classification" else (),
        notes=(*encoder.notes, *(() if manifest.golden.texts else (_UNCHECKED,))),
    )


def _origin(manifest: Manifest) -> str:
    return f"trained on {manifest.base} {manifest.base_version}" + (f" by {manifest.job}" if manifest.job else "")
