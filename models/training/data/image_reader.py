"""Files of images as rows: ZIP archives, JSONL with data URIs, and Parquet with bytes.

An image's row has its key in place of a text: the hash of its bytes. So rows of images are split, compared and counted
as those of texts are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from pybase64 import b64decode

from models.counted import counted
from models.errors import ImageError
from models.images.pixels import Pixels
from models.images.reader import FORMATS, ImageLimits, read_image
from models.runtime import cpu
from models.signatures import PARQUET, START_BYTES, ZIP, content_of
from models.training.data.file_format import find_format
from models.training.data.file_reader import FileReader
from models.training.data.image_archive import MAX_IMAGES, FoundImage, ImageArchive, OnFault
from models.training.data.row_layout import IMAGE, LABEL, check_image_columns
from models.training.data.row_parser import MAX_LABEL_CHARACTERS
from models.training.data.rows import RowKind, TextRows
from models.training.errors import TrainingDataError, data_error, quote
from models.training.images.store import ImageStore

Decode = Callable[[bytes, ImageLimits, str], Pixels]
LIMITS = ImageLimits()
# Encoded images in memory at a time; threads decode one each.
_AT_ONCE = 16
_MAX_FAULTS = 100
_FORMATS = "a ZIP archive, JSONL or Parquet of images"
_SMALL = 64
# Base64 takes four bytes for three.
_MAX_LINE_BYTES = LIMITS.max_bytes * 4 // 3 + 4096


class ImageReader:
    """Reads the files of one job. `decode` makes what its network reads of encoded images; `store` keeps that."""

    def __init__(self, task: str, decode: Decode, store: ImageStore) -> None:
        self._task = task
        self._decode = decode
        self.store = store

    def rows(self, path: Path, columns: Mapping[str, str], param: str) -> TextRows:
        """The rows of a file, each with an image's key for a text.

        Raises TrainingDataError for the first row that cannot be used; its message names the others.
        """
        faults: list[TrainingDataError] = []
        found = self._collect(path, columns, param, faults)
        if faults:
            faults[0].add([fault.message for fault in faults[1:]])
            raise faults[0]
        return found.rows()

    def faults(self, path: Path, columns: Mapping[str, str], param: str) -> list[TrainingDataError]:
        """The faults of all rows, up to 100; one that ends the reading is the last one."""
        faults: list[TrainingDataError] = []
        try:
            found = self._collect(path, columns, param, faults)
            if not faults:
                found.rows()  # raises where there are none
        except TrainingDataError as error:
            faults.append(error)
        return faults

    def _collect(self, path: Path, columns: Mapping[str, str], param: str, faults: list[TrainingDataError]) -> _Rows:
        check_image_columns(columns)
        found = _Rows(param)
        source = _open(path, columns, param, faults.append)
        with ThreadPoolExecutor(cpu.count_cores()) as pool:
            for batch in _batches(source):
                decoded = pool.map(partial(self._read, param, source.unit), batch)
                for image, pixels in zip(batch, decoded, strict=True):
                    if isinstance(pixels, TrainingDataError):
                        faults.append(pixels)
                        continue
                    key = hashlib.blake2b(image.data, digest_size=16).hexdigest()
                    self.store.add(key, image.name, pixels)
                    found.add(image, key)
                if len(faults) >= _MAX_FAULTS:
                    break
        found.left_out = source.left_out
        return found

    def _read(self, param: str, unit: str, image: FoundImage) -> Pixels | TrainingDataError:
        """The decoded image, or why it cannot be used."""
        place = f"{unit} {image.line}, {quote(image.name)}" if image.name else f"{unit} {image.line}"
        if self._task == "classification" and not image.label:
            expected = "an image in a folder that is named as its label" if unit == ImageArchive.unit else "a label"
            return TrainingDataError("no_label", f"{place}: expected {expected}, got none", param, line=image.line)
        if len(image.label) > MAX_LABEL_CHARACTERS:
            message = f"{place}: expected a label of at most {MAX_LABEL_CHARACTERS} characters, got more"
            return TrainingDataError("label_too_long", message, param, line=image.line)
        try:
            return self._decode(image.data, LIMITS, place)
        except ImageError as error:
            return TrainingDataError(error.code, error.message, param, line=image.line)


class _Rows:
    """Rows as they are found."""

    def __init__(self, param: str) -> None:
        self._param = param
        self._keys: list[str] = []
        self._labels: list[str] = []
        self._lines: list[int] = []
        self.left_out: Sequence[str] = ()

    def add(self, image: FoundImage, key: str) -> None:
        self._keys.append(key)
        self._labels.append(image.label)
        self._lines.append(image.line)

    def rows(self) -> TextRows:
        if not self._keys:
            raise data_error(self._param, "no_rows", "at least one image", "none")
        labels = self._labels if any(self._labels) else None
        kind: RowKind = "plain" if labels is None else "labelled"
        return TextRows(kind, [self._keys], labels, None, self._lines, self._notes(), inputs="images")

    def _notes(self) -> tuple[str, ...]:
        if not self.left_out:
            return ()
        files = counted(len(self.left_out), "file was", "files were")
        return (f"{files} left out, whose name does not end as an image's: first {quote(self.left_out[0])}",)


class _Records:
    """Images of a JSONL or Parquet file: a data URI, base64, or bytes in each row's column."""

    left_out: tuple[str, ...] = ()

    def __init__(self, path: Path, columns: Mapping[str, str], param: str, on_fault: OnFault) -> None:
        form = find_format(path, None, param)
        if form not in ("jsonl", "parquet"):
            raise data_error(param, "wrong_format", _FORMATS, form)
        self._image, self._label = columns.get(IMAGE, IMAGE), columns.get(LABEL, LABEL)
        self._file = FileReader(path, form, param, MAX_IMAGES, _MAX_LINE_BYTES, on_fault)
        self._on_fault = on_fault

    @property
    def unit(self) -> str:
        return self._file.unit

    def __iter__(self) -> Iterator[FoundImage]:
        for line, record in self._file.records(wanted=(self._image, self._label)):
            try:
                data, name = self._bytes_of(line, record)
            except TrainingDataError as error:
                self._on_fault(error)
                continue
            label = record.get(self._label)
            yield FoundImage(line, name, "" if label is None else str(label), data)

    def _bytes_of(self, line: int, record: Mapping[str, object]) -> tuple[bytes, str]:
        """The bytes of a row's image, and its name where it has one."""
        value = record.get(self._image)
        if isinstance(value, dict):  # a column of images as the library `datasets` writes it
            return self._checked(value.get("bytes"), line), str(value.get("path") or "")
        if isinstance(value, str):
            head, comma, content = value.partition(",")
            try:
                return b64decode(content if comma else head, validate=True), ""
            except ValueError:
                value = f"the text {quote(value)}"
        return self._checked(value, line), ""

    def _checked(self, value: object, line: int) -> bytes:
        if isinstance(value, bytes):
            return value
        got = "nothing" if value is None else value if isinstance(value, str) else f"a {type(value).__name__}"
        raise data_error(
            self._file.param,
            "no_image",
            "an image as a data URI, base64 or bytes",
            got,
            line=line,
            column=self._image,
            unit=self._file.unit,
        )


@contextmanager
def small_reader(task: str) -> Iterator[ImageReader]:
    """A reader that keeps small copies of the images for a while: for checks without a network."""
    with TemporaryDirectory() as directory:
        store = ImageStore(Path(directory) / "images")
        try:
            yield ImageReader(task, read_small, store)
        finally:
            store.close()


def stated_pixels(path: Path, columns: Mapping[str, str], param: str) -> int:
    """The pixels of all images of a file by their headers; what cannot be opened counts as none.

    Raises TrainingDataError for a file that cannot be read.
    """
    return sum(_pixels_of(image.data) for image in _open(path, columns, param, lambda fault: None))


def _pixels_of(data: bytes) -> int:
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # Pillow raises a dozen classes for broken files, which the check names
        return 0


def read_small(data: bytes, limits: ImageLimits, param: str) -> Pixels:
    """A small copy of an image, for checks without a network. Raises ImageError."""
    small = read_image(data, limits, param, side=_SMALL).resize((_SMALL, _SMALL))
    return Pixels(np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1)))


def _open(path: Path, columns: Mapping[str, str], param: str, on_fault: OnFault) -> ImageArchive | _Records:
    with path.open("rb") as file:
        content = content_of(file.read(START_BYTES))
    if content == ZIP and path.suffix.lower() != ".xlsx":
        return ImageArchive(path, param, LIMITS.max_bytes, on_fault)
    if not path.stat().st_size:
        raise data_error(param, "no_rows", "at least one image", "an empty file")
    if content not in (None, PARQUET, ZIP):  # the last is a workbook, which `_Records` names
        raise data_error(param, "wrong_format", _FORMATS, str(content))
    return _Records(path, columns, param, on_fault)


def _batches(images: Iterable[FoundImage]) -> Iterator[list[FoundImage]]:
    rest = iter(images)
    while batch := list(islice(rest, _AT_ONCE)):
        yield batch
