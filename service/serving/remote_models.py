"""Models of a front: texts are tokenized here, images scaled, tensors checked, and the engine process computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

from models.errors import SondeError
from models.images.pixels import Pixels
from models.metadata import ModelMetadata
from models.source import ModelSource, locate
from models.text.tokenization import TextProcessor, Tokens
from service.config import Settings
from service.engine.frames import OpenConfigured, Opened, OpenProgram, OpenVersion, Submission
from service.engine.request import Item, Request
from service.errors import Unavailable
from service.metrics import Metrics
from service.serving.engine_link import RECONNECTING, EngineLink
from service.serving.image_frames import image_submission
from service.serving.model_opener import OpenedImages, OpenedProgram, OpenedText
from service.serving.program_model import TensorItem
from service.serving.remote_images import RemotePatches, remote_images
from service.serving.remote_program import RemoteProgram
from service.serving.tensor_frames import tensor_submission
from service.serving.token_frames import submission

# Large requests travel in parts: each is copied some times on its way, and the engine reads others in between.
_PART_BYTES = 8 * 2**20


class RemoteModel:
    """A model of the engine process as its front knows it."""

    def __init__(self, opened: Opened) -> None:
        self.metadata: ModelMetadata = opened.metadata
        self.text = TextProcessor.from_json(opened.tokenizer, opened.metadata.max_tokens)
        self._memory_bytes = opened.memory_bytes

    def memory_bytes(self) -> int:
        """Bytes that it held on the device when it was opened."""
        return self._memory_bytes


class RemoteEngine:
    """The engine of one model in the engine process."""

    prepares = False  # images are scaled before they travel

    def __init__(self, link: EngineLink, label: str, width: int) -> None:
        self.width = width
        self._link = link
        self._label = label

    @property
    def failure(self) -> Exception | None:
        """Why the engine process cannot be reached; None where it can."""
        return self._link.lost

    @property
    def waiting(self) -> tuple[int, int]:
        """The requests of this front without an answer, of all models; their tokens are not counted."""
        return self._link.waiting, 0

    @property
    def tokens_per_s(self) -> float:
        """The engine's speed at its last answer; 0 before."""
        return self._link.tokens_per_s.get(self._label, 0.0)

    def submit(
        self,
        items: Sequence[Item],
        *,
        client: str = "",
        deadline: float | None = None,
        patience_s: float | None = None,
        bulk: bool = False,
    ) -> Request:
        """Send items to the engine. Raises Unavailable while there is none."""
        if self._link.lost is not None:
            raise Unavailable(str(self._link.lost), retry_after_s=2)
        request = Request(items, self.width, client=client, deadline=deadline, patience_s=patience_s, bulk=bulk)
        self._link.submit(self._label, _submissions(self._label, request), request)
        return request

    def cancel(self, request: Request, error: SondeError) -> int:
        """End a request here and in the engine. Returns 0: only the engine knows what was computed."""
        request.fail(error)
        self._link.cancel(request)
        return 0

    def close(self) -> None:
        """Let the engine unload the model, unless another front has it."""
        self._link.release(self._label)


class RemoteModelOpener:
    """Opens models in the engine process."""

    lost = RECONNECTING

    def __init__(self, settings: Settings, link: EngineLink, metrics: Metrics) -> None:
        self._settings = settings
        self._link = link
        self._metrics = metrics

    def measure(self) -> None:
        """The engine measures."""

    def open_configured(self) -> Iterator[OpenedText | OpenedImages | OpenedProgram]:
        """Wait for the models of `--model`, which the engine loads. The image processors are read here."""
        from models.loader import set_up
        from models.runtime.malloc import return_freed_memory

        set_up(self._settings.threads)
        specs = self._settings.text_models
        for index, spec in enumerate(specs):
            yield self._front_of(self._link.open(partial(OpenConfigured, index=index)), partial(locate, spec))
        for index in range(len(specs), len(self._settings.model)):
            yield self._program(self._link.open(partial(OpenConfigured, index=index)))
        return_freed_memory()  # tokenizers are read from JSON, which is large

    def open_version(self, source: ModelSource) -> OpenedText | OpenedImages:
        """Let the engine load an encoder. Raises ModelError."""
        opened = self._link.open(_opening(OpenVersion, source))
        try:
            return self._front_of(opened, lambda: source)
        except BaseException:
            self._link.release(opened.metadata.label)
            raise

    def open_program(self, source: ModelSource) -> OpenedProgram:
        """Let the engine load a program and reproduce its golden tensors. Raises ModelError and ArtifactError."""
        return self._program(self._link.open(_opening(OpenProgram, source)))

    def close(self) -> None:
        """End the waits of other threads."""
        self._link.close()

    def _front_of(self, opened: Opened, locate_it: Callable[[], ModelSource]) -> OpenedText | OpenedImages:
        if opened.metadata.image is None:
            return RemoteModel(opened), self._engine(opened.metadata)
        from models.loader import read_processor

        source = locate_it()
        processor = read_processor(source)
        model, found = remote_images(opened, processor, source), opened.patches
        if found is None:
            return OpenedImages(model, self._engine(opened.metadata))
        patches = RemotePatches(found.metadata, opened.memory_bytes, processor, found.channels)
        return OpenedImages(model, self._engine(opened.metadata), (patches, self._engine(found.metadata)))

    def _program(self, opened: Opened) -> OpenedProgram:
        return OpenedProgram(RemoteProgram(opened), self._engine(opened.metadata, 1))

    def _engine(self, metadata: ModelMetadata, width: int | None = None) -> RemoteEngine:
        self._metrics.announce(metadata.name)
        return RemoteEngine(self._link, metadata.label, metadata.width if width is None else width)


def _opening(kind: type[OpenVersion], source: ModelSource) -> Callable[[int], OpenVersion]:
    """Makes the frame that opens a version."""
    return lambda number: kind(number, source.name, str(source.path), source.origin, source.version)


def _submissions(model: str, request: Request) -> Iterator[Submission]:
    """The frames for a request, whose items are of one kind."""
    first = request.items[0]
    make: Callable[..., Submission] = submission
    if not isinstance(first, Tokens):
        make = image_submission if isinstance(first, Pixels) else tensor_submission
    ends = list(_ends_of_parts(request.items))
    for begin, end in pairwise([0, *ends]):
        yield make(model, request, request.items[begin:end], more=end < ends[-1])


def _ends_of_parts(items: Sequence[Item]) -> Iterator[int]:
    """Where each part of a request's items ends: one of `_PART_BYTES`, or a larger item alone."""
    bytes_ = 0
    for at, item in enumerate(items):
        size = _bytes_of(item)
        if bytes_ and bytes_ + size > _PART_BYTES:
            yield at
            bytes_ = 0
        bytes_ += size
    yield len(items)


def _bytes_of(item: Item) -> int:
    """The bytes of an item that may have many."""
    if isinstance(item, Pixels):
        return item.values.nbytes
    return sum(one.values.nbytes for one in item.tensors.values()) if isinstance(item, TensorItem) else 0
