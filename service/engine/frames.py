"""Frames between the fronts and the engine: msgpack behind a length, over one socket for each front.

A front opens models, submits token ids and cancels. The engine answers with rows as raw float32 bytes, or with the code
of an error. Deadlines are seconds of the system's monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from models import errors as model_errors
from models.errors import SondeError
from models.metadata import ModelMetadata
from service import errors
from service.engine.request import Request

# Both directions: the largest are the rows of 2,048 inputs, and the JSON of a multilingual tokenizer.
MAX_FRAME_BYTES = 512 * 2**20
_LENGTH = struct.Struct("<I")


class Frame(msgspec.Struct, tag=True, array_like=True, gc=False):
    """A frame; `number` is the front's own for the exchange."""

    number: int


class OpenConfigured(Frame):
    """Wants the model at `index` of `--model`; answered by `Opened` or `Failed` once it is loaded."""

    index: int


class OpenVersion(Frame):
    """Wants the encoder in a directory of the registry; `digest` is its version. Answered as `OpenConfigured`."""

    name: str
    path: str
    origin: str
    digest: str


class OpenProgram(OpenVersion):
    """Wants the exported program in a file of the registry, in place of an encoder."""


class CloseModel(Frame):
    """Needs a model no longer."""

    model: str


class Submission(Frame):
    """Items of a request for rows of the engine's `model`. With `more`, others of its number follow."""

    model: str
    client: str
    deadline: float | None
    patience_s: float | None
    bulk: bool
    more: bool


class Submit(Submission):
    """Token ids, int32, one after the other; `lengths` int32 and `prompt_tokens` int32 are per item.

    `types`, int32 like `ids`, is empty where no item has token types.
    """

    ids: bytes
    lengths: bytes
    prompt_tokens: bytes
    types: bytes


class SubmitImages(Submission):
    """Pixels, uint8 [3, height, width] each, one after the other.

    `heights`, `widths` and `steps` are int32 and per image.
    """

    pixels: bytes
    heights: bytes
    widths: bytes
    steps: bytes


class TensorPart(msgspec.Struct, array_like=True, gc=False):
    """A tensor of a program: its raw values in C order; of bfloat16, its bits."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: memoryview


class SubmitTensors(Submission):
    """The inputs of each item, by name."""

    items: tuple[tuple[TensorPart, ...], ...]


class Cancel(Frame):
    """The caller of a submission waits no longer."""


class OpenedPatches(msgspec.Struct, array_like=True, gc=False):
    """The patch features of an encoder of images, which are another model of the engine."""

    metadata: ModelMetadata
    channels: int


class Opened(Frame):
    """A model that the engine holds for this front: its metadata, and its tokenizer as JSON.

    `tokenizer` is empty where it reads no texts. `ends` are the tokens that end the texts that a recogniser writes.
    `program` has the contract and the description of a program (`tensor_frames`).
    """

    metadata: ModelMetadata
    memory_bytes: int
    tokenizer: str
    ends: tuple[int, ...] = ()
    patches: OpenedPatches | None = None
    program: bytes = b""


class Rows(Frame):
    """The rows of a submission, float32 [n, width], the engine's speed now, and the outputs of each item of tensors."""

    rows: bytes
    queue_s: float
    inference_s: float
    tokens_per_s: float
    outputs: tuple[tuple[TensorPart, ...], ...] = ()


class Deadline(Frame):
    """A batch of a patient caller was computed: its deadline has moved."""

    deadline: float


class Failed(Frame):
    """A submission or an opening has failed."""

    code: str
    message: str
    param: str | None
    retry_after_s: int | None


class Draining(Frame):
    """The engine ends: open submissions are answered, others go to the next engine."""


ToEngine = OpenConfigured | OpenVersion | OpenProgram | CloseModel | Submit | SubmitImages | SubmitTensors | Cancel
ToFront = Opened | Rows | Deadline | Failed | Draining
to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
to_front: msgspec.msgpack.Decoder[ToFront] = msgspec.msgpack.Decoder(ToFront)
_encoder = msgspec.msgpack.Encoder()

# The errors that an engine raises, by their code.
_ERRORS: dict[str, type[SondeError]] = {
    kind.code: kind
    for kind in (
        model_errors.ModelError,
        model_errors.ModelSourceError,
        model_errors.UnsafeModelError,
        model_errors.ModelOutOfMemory,
        model_errors.DeviceLost,
        model_errors.ArtifactError,
        model_errors.TensorError,
        errors.Overloaded,
        errors.Unavailable,
        errors.DeadlineExceeded,
        errors.ClientGone,
        errors.BackendError,
        errors.InvalidOutput,
        errors.ConfigError,
    )
}


def header(model: str, request: Request, *, more: bool) -> tuple[int, str, str, float | None, float | None, bool, bool]:
    """The fields that all submissions begin with."""
    return request.number, model, request.client, request.deadline, request.patience_s, request.bulk, more


class FrameTooLong(Exception):
    """A length beyond the limit: the connection is of no use any more."""


def encode(frame: Frame) -> bytearray:
    """The bytes of a frame. Raises FrameTooLong."""
    content = bytearray()
    _encoder.encode_into(frame, content, _LENGTH.size)
    if (length := len(content) - _LENGTH.size) > MAX_FRAME_BYTES:
        raise FrameTooLong(f"a frame of {length} bytes, {MAX_FRAME_BYTES} are allowed")
    _LENGTH.pack_into(content, 0, length)
    return content


class FrameBuffer:
    """Collects received bytes and gives out whole frames."""

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self._limit = limit
        self._received = bytearray()

    def feed(self, data: bytes | bytearray) -> Iterator[bytes]:
        """The bodies that are complete now. Raises FrameTooLong at a length beyond the limit."""
        received = self._received
        received += data
        at = 0
        try:
            while len(received) - at >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(received, at)
                if length > self._limit:
                    raise FrameTooLong(f"a frame of {length} bytes, {self._limit} are allowed")
                if len(received) - at - _LENGTH.size < length:
                    return
                begin, at = at + _LENGTH.size, at + _LENGTH.size + length
                with memoryview(received) as view:  # a slice of a bytearray would be one more copy
                    body = bytes(view[begin:at])
                yield body
        finally:
            del received[:at]

    @property
    def torn(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._received)


def failure(number: int, error: BaseException) -> Failed:
    """The frame of an error. An error that is not Sonde's is a BackendError to the front."""
    if not isinstance(error, SondeError):
        error = errors.BackendError("the engine failed on this request")
    return Failed(number, error.code, error.message, error.param, getattr(error, "retry_after_s", None))


def error_of(frame: Failed) -> SondeError:
    """The error of a frame; one of an unknown code is a BackendError."""
    kind = _ERRORS.get(frame.code, errors.BackendError)
    error = kind(frame.message, param=frame.param)
    if isinstance(error, errors.CapacityError) and frame.retry_after_s is not None:
        error.retry_after_s = frame.retry_after_s
    return error
