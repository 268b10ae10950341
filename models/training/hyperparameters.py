"""The hyperparameters of each task: bounded, and refused where they mean nothing."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.training.augmentation_options import Augmentation, ImageAugmentation
from models.training.csv_options import CsvOptions

Task = Literal["classification", "embedding", "anomaly", "rerank", "forecast"]
Auto = Literal["auto"]
Mode = Literal["auto", "frozen", "contrastive", "lora", "full"]
Optimizer = Literal["adamw", "sgd", "adafactor"]
Schedule = Literal["linear", "cosine", "constant"]
Head = Literal["cosine", "linear"]
Metric = Literal["macro_f1", "accuracy"]
DetectorKind = Literal["auto", "knn", "mahalanobis", "energy", "combined"]
ImageDetectorKind = Literal["auto", "padim", "patchcore"]
RecordDetectorKind = Literal["pca", "mahalanobis", "knn", "combined", "autoencoder"]
SeriesDetectorKind = Literal["level", "residual", "statistics", "combined", "ensemble", "conv", "foresight", "adaptive"]
SensorDetectorKind = Literal["auto", RecordDetectorKind, SeriesDetectorKind]
# `models.training.tuning.losses`, which needs torch, lists the kinds of rows that each loss takes.
LabelledLoss = Literal["supervised_contrastive", "contrastive", "batch_hard", "batch_all"]
EmbeddingLoss = Literal["multiple_negatives", "triplet", "cosent", "angle"]
RerankLoss = Literal["binary_cross_entropy"]
OF_RECORDS: tuple[str, ...] = get_args(RecordDetectorKind)
OF_SERIES: tuple[str, ...] = get_args(SeriesDetectorKind)

PARAM = "method.supervised.hyperparameters"
IMAGES = "images"
_Share = Annotated[float, Field(gt=0, lt=1)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Name = Annotated[str, Field(min_length=1, max_length=256)]
_BatchSize = Annotated[int, Field(ge=2, le=1024)]
_LORA = ("lora_rank", "lora_alpha", "lora_dropout")


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def _require_unset(self, names: tuple[str, ...], why: str) -> None:
        for name in names:
            if name in self.model_fields_set:
                raise ValueError(f"{name}: means nothing here, since {why}; leave it out")


class _Common(_Settings):
    """What every recipe takes; `held_out` is a share of rows, without a validation file."""

    held_out: _Share = 0.2


class _Detection(_Common):
    """What recipes with a detector of texts take; `C` is the inverse of regularisation."""

    detector: DetectorKind = "auto"
    neighbours: Annotated[int, Field(ge=1, le=100)] | Auto = "auto"
    C: Annotated[float, Field(gt=0, le=1e6)] | Auto = "auto"

    @model_validator(mode="after")
    def _refuse_unused_neighbours(self) -> _Detection:
        if self.detector in ("energy", "mahalanobis"):
            self._require_unset(("neighbours",), f"detector {self.detector!r} looks at no neighbours")
        return self


class _Tables(_Common):
    """What recipes on tables take.

    `columns` are the readings, by default all columns without another role. `timestamp` and `group` (one run of a
    machine) name columns. `csv` says how a CSV file is written.
    """

    columns: tuple[_Name, ...] = Field((), max_length=512)
    timestamp: _Name | None = None
    group: _Name | None = None
    csv: CsvOptions = CsvOptions()
    _roles: ClassVar[tuple[str, ...]] = ("timestamp", "group")

    @model_validator(mode="after")
    def _require_one_role(self) -> _Tables:
        """A column is readings or has another role, never both."""
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("columns: each column once")
        named = [name for role in self._roles if (name := getattr(self, role)) is not None]
        twice = next((name for name in named if named.count(name) > 1 or name in self.columns), None)
        if twice is not None:
            roles = " or ".join((", ".join(("readings", *self._roles[:-1])), self._roles[-1]))
            raise ValueError(f"columns: {twice[:60]!r} has two roles; expected a column to be {roles}")
        return self


class _Tuned(_Common):
    """What recipes take that change the encoder's weights.

    `learning_rate` is the rate itself; `learning_rate_multiplier` (OpenAI's name) multiplies the recipe's own.
    `warmup` is a share of all steps. "auto" leaves a value to the recipe.
    """

    n_epochs: Annotated[float, Field(gt=0, le=100)] | Auto = "auto"
    batch_size: _BatchSize | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000)] | Auto = "auto"
    learning_rate: Annotated[float, Field(gt=0, le=10)] | Auto = "auto"
    optimizer: Optimizer = "adamw"
    weight_decay: float = Field(0.01, ge=0, le=1)
    schedule: Schedule = "linear"
    warmup: float = Field(0.1, ge=0, lt=1)
    max_steps: Annotated[int, Field(ge=1)] | None = None
    max_grad_norm: _Positive = 1.0
    temperature: Annotated[float, Field(gt=0, le=10)] | Auto = "auto"
    checkpoint_every: int = Field(0, ge=0)
    lora_rank: int = Field(16, ge=1, le=512)
    lora_alpha: _Positive = 32.0
    lora_dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _require_one_rate(self) -> _Tuned:
        if self.learning_rate != "auto" and self.learning_rate_multiplier != "auto":
            raise ValueError("learning_rate and learning_rate_multiplier both set the rate: give one of them")
        return self


class _TunedOnTexts(_Tuned):
    """What recipes take that change an encoder of texts."""

    loss: str = "auto"
    augmentation: Augmentation = Augmentation()


_TUNING = tuple(name for name in _Tuned.model_fields if name not in _Common.model_fields)
_TUNING_ON_TEXTS = tuple(name for name in _TunedOnTexts.model_fields if name not in _Common.model_fields)


class ClassificationHyperparameters(_Detection, _TunedOnTexts):
    """A linear head on embeddings and, unless `mode` is frozen, a tuned encoder.

    Encoder: `loss` is that of contrastive tuning, which mode auto tries too. Modes lora and full learn by the
    cross-entropy of a `head`: cosines to a vector per label ("auto"), or an affine map. The head that is then fitted
    to the embeddings is linear in every mode. The tuned encoder replaces the frozen one if the interval of its lead
    in `metric`, at the level `confidence`, lies above 0.

    Head: "auto" chooses `C` by cross-validation. `label_names` adds each label's name as one more example; "auto"
    does so where there are few rows a label. `lexical` adds the texts' word pieces to the frozen encoder's head;
    "auto" does so where that is better out of fold. `refit` fits the winning head again, with the held-out rows,
    after the evaluation.

    Detector: rows with `out_of_scope_label` are no class; they evaluate the detector.
    """

    mode: Mode = "auto"
    head: Literal["auto", Head] = "auto"
    loss: Literal["auto", LabelledLoss] = "auto"
    label_names: bool | Auto = "auto"
    lexical: bool | Auto = "auto"
    out_of_scope_label: _Name | None = None
    metric: Metric = "macro_f1"
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.8  # docs/decisions/0014-small-files-are-cross-validated.md
    refit: bool = True

    @model_validator(mode="after")
    def _refuse_unused(self) -> ClassificationHyperparameters:
        if self.mode == "frozen":
            self._require_unset((*_TUNING_ON_TEXTS, "metric", "confidence"), "mode 'frozen' tunes nothing")
        elif self.mode != "lora":
            self._require_unset(_LORA, f"mode {self.mode!r} adds no LoRA")
        if self.mode in ("lora", "full"):
            self._require_unset(("loss",), f"mode {self.mode!r} learns by the cross-entropy of its head")
            if self.head == "linear":
                self._require_unset(("temperature",), "a linear head has none")
        elif self.head == "cosine":
            advice = "leave it out, or take mode 'lora' or 'full'"
            raise ValueError(f"head: the head of mode {self.mode!r} is linear; {advice}")
        if self.loss not in ("auto", "supervised_contrastive"):
            self._require_unset(("temperature",), f"loss {self.loss!r} has none")
        return self


class TextAnomalyHyperparameters(_Detection):
    """A detector of texts unlike the normal ones. `C` and energy need labelled rows."""

    anomaly_label: _Name = "anomaly"
    mode: Literal["auto", "frozen"] = "auto"

    @model_validator(mode="after")
    def _refuse_unused(self) -> TextAnomalyHyperparameters:
        if self.detector in ("knn", "mahalanobis"):
            self._require_unset(("C",), f"detector {self.detector!r} has no head")
        return self


class ImageClassificationHyperparameters(_Detection, _Tuned):
    """A linear head on an encoder of images that is frozen or tuned; all settings are those of texts.

    Mode auto tunes in full where that can pay within minutes. Images with `out_of_scope_label` are no class; they
    evaluate the detector.
    """

    kind: Literal["images"] = "images"
    mode: Literal["auto", "frozen", "lora", "full"] = "auto"
    augmentation: ImageAugmentation = ImageAugmentation()
    out_of_scope_label: _Name | None = None
    metric: Metric = "macro_f1"
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.8
    refit: bool = True

    @model_validator(mode="after")
    def _refuse_unused(self) -> ImageClassificationHyperparameters:
        if self.mode == "frozen":
            self._require_unset(_TUNING, "mode 'frozen' tunes nothing")
        elif self.mode != "lora":
            self._require_unset(_LORA, f"mode {self.mode!r} adds no LoRA")
        return self

    @property
    def of_head(self) -> ClassificationHyperparameters:
        """The same for the head, which is fitted and compared as one of texts is."""
        shared = ("held_out", *_Detection.model_fields, "out_of_scope_label", "metric", "confidence", "refit")
        given = {name: getattr(self, name) for name in shared if name in self.model_fields_set}
        of_texts = ClassificationHyperparameters(lexical=False, label_names=False, **given)
        return of_texts.model_copy(update={"mode": self.mode})


class ImageAnomalyHyperparameters(_Common):
    """A detector of images unlike the good ones.

    Images labelled `anomaly_label` evaluate the detector. With `normal_label`, images of all other labels do.
    """

    kind: Literal["images"] = "images"
    detector: ImageDetectorKind = "auto"
    anomaly_label: _Name = "anomaly"
    normal_label: _Name | None = None

    @model_validator(mode="after")
    def _require_one_rule(self) -> ImageAnomalyHyperparameters:
        if self.normal_label is not None:
            self._require_unset(("anomaly_label",), "with normal_label, every other label is an anomaly's")
        return self


class SensorAnomalyHyperparameters(_Tables):
    """A detector of readings: of single `records`, or of `series` in the order of time.

    `label` names a column of 0 and 1, for evaluation alone. `refit` fits the chosen detector again, with the held-out
    rows, after the evaluation.
    """

    kind: Literal["records", "series"]
    label: _Name | None = None
    detector: SensorDetectorKind = "auto"
    refit: bool = True
    _roles: ClassVar[tuple[str, ...]] = ("timestamp", "group", "label")

    @model_validator(mode="after")
    def _refuse_unused(self) -> SensorAnomalyHyperparameters:
        known = ("auto", *(OF_RECORDS if self.kind == "records" else OF_SERIES))
        if self.detector not in known:
            raise ValueError(f"detector: expected one of {', '.join(known)} for {self.kind}, got {self.detector!r}")
        return self


class ForecastHyperparameters(_Tables):
    """A forecaster of series: `horizon` steps from `context` readings.

    `model` auto tries the linear map and the network; only the network reads `n_epochs`, `batch_size` (windows a
    step) and `learning_rate`. `season` is the period of the seasonal baseline, in readings; "auto" looks for one.
    """

    horizon: Annotated[int, Field(ge=1, le=1024)]
    context: Annotated[int, Field(ge=4, le=4096)] | Auto = "auto"
    model: Literal["auto", "linear", "patch"] = "auto"
    season: Annotated[int, Field(ge=2, le=100_000)] | Auto = "auto"
    n_epochs: Annotated[int, Field(ge=1, le=100)] | Auto = "auto"
    batch_size: _BatchSize | Auto = "auto"
    learning_rate: Annotated[float, Field(gt=0, le=1)] | Auto = "auto"
    # What is fixed here and chosen for a detector.
    kind: ClassVar[Literal["series"]] = "series"
    label: ClassVar[None] = None

    @model_validator(mode="after")
    def _refuse_unused(self) -> ForecastHyperparameters:
        if self.model == "linear":
            self._require_unset(("n_epochs", "batch_size", "learning_rate"), "model 'linear' is solved in one step")
        return self


class EmbeddingHyperparameters(_TunedOnTexts):
    """An encoder tuned on pairs, triplets or scores.

    `matryoshka` lists lengths to which embeddings can be cut (Matryoshka representation learning).
    """

    mode: Literal["auto", "lora", "full"] = "auto"
    loss: Literal["auto", EmbeddingLoss] = "auto"
    matryoshka: tuple[Annotated[int, Field(ge=1)], ...] = Field((), max_length=16)
    hard_negatives: int = Field(0, ge=0, le=16)

    @model_validator(mode="after")
    def _refuse_unused(self) -> EmbeddingHyperparameters:
        if self.mode == "full":
            self._require_unset(_LORA, "mode 'full' adds no LoRA")
        if self.loss == "triplet":
            self._require_unset(("temperature",), "loss 'triplet' has none")
        if len(set(self.matryoshka)) != len(self.matryoshka):
            raise ValueError("matryoshka: each length once")
        return self


class RerankHyperparameters(_TunedOnTexts):
    """A cross-encoder tuned on query, document and label."""

    mode: Literal["auto", "full", "lora"] = "auto"
    loss: Literal["auto", RerankLoss] = "auto"

    @model_validator(mode="after")
    def _refuse_unused(self) -> RerankHyperparameters:
        if self.mode != "lora":
            self._require_unset(_LORA, f"mode {self.mode!r} adds no LoRA")
        self._require_unset(("temperature",), "binary cross-entropy has none")
        return self


Hyperparameters = (
    ClassificationHyperparameters
    | TextAnomalyHyperparameters
    | ImageClassificationHyperparameters
    | ImageAnomalyHyperparameters
    | SensorAnomalyHyperparameters
    | ForecastHyperparameters
    | EmbeddingHyperparameters
    | RerankHyperparameters
)
