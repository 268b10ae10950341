"""Load a model source with the class that runs it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from models.errors import ModelError, ModelSourceError
from models.filesystem import read_json
from models.images.model import ImageModel
from models.images.processor import ImageProcessor, load_processor
from models.images.stated_processor import require_preprocessing
from models.kinds import ImageKind, image_kind, network_folder
from models.lite_weights import ARCHITECTURE
from models.programs.compiled import compile_program
from models.programs.description import description_file, read_description
from models.programs.native import is_native, read_native
from models.programs.program import Program
from models.programs.reader import read_program
from models.programs.row_check import check_rows
from models.runtime.device import Checking
from models.runtime.device_names import DeviceName, DtypeName
from models.runtime.malloc import keep_freed_memory
from models.runtime.placement import Placement, choose_device, place_on
from models.source import ModelSource, locate_program
from models.text.batch_check import LoadedModel, check_batches
from models.text.model import TextModel
from models.text.packed.encoder import packed_or_general
from models.text.sequence_classifier import SequenceClassifier, is_sequence_classifier


def set_up(threads: int) -> None:
    """Set up this process for models, or for the heads and detectors of a front; `threads` 0 is PyTorch's choice."""
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()


def load(source: ModelSource, placement: Placement, checking: Checking = nullcontext) -> TextModel:
    """Load the encoder, cross-encoder or classifier of texts in `source`, and check it in `checking`.

    Raises ModelSourceError when the directory has none of them, and ModelError when int8 is asked for and unsupported.
    """
    if not any((source.path / name).is_file() for name in ("config.json", "modules.json")):
        raise ModelSourceError(
            f"{source.name}: expected config.json or modules.json in its directory, found neither", param="model"
        )
    if image_kind(source.path) is not None:
        raise ModelSourceError(f"{source.name}: expected a model of texts, got one of images", param="model")
    if is_sequence_classifier(source.path):
        if placement.int8:
            raise ModelError(
                f"{source.name}: int8 is for encoders, and this is a sequence classifier: set another dtype",
                param="dtype",
            )
        model: LoadedModel = SequenceClassifier(source, placement)
    else:
        model = packed_or_general(source, placement, checking)
    with checking():
        return check_batches(model)


def load_images(source: ModelSource, placement: Placement) -> ImageModel | None:
    """Load the model of images in `source`; None where it reads texts alone. Raises as `load` does."""
    kind = image_kind(source.path)
    if kind is None:
        return None
    if placement.int8:
        raise ModelError(
            f"{source.name}: int8 is for encoders of texts, and this reads images: set another dtype", param="dtype"
        )
    from models.images.batch_check import LoadedImageModel, check_image_batches
    from models.images.classifier import ImageClassifier
    from models.images.encoder import ImageEncoder
    from models.images.lite_encoder import LiteEncoder
    from models.images.object_detector import ObjectDetector
    from models.images.text_image_encoder import TextImageEncoder
    from models.images.text_recognizer import TextRecognizer

    if read_json(source.path / "config.json", dict).get("model_type") == ARCHITECTURE:
        return check_image_batches(LiteEncoder(source, placement))
    kinds: dict[ImageKind, Callable[[ModelSource, Placement], LoadedImageModel]] = {
        "classifier": ImageClassifier,
        "detector": ObjectDetector,
        "encoder": ImageEncoder,
        "recognizer": TextRecognizer,
        "text-image": TextImageEncoder,
    }
    return check_image_batches(kinds[kind](source, placement))


def read_processor(source: ModelSource) -> ImageProcessor:
    """The image processor of the model in `source`, without its network. Raises ModelSourceError."""
    is_whole = image_kind(source.path) in {"detector", "recognizer"}
    return load_processor(source, network_folder(source.path), whole_size=is_whole)


def open_programs(
    specs: Sequence[str],
    device: DeviceName,
    dtype: DtypeName,
    threads: int,
    *,
    trusted: Container[str] = (),
    compiled: Path | None = None,
) -> Iterator[Program]:
    """Load the exported programs of `--model`, as `open_models` loads the others. Raises ModelError.

    Compiled code is run for the names that are `trusted`. With a folder `compiled`, programs are compiled into it.
    """
    for source, placement in _located(map(locate_program, specs), device, dtype, threads):
        program = load_program(source, placement, trusts_native=source.name in trusted)
        yield program if compiled is None or not program.graphs() else compile_program(program, compiled)


def load_program(source: ModelSource, placement: Placement, *, trusts_native: bool = False) -> Program:
    """Load the exported program of a file, with what is described beside it. Raises ModelError."""
    description, beside = read_description(source.path), description_file(source.path).name
    if trusts_native and is_native(source.path):
        read = read_native(source.path, description.contract, placement.device)
    elif description.contract is not None and not is_native(source.path):
        about = f"{beside}: contract is for compiled code, and the program has its own"
        raise ModelSourceError(f"{about}: leave it out", param="model")
    else:
        read = read_program(source.path, placement.device)
    program = Program(source, read, placement, description)
    require_preprocessing(program.description.preprocess, beside)
    return check_rows(program)


def open_models(
    sources: Iterable[ModelSource], device: DeviceName, dtype: DtypeName, threads: int, checking: Checking = nullcontext
) -> Iterator[TextModel | ImageModel]:
    """Load the models of `--model` on one device; `threads` 0 is PyTorch's own choice.

    Those that read texts are checked in `checking`.
    """
    for source, placement in _located(sources, device, dtype, threads):
        yield load_images(source, placement) or load(source, placement, checking)


def _located(
    sources: Iterable[ModelSource], device: DeviceName, dtype: DtypeName, threads: int
) -> Iterator[tuple[ModelSource, Placement]]:
    """The sources, once PyTorch is set up, and the placement of all of them. Without a source, nothing is measured."""
    chosen = choose_device(device)
    set_up(threads)
    for source in sources:
        yield source, place_on(chosen, dtype)
