"""Model directories: nothing but safetensors, JSON and known classes is loaded, and all of it from inside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.errors import ModelSourceError, UnsafeModelError
from models.loader import load
from models.runtime.placement import place
from models.safety import MODULE_CLASSES, PICKLES
from models.source import locate
from tests.support import tiny_models


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.encoder(tmp_path_factory.mktemp("safety") / "tiny", dense=16)


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A sentence-transformers directory with a Dense module, of the test's own."""
    target = tmp_path / "model"
    for path in made.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(made)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return target


def _load(model: Path) -> None:
    load(locate(str(model)), place("cpu", "float32"))


def test_a_safe_model_is_loaded(model: Path) -> None:
    _load(model)


def _dense_as_pickle(model: Path) -> None:
    weights = model / "2_Dense" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()


def _module(kind: str) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        _change_json(model / "modules.json", lambda modules: modules[2].update(type=kind))

    return change


def _change_json(path: Path, change: Callable[[list[dict[str, object]]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _linked(name: str) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        outside = model.parent / "outside"
        outside.mkdir()
        (model / name).rename(outside / "moved")
        (model / name).symlink_to(outside / "moved")

    return change


def _path_outside(model: Path) -> None:
    (model / "2_Dense").rename(model.parent / "2_Dense")
    _change_json(model / "modules.json", lambda modules: modules[2].update(path="../2_Dense"))


def _adapter(model: Path) -> None:
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere", "peft_type": "LORA"}')


def _activation(model: Path) -> None:
    path = model / "2_Dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"activation_function": "torch.testing._internal.Evil"}))


def _shard_outside(model: Path) -> None:
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "../elsewhere.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_dense_as_pickle, r"2_Dense/pytorch_model\.bin"),
        (_module("sentence_transformers.base.modules.module.torch"), r"module\.torch"),
        (_module("sentence_transformers.util.http_get"), "http_get"),
        (_module("sentence_transformers.base.modules.Router"), "Router"),
        (_linked("model.safetensors"), "leads to"),
        (_linked("2_Dense"), "leads to"),
        (_linked("2_Dense/model.safetensors"), "leads to"),
        (_linked("tokenizer.json"), "leads to"),
        (_path_outside, "leads to"),
        (_shard_outside, "leads to"),
        (_adapter, "merge the adapter"),
        (_activation, "activation"),
    ],
)
def test_what_leads_to_pickle_code_or_elsewhere_is_refused(
    model: Path, change: Callable[[Path], None], message: str
) -> None:
    change(model)
    with pytest.raises(UnsafeModelError, match=message):
        _load(model)


@pytest.mark.parametrize("place", ["", "2_Dense", "deep/below"])
@pytest.mark.parametrize("suffix", [*sorted(PICKLES), ".BIN"])
def test_pickles_are_refused_anywhere(model: Path, place: str, suffix: str) -> None:
    (model / place).mkdir(parents=True, exist_ok=True)
    (model / place / f"anything{suffix}").write_bytes(b"")
    with pytest.raises(UnsafeModelError, match=r"anything\."):
        locate(str(model))


def test_a_pickle_beside_the_same_weights_is_never_opened(model: Path) -> None:
    for folder in (model, model / "2_Dense"):
        (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    _load(model)


def test_a_link_within_the_directory_is_loaded(model: Path) -> None:
    (model / "model.safetensors").rename(model / "weights")
    (model / "model.safetensors").symlink_to("weights")
    _load(model)


def _as_hub_cache(model: Path, repository: Path) -> Path:
    """The files as the hub's cache lays them out: blobs, and a snapshot of links to them."""
    snapshot, blobs = repository / "snapshots" / ("a" * 40), repository / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(path for path in sorted(model.rglob("*")) if path.is_file()):
        link = snapshot / path.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    return snapshot


def test_the_hub_cache_is_loaded_with_its_links(model: Path, tmp_path: Path) -> None:
    _load(_as_hub_cache(model, tmp_path / "models--team--tiny"))


def test_a_link_from_one_hub_repository_to_another_is_refused(model: Path, tmp_path: Path) -> None:
    snapshot = _as_hub_cache(model, tmp_path / "models--team--tiny")
    other = tmp_path / "models--team--other" / "blobs" / "x"
    other.parent.mkdir(parents=True)
    (snapshot / "model.safetensors").resolve().rename(other)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(other)
    with pytest.raises(UnsafeModelError, match="leads to"):
        locate(str(snapshot))


def test_every_class_is_one_of_sentence_transformers() -> None:
    current = [name for name in MODULE_CLASSES if ".models." not in name]
    found = {getattr(import_module(module), name) for module, _, name in (one.rpartition(".") for one in current)}
    assert len(found) == 10
    assert all(issubclass(one, torch.nn.Module) for one in found)
    old = {f"sentence_transformers.models.{one.__name__}" for one in found}
    assert old <= MODULE_CLASSES


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "2_Dense/config.json"])
def test_huge_settings_are_refused_unread(model: Path, name: str) -> None:
    with (model / name).open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelSourceError, match=r"expected at most 134,217,728 bytes .*1,099,511,627,776"):
        locate(str(model))


def test_huge_weights_are_refused_unread(model: Path) -> None:
    with (model / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelSourceError, match="bytes of weights"):
        locate(str(model))


def _write_header(path: Path, header: dict[str, object], length: int | None = None) -> None:
    content = json.dumps(header).encode()
    path.write_bytes((len(content) if length is None else length).to_bytes(8, "little") + content + b"\0" * 16)


@pytest.mark.parametrize("folder", ["", "2_Dense"])
def test_headers_that_declare_terabytes_are_refused(model: Path, folder: str) -> None:
    weights = model / folder / "model.safetensors"
    _write_header(weights, {}, length=1 << 40)
    with pytest.raises(ModelSourceError, match=r"a header .*1,099,511,627,776"):
        locate(str(model))
    tensor = {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 1 << 42]}
    _write_header(weights, {"linear.weight": tensor})
    with pytest.raises(ModelSourceError, match=r"4,398,046,511,104"):
        locate(str(model))


def test_a_header_that_is_no_json_is_named(model: Path) -> None:
    (model / "model.safetensors").write_bytes((8).to_bytes(8, "little") + b"{" * 8)
    with pytest.raises(ModelSourceError, match=r"model\.safetensors"):
        locate(str(model))
