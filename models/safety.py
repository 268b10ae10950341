"""What a model directory may hold: safetensors, JSON and known classes; no pickle, code or link elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from models.errors import ModelSourceError, UnsafeModelError
from models.filesystem import JsonT, read_json
from models.kinds import require_served_kind

# Pickles, archives of pickles, and libraries: reading these can run code.
_SUFFIXES = "bin ckpt dill h5 joblib keras npy npz pickle pkl pt pt2 pth so"
PICKLES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
WEIGHTS = "model.safetensors"
# Repositories often have both; every loader then takes the safetensors.
_PASSED_OVER = "pytorch_model.bin"
# A tokenizer of 256,000 pieces has 35 MB.
_MAX_SETTINGS_BYTES = 128 << 20
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
_MAX_WEIGHTS_BYTES = 256 << 30
_CLASSES = {
    "base": ("Transformer", "Dense", "Normalize"),
    "sentence_transformer": ("Pooling", "CNN", "Dropout", "LayerNorm", "LSTM", "WeightedLayerPooling", "CLIPModel"),
}
_CONFIGS = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
_ACTIVATION = re.compile(r"torch\.nn\.(modules\.(activation|linear)\.)?[A-Za-z0-9]+", re.ASCII)


def _spellings(package: str, name: str) -> set[str]:
    """The names that versions 2 to 6 of sentence-transformers wrote for a class."""
    file = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    old, new = f"sentence_transformers.models.{name}", f"sentence_transformers.{package}.modules"
    shared = f"sentence_transformers.sentence_transformer.modules.{name}"
    return {old, f"{old}.{name}", shared, f"{new}.{name}", f"{new}.{file}.{name}"}


MODULE_CLASSES = frozenset().union(*(_spellings(package, one) for package, names in _CLASSES.items() for one in names))


def require_safe(root: Path) -> list[Path]:
    """The safetensors weights of a directory.

    Raises UnsafeModelError if it needs pickle or code or leads elsewhere, and ModelSourceError for what is too large.
    """
    files = [path for path in sorted(root.rglob("*")) if path.is_file() or path.is_symlink()]
    weights = [path for path in files if path.suffix == ".safetensors" and path.is_file()]
    pickles = [path for path in files if path.suffix.lower() in PICKLES and not _is_passed_over(path)]
    if pickles or not weights:
        raise _no_safetensors(root, pickles)
    require_inside(root, files)
    files = [path for path in files if path.is_file()]
    _require_sizes(root, files, weights)
    require_served_kind(root)
    for path in files:
        require_safe_settings(path, path.relative_to(root.parent).as_posix())
    for module in _read_json(root / "modules.json", list):
        require_inside(root, [root / str(module.get("path", ""))])
    return weights


def require_inside(root: Path, paths: Iterable[Path]) -> None:
    """Raise UnsafeModelError for paths that lead out of a directory, except to the hub cache's own blobs."""
    inside = [root.resolve()]
    snapshots = inside[0].parent
    if snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
        inside.append(snapshots.parent / "blobs")
    for path in paths:
        found = path.resolve()
        if not any(found.is_relative_to(one) for one in inside):
            raise UnsafeModelError(
                f"{root.name}: expected files of its own, but {_relative_name(root, path)} leads to {found}; "
                "copy the file into the directory",
                param="model",
            )


def require_safe_settings(path: Path, name: str) -> None:
    """Raise UnsafeModelError for a JSON file, called `name`, that names code, unknown classes or other models."""
    if path.name == "adapter_config.json":
        raise UnsafeModelError(
            f"{name} names another model, which is not checked: merge the adapter into its model", param="model"
        )
    if path.name == "modules.json":
        for module in _read_json(path, list):
            _require_known_class(module, name)
    if path.name in _CONFIGS:
        _require_no_code(_read_json(path, dict), name)
    if path.name.endswith(".safetensors.index.json"):
        parts = _read_json(path, dict).get("weight_map")
        require_inside(path.parent, [path.parent / str(part) for part in (parts or {}).values()])


def _require_known_class(module: object, name: str) -> None:
    kind = module.get("type") if isinstance(module, dict) else module
    if kind not in MODULE_CLASSES:
        known = ", ".join(one for names in _CLASSES.values() for one in names)
        raise UnsafeModelError(
            f"{name} names {kind!r}: only these sentence_transformers modules are loaded: {known}", param="model"
        )


def _require_no_code(settings: dict[str, object], name: str) -> None:
    if "auto_map" in settings and not _is_of_transformers(settings):
        raise UnsafeModelError(
            f"{name} has 'auto_map': the model wants code of its own, which is never run", param="model"
        )
    activation = settings.get("activation_function")
    if isinstance(activation, str) and activation.startswith("torch.") and not _ACTIVATION.fullmatch(activation):
        raise UnsafeModelError(
            f"{name} names the activation {activation[:100]!r}: expected one of torch.nn", param="model"
        )


def _is_of_transformers(config: dict[str, object]) -> bool:
    """Whether transformers has a configuration's architecture itself, so that it is loaded without the model's code."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return config.get("model_type") in CONFIG_MAPPING_NAMES


def _require_sizes(root: Path, files: list[Path], weights: list[Path]) -> None:
    for path in files:
        size, is_settings = path.stat().st_size, path.suffix in (".json", ".txt", ".model")
        if is_settings and size > _MAX_SETTINGS_BYTES:
            expected = f"at most {_MAX_SETTINGS_BYTES:,} bytes of settings or vocabulary"
            raise ModelSourceError(f"{_relative_name(root, path)}: expected {expected}, got {size:,}", param="model")
    total = sum(path.stat().st_size for path in weights)
    if total > _MAX_WEIGHTS_BYTES:
        raise ModelSourceError(
            f"{root.name}: expected at most {_MAX_WEIGHTS_BYTES:,} bytes of weights, got {total:,}", param="model"
        )
    for path in weights:
        _require_whole_header(path, f"{root.name}/{_relative_name(root, path)}")


def _require_whole_header(path: Path, name: str) -> None:
    """Raise ModelSourceError for a header of safetensors that declares more bytes than the file has."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(max(size - 8, 0), _MAX_HEADER_BYTES):
            raise _header_error(name, f"a header within its {size:,} bytes", f"one of {length:,}")
        try:
            header = json.loads(file.read(length) or b"{}")
            ends = [int(one["data_offsets"][1]) for key, one in header.items() if key != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise _header_error(name, "a header of safetensors", "another one") from None
    if ends and 8 + length + max(ends) > size:
        raise _header_error(name, f"tensors within its {size:,} bytes", f"{max(ends):,} bytes of them")


def _header_error(name: str, expected: str, got: str) -> ModelSourceError:
    return ModelSourceError(f"{name}: expected {expected}, got {got}; copy the file again", param="model")


def _is_passed_over(path: Path) -> bool:
    return path.name == _PASSED_OVER and (path.parent / WEIGHTS).is_file()


def _no_safetensors(root: Path, pickles: list[Path]) -> UnsafeModelError:
    names = ", ".join(_relative_name(root, path) for path in pickles[:5])
    found = f"found {names}: pickles or libraries, which can run code" if pickles else "found none"
    remedy = "convert the model first, and leave these files out" if pickles else "convert the model first"
    return UnsafeModelError(f"{root.name}: expected weights in .safetensors, {found}; {remedy}", param="model")


def _relative_name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _read_json(path: Path, kind: type[JsonT]) -> JsonT:
    try:
        return read_json(path, kind)
    except ValueError as error:
        raise ModelSourceError(f"{path.parent.name}/{error}", param="model") from error
