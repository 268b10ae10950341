"""What a job may set, per task: each by itself, bounded, and refused where it means nothing. No torch in here.

The API reads a job's hyperparameters with `parse` before the job is queued; the trainer does so again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.training.errors import HyperparameterError

Task = Literal["classification", "embedding", "anomaly", "rerank", "forecast"]
Auto = Literal["auto"]
Mode = Literal["auto", "frozen", "contrastive", "lora", "full"]
Optimizer = Literal["adamw", "sgd", "adafactor"]
Schedule = Literal["linear", "cosine", "constant"]
Head = Literal["cosine", "linear"]
Metric = Literal["macro_f1", "accuracy"]
DetectorKind = Literal["auto", "knn", "mahalanobis", "energy", "combined"]
SensorDetectorKind = Literal[
    "auto", "pca", "mahalanobis", "knn", "combined", "autoencoder", "level", "residual", "conv", "foresight", "adaptive"
]
# `models.training.tuning.losses` says which rows feed which; it needs torch.
LabelledLoss = Literal["supervised_contrastive", "contrastive", "batch_hard", "batch_all"]
EmbeddingLoss = Literal["multiple_negatives", "triplet", "cosent", "angle"]
RerankLoss = Literal["binary_cross_entropy"]
OF_RECORDS = ("pca", "mahalanobis", "knn", "combined", "autoencoder")
OF_SERIES = ("level", "residual", "combined", "conv", "foresight", "adaptive")

PARAM = "method.supervised.hyperparameters"
_Share = Annotated[float, Field(gt=0, lt=1)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Augmentation(_Settings):
    """How often a training text is changed, by kind of change; each a share of texts. Never on held-out texts."""

    typos: float = Field(0.0, ge=0, le=1)
    casing: float = Field(0.0, ge=0, le=1)
    word_dropout: float = Field(0.0, ge=0, le=1)


class _Common(_Settings):
    """What every recipe takes: `held_out` is the share of training rows kept for evaluation when no validation file
    is given.
    """

    held_out: _Share = 0.2


class _Tuned(_Common):
    """What every recipe takes that changes the encoder's weights.

    `learning_rate` is the rate itself; `learning_rate_multiplier` (OpenAI's name) multiplies the recipe's own.
    `warmup` is a share of all steps. "auto" leaves a value to the recipe.
    """

    n_epochs: Annotated[float, Field(gt=0, le=100)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=2, le=1024)] | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000)] | Auto = "auto"
    learning_rate: Annotated[float, Field(gt=0, le=10)] | Auto = "auto"
    optimizer: Optimizer = "adamw"
    weight_decay: float = Field(0.01, ge=0, le=1)
    schedule: Schedule = "linear"
    warmup: float = Field(0.1, ge=0, lt=1)
    max_steps: Annotated[int, Field(ge=1)] | None = None
    max_grad_norm: _Positive = 1.0
    loss: str = "auto"
    temperature: Annotated[float, Field(gt=0, le=10)] | Auto = "auto"
    augmentation: Augmentation = Augmentation()
    checkpoint_every: int = Field(0, ge=0)
    lora_rank: int = Field(16, ge=1, le=512)
    lora_alpha: _Positive = 32.0
    lora_dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_rate(self) -> _Tuned:
        if self.learning_rate != "auto" and self.learning_rate_multiplier != "auto":
            raise ValueError("learning_rate and learning_rate_multiplier both set the rate: give one of them")
        return self


_LORA = ("lora_rank", "lora_alpha", "lora_dropout")
_WITHOUT_NEIGHBOURS = ("energy", "mahalanobis")
_WITHOUT_HEAD = ("knn", "mahalanobis")
_DESCENT = tuple(name for name in _Tuned.model_fields if name not in _Common.model_fields)
# OpenAI's clients send these three as "auto" or as numbers with every job; a recipe without epochs reads "auto" as
# nothing.
_FROM_OPENAI = ("n_epochs", "batch_size", "learning_rate_multiplier")


class ClassificationHyperparameters(_Tuned):
    """A linear head on embeddings, and, unless `mode` is frozen, a tuned encoder that has to beat it.

    `loss` is that of contrastive tuning, which mode auto tries, too; modes lora and full learn by the cross-entropy
    of a `head`: cosines to a vector per label ("auto"), or an affine map. What is fitted to the embeddings
    afterwards is linear in every mode. A tuned encoder wins if the interval of its lead in `metric`, at the level
    `confidence`, lies above 0. `C` is the inverse of the regularisation, "auto" chooses it by cross-validation.
    `label_names` adds each label's name as one more example, "auto" does so where there are few rows a label.
    `lexical` adds the texts' word pieces to the frozen encoder's head, "auto" does so where it is better out of
    fold. `out_of_scope_label` names rows that show what does not
    belong: no class of their own, but judges of the detector. `refit` fits the winning head once more, to the
    held-out rows too, after they have judged.
    """

    mode: Mode = "auto"
    head: Literal["auto", Head] = "auto"
    loss: Literal["auto", LabelledLoss] = "auto"
    C: Annotated[float, Field(gt=0, le=1e6)] | Auto = "auto"
    label_names: bool | Auto = "auto"
    lexical: bool | Auto = "auto"
    detector: DetectorKind = "auto"
    neighbours: Annotated[int, Field(ge=1, le=100)] | Auto = "auto"
    out_of_scope_label: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    metric: Metric = "macro_f1"
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.8  # docs/decisions/0014-few-rows-judge-in-turn.md
    refit: bool = True

    @model_validator(mode="after")
    def _meaningful(self) -> ClassificationHyperparameters:
        if self.mode == "frozen":
            _require_unset(self, (*_DESCENT, "metric", "confidence"), "mode 'frozen' tunes nothing")
        elif self.mode != "lora":
            _require_unset(self, _LORA, f"mode {self.mode!r} adds no LoRA")
        if self.mode in ("lora", "full"):
            _require_unset(self, ("loss",), f"mode {self.mode!r} learns by the cross-entropy of its head")
            if self.head == "linear":
                _require_unset(self, ("temperature",), "a linear head has none")
        elif self.head == "cosine":
            raise ValueError(
                f"head: the head of mode {self.mode!r} is linear; leave it out, or take mode 'lora' or 'full'"
            )
        if self.loss not in ("auto", "supervised_contrastive"):
            _require_unset(self, ("temperature",), f"loss {self.loss!r} has none")
        if self.detector in _WITHOUT_NEIGHBOURS:
            _require_unset(self, ("neighbours",), f"detector {self.detector!r} looks at no neighbours")
        return self


class TextAnomalyHyperparameters(_Common):
    """A detector of texts unlike the normal ones. `C` and energy need labelled rows."""

    detector: DetectorKind = "auto"
    neighbours: Annotated[int, Field(ge=1, le=100)] | Auto = "auto"
    C: Annotated[float, Field(gt=0, le=1e6)] | Auto = "auto"
    anomaly_label: Annotated[str, Field(min_length=1, max_length=256)] = "anomaly"
    mode: Literal["auto", "frozen"] = "auto"

    @model_validator(mode="after")
    def _meaningful(self) -> TextAnomalyHyperparameters:
        if self.detector in _WITHOUT_NEIGHBOURS:
            _require_unset(self, ("neighbours",), f"detector {self.detector!r} looks at no neighbours")
        if self.detector in _WITHOUT_HEAD:
            _require_unset(self, ("C",), f"detector {self.detector!r} has no head")
        return self


class SensorAnomalyHyperparameters(_Common):
    """A detector of numbers: of single `records`, or of `series` in the order of time.

    `columns` are the readings, by default all that have no other part. `timestamp`, `group` (one run of a machine)
    and `label` (0 or 1, for evaluation alone) name columns. `refit` fits the chosen detector once more, to the
    held-out rows too, after they have judged.
    """

    kind: Literal["records", "series"]
    columns: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field((), max_length=512)
    timestamp: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    group: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    label: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    detector: SensorDetectorKind = "auto"
    refit: bool = True

    @model_validator(mode="after")
    def _meaningful(self) -> SensorAnomalyHyperparameters:
        known = OF_RECORDS if self.kind == "records" else OF_SERIES
        if self.detector not in ("auto", *known):
            raise ValueError(
                f"detector: expected one of auto, {', '.join(known)} for {self.kind}, got {self.detector!r}"
            )
        _require_one_part(self.columns, (self.timestamp, self.group, self.label), "timestamp, group or label")
        return self


class ForecastHyperparameters(_Common):
    """A forecaster of series: `horizon` steps from `context` readings, by the columns together or each by itself.

    `model` auto tries the linear map and the network; the network alone reads `n_epochs`, `batch_size` (windows a
    step) and `learning_rate`. `season` is a number of readings for the baseline that repeats, "auto" looks for one.
    """

    horizon: Annotated[int, Field(ge=1, le=1024)]
    context: Annotated[int, Field(ge=4, le=4096)] | Auto = "auto"
    columns: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field((), max_length=512)
    timestamp: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    group: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    model: Literal["auto", "linear", "patch"] = "auto"
    season: Annotated[int, Field(ge=2, le=100_000)] | Auto = "auto"
    n_epochs: Annotated[int, Field(ge=1, le=100)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=2, le=1024)] | Auto = "auto"
    learning_rate: Annotated[float, Field(gt=0, le=1)] | Auto = "auto"

    @model_validator(mode="after")
    def _meaningful(self) -> ForecastHyperparameters:
        if self.model == "linear":
            _require_unset(self, ("n_epochs", "batch_size", "learning_rate"), "model 'linear' is solved in one step")
        _require_one_part(self.columns, (self.timestamp, self.group), "timestamp or group")
        return self


class EmbeddingHyperparameters(_Tuned):
    """An encoder tuned on pairs, triplets or scores. `matryoshka` lists lengths of embeddings that shall be good by
    themselves, beside the whole.
    """

    mode: Literal["auto", "lora", "full"] = "auto"
    loss: Literal["auto", EmbeddingLoss] = "auto"
    matryoshka: tuple[Annotated[int, Field(ge=1)], ...] = Field((), max_length=16)
    hard_negatives: int = Field(0, ge=0, le=16)

    @model_validator(mode="after")
    def _meaningful(self) -> EmbeddingHyperparameters:
        if self.mode == "full":
            _require_unset(self, _LORA, "mode 'full' adds no LoRA")
        if self.loss == "triplet":
            _require_unset(self, ("temperature",), "loss 'triplet' has none")
        if len(set(self.matryoshka)) != len(self.matryoshka):
            raise ValueError("matryoshka: each length once")
        return self


class RerankHyperparameters(_Tuned):
    """A cross-encoder tuned on query, document and label."""

    mode: Literal["auto", "full", "lora"] = "auto"
    loss: Literal["auto", RerankLoss] = "auto"

    @model_validator(mode="after")
    def _meaningful(self) -> RerankHyperparameters:
        if self.mode != "lora":
            _require_unset(self, _LORA, f"mode {self.mode!r} adds no LoRA")
        _require_unset(self, ("temperature",), "binary cross-entropy has none")
        return self


Hyperparameters = (
    ClassificationHyperparameters
    | TextAnomalyHyperparameters
    | SensorAnomalyHyperparameters
    | ForecastHyperparameters
    | EmbeddingHyperparameters
    | RerankHyperparameters
)
_CLASSES: dict[str, type[_Common]] = {
    "classification": ClassificationHyperparameters,
    "anomaly": TextAnomalyHyperparameters,
    "embedding": EmbeddingHyperparameters,
    "rerank": RerankHyperparameters,
    "forecast": ForecastHyperparameters,
}


def parse(task: str, given: Mapping[str, Any], place: str = PARAM) -> Hyperparameters:
    """Check what a job sets for its task.

    Raises HyperparameterError that names the first one at fault and what is allowed; `param` is its full path from
    `place` on.
    """
    # Texts have no kind; of numbers it has to be said what they are.
    chosen = SensorAnomalyHyperparameters if task == "anomaly" and given.get("kind") is not None else _CLASSES.get(task)
    if chosen is None:
        allowed = ", ".join(get_args(Task))
        raise HyperparameterError(
            "unknown_task", f"task: expected one of {allowed}, got {task!r}", "method.supervised.task"
        )
    meant = {
        name: value
        for name, value in given.items()
        if value is not None and not (name in _FROM_OPENAI and value == "auto")
    }
    try:
        made = chosen.model_validate(meant)
    except ValidationError as error:
        raise _refused(task, chosen, error, place) from error
    if not isinstance(
        made,
        (
            ClassificationHyperparameters,
            TextAnomalyHyperparameters,
            SensorAnomalyHyperparameters,
            ForecastHyperparameters,
            EmbeddingHyperparameters,
            RerankHyperparameters,
        ),
    ):
        raise TypeError(f"no hyperparameters for task {task!r}")
    return made


def _refused(task: str, chosen: type[_Common], error: ValidationError, place: str) -> HyperparameterError:
    first = error.errors(include_url=False)[0]
    unknown = first["type"] == "extra_forbidden"
    path = [str(part)[:60] for part in first["loc"] if unknown or not _is_branch(part)]
    name = path[0] if path else ""
    param = ".".join([place, *path])
    if unknown:
        fields: Any = Augmentation.model_fields if path[:-1] == ["augmentation"] else chosen.model_fields
        message = f"{'.'.join(path)}: unknown for task {task}; known are {', '.join(sorted(fields))}"
        return HyperparameterError("unknown_hyperparameter", message, param)
    if first["type"] == "value_error":
        reason = str(first["ctx"]["error"]) if "ctx" in first else first["msg"]
        culprit = reason.split(":", 1)[0].split(" ", 1)[0]
        return HyperparameterError(
            "invalid_hyperparameter", reason, f"{place}.{culprit}" if culprit in chosen.model_fields else param
        )
    allowed = "; ".join(
        dict.fromkeys(item["msg"] for item in error.errors(include_url=False) if item["loc"][:1] == first["loc"][:1])
    )
    return HyperparameterError("invalid_hyperparameter", f"{name}: {allowed}, got {_shorten(first['input'])!r}", param)


def _shorten(value: object) -> str:
    """What came, in a few words."""
    try:
        return str(value)[:60]
    except RecursionError:  # JSON may be as deep as Python's stack
        return f"a {type(value).__name__}"


def _is_branch(part: int | str) -> bool:
    """Whether pydantic names a branch of a union here rather than a field."""
    return isinstance(part, str) and (
        part.startswith(("constrained-", "literal[", "function-")) or part in ("int", "float", "bool", "str")
    )


def _require_one_part(columns: tuple[str, ...], others: tuple[str | None, ...], parts: str) -> None:
    """A column is readings or something else, never both."""
    if len(set(columns)) != len(columns):
        raise ValueError("columns: each column once")
    named = [name for name in others if name is not None]
    twice = next((name for name in named if named.count(name) > 1 or name in columns), None)
    if twice is not None:
        raise ValueError(f"columns: {twice[:60]!r} has two parts; expected a column to be readings, {parts}")


def _require_unset(settings: BaseModel, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if name in settings.model_fields_set:
            raise ValueError(f"{name}: means nothing here, since {why}; leave it out")
