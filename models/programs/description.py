"""What stands beside a program: the task that it does, its labels, and how images become its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from models.errors import ModelError, TensorError, source_error
from models.filesystem import replace_file
from models.probabilities import probabilities
from models.programs.contract import Contract, Described, TensorSpec
from models.programs.stated_contract import StatedContract
from models.programs.tensors import HostTensor
from models.source import DESCRIPTION

_MAX_BYTES = 64 << 20
# A sum of float16 or bfloat16 probabilities may be above 1 by this much.
_ROUNDING = 0.01
T = TypeVar("T")
Side = Annotated[int, Meta(ge=1, le=16_384)]
Text = Annotated[str, Meta(min_length=1, max_length=1024)]
Floats = tuple[float, float, float]
# What callers of a task send instead of tensors' names.
ProgramTask = Literal["inference", "classification", "embedding", "anomaly"]


class Preprocessing(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an image becomes a program's input: scaled to `height` x `width`, then (value * scale - mean) / std.

    `resize` squashes the image, or crops the middle after its shorter side was scaled to `shorter_side`.
    """

    height: Side
    width: Side
    mean: Floats = (0.0, 0.0, 0.0)
    std: Floats = (1.0, 1.0, 1.0)
    scale: float = 1 / 255
    resize: Literal["squash", "crop"] = "squash"
    shorter_side: Side | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"

    @property
    def cropped_from(self) -> int:
        """The shorter side of an image before it is cropped."""
        return self.shorter_side or max(self.height, self.width)


class Description(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The task of a program; without one, it only answers the Open Inference Protocol.

    `output` names the output with the task's rows, where there are several. `scores` says what a classifier's are, and
    `calibration` has the scores that a detector gives to normal inputs. `contract` is for compiled code alone.
    """

    task: ProgramTask = "inference"
    output: Text | None = None
    labels: tuple[Text, ...] = ()
    scores: Literal["logits", "probabilities"] | None = None
    multi_label: bool = False
    calibration: tuple[float, ...] = ()
    preprocess: Preprocessing | None = None
    contract: StatedContract | None = None

    def rows_of(self, tensors: Mapping[str, HostTensor]) -> NDArray[np.float32]:
        """The rows of the task's output, float32 [n, width], from all outputs by name."""
        tensor = tensors[self.output or ""]
        values: NDArray[np.float32] = tensor.to_torch().float().numpy()
        return values.reshape(len(values), -1)

    def probabilities(self, rows: NDArray[np.float32], *, multi_label: bool) -> NDArray[np.float32]:
        """The probabilities [n, labels] of a classifier's rows. Raises ModelError for rows that are none as stated."""
        if self.scores == "probabilities":
            if ((rows < -_ROUNDING) | (rows > 1 + _ROUNDING)).any():
                got = f"values from {rows.min():g} to {rows.max():g}: its description should state logits"
                raise ModelError(f"{self.output}: expected probabilities, got {got}", param="model")
            return rows.clip(0, 1)
        return probabilities(rows, multi_label=multi_label or self.multi_label)


def description_file(program: Path) -> Path:
    """Where the description of a program's file is: `net.sonde.json` beside `net.pt2`."""
    return program.with_suffix(DESCRIPTION)


def read_description(program: Path) -> Description:
    """The description beside a program's file; one without a task where there is no file. Raises ModelSourceError."""
    file = description_file(program)
    return read_part(file, Description) if file.is_file() else NO_TASK


def read_part(file: Path, kind: type[T]) -> T:
    """What a JSON file has of a description. Raises ModelSourceError."""
    try:
        if (size := file.stat().st_size) > _MAX_BYTES:
            raise source_error(file.name, f"expected at most {_MAX_BYTES:,} bytes, got {size:,}")
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise source_error(file.name, str(error)) from error


def write_description(program: Path, description: Description) -> None:
    """Write the description beside a program's file."""
    file = description_file(program)
    replace_file(file, msgspec.json.format(msgspec.json.encode(description), indent=1))


def completed(description: Description, contract: Contract, name: str) -> Description:
    """The description with the name of its output. Raises ModelSourceError where the program cannot do its task."""
    fields = (*_FIELDS[description.task], "contract")
    for field in description.__struct_fields__:
        if field not in fields and getattr(description, field) != getattr(NO_TASK, field):
            known = ", ".join(_FIELDS[description.task])
            raise source_error(name, f"{field}: expected none for the task {description.task}; it has {known}")
    if description.task == "inference":
        return description
    spec = _output(description, contract, name)
    _CHECKS[description.task](description, spec, name)
    if description.preprocess is not None:
        _check_images(description.preprocess, contract, name)
    return msgspec.structs.replace(description, output=spec.name)


def _output(description: Description, contract: Contract, name: str) -> TensorSpec:
    """The output with the task's rows."""
    known = {spec.name: spec for spec in contract.outputs}
    if description.output is None and len(known) > 1:
        raise source_error(name, f"expected output to name one of {', '.join(known)}, got none")
    found = contract.outputs[0] if description.output is None else known.get(description.output)
    if found is None:
        raise source_error(name, f"expected output to name one of {', '.join(known)}, got {description.output!r}")
    if "float" not in found.dtype or len(found.shape) not in (1, 2):
        expected = f"expected a float of shape [rows, columns] for {description.task}"
        raise source_error(name, f"its output {found.name}: {expected}, got {_shown(found, contract)}")
    return found


def _check_classifier(description: Description, spec: TensorSpec, name: str) -> None:
    width = _width(spec)
    if len(description.labels) != width or len(set(description.labels)) < len(description.labels):
        got = f"{len(set(description.labels))} different ones"
        raise source_error(name, f"labels: expected {width}, one for each column of {spec.name}, got {got}")
    if description.scores is None:
        raise source_error(name, f"scores: expected logits or probabilities, as {spec.name} has them, got none")


def _check_encoder(description: Description, spec: TensorSpec, name: str) -> None:
    if len(spec.shape) != 2 or _width(spec) is None:
        raise source_error(name, f"its output {spec.name}: expected a fixed number of columns for embedding")


def _check_detector(description: Description, spec: TensorSpec, name: str) -> None:
    if _width(spec) != 1:
        raise source_error(name, f"its output {spec.name}: expected one score a row for anomaly")
    if not description.calibration:
        raise source_error(name, "calibration: expected the scores of normal inputs, by which p-values are computed")


_CHECKS = {"classification": _check_classifier, "embedding": _check_encoder, "anomaly": _check_detector}
NO_TASK = Description()
_OF_ALL = ("task", "output", "preprocess")
_FIELDS: dict[ProgramTask, tuple[str, ...]] = {
    "inference": ("task",),
    "classification": (*_OF_ALL, "labels", "scores", "multi_label"),
    "embedding": _OF_ALL,
    "anomaly": (*_OF_ALL, "calibration"),
}


def _check_images(preprocess: Preprocessing, contract: Contract, name: str) -> None:
    """Raise ModelSourceError unless the one input takes images of the size that is stated."""
    spec, *others = contract.inputs
    if others or "float" not in spec.dtype or len(spec.shape) != 4:
        got = ", ".join(f"{one.name} {_shown(one, contract)}" for one in contract.inputs)
        raise source_error(name, f"preprocess: expected one input, a float [batch, 3, height, width], got {got}")
    rows = contract.limits[contract.batch].least if contract.batch else 1
    try:
        contract.check({spec.name: Described(spec.dtype, (rows, 3, preprocess.height, preprocess.width))})
    except TensorError as error:
        raise source_error(name, f"preprocess: {error}") from error
    if not all(preprocess.std) or preprocess.cropped_from < max(preprocess.height, preprocess.width):
        raise source_error(name, "preprocess: expected std other than 0, and shorter_side at least height and width")


def _width(spec: TensorSpec) -> int | None:
    """The columns of an output; None where their number varies."""
    if len(spec.shape) == 1:
        return 1
    return spec.shape[1] if isinstance(spec.shape[1], int) else None


def _shown(spec: TensorSpec, contract: Contract) -> str:
    return f"{spec.dtype} {contract.shape_of(spec)}".replace("'", "")


def width_of(description: Description, outputs: Sequence[TensorSpec]) -> int:
    """The length of a row of the task; 0 without a task."""
    return next((_width(spec) or 0 for spec in outputs if spec.name == description.output), 0)
