"""The loader: which class runs a directory, and several models in one place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from models.errors import ModelError, ModelSourceError, UnsafeModelError
from models.loader import load, open_models
from models.metadata import Task
from models.runtime.placement import place
from models.source import locate
from models.text.encoder import Encoder
from models.text.packed.encoder import PackedEncoder
from models.text.sequence_classifier import SequenceClassifier
from tests.support import tiny_models

pytestmark = pytest.mark.slow

CPU32 = place("cpu", "float32")


@pytest.mark.parametrize(
    ("make", "runs", "task"),
    [
        (tiny_models.encoder, PackedEncoder, "embedding"),
        (tiny_models.transformer, Encoder, "embedding"),
        (tiny_models.classifier, SequenceClassifier, "classification"),
        (tiny_models.cross_encoder, SequenceClassifier, "rerank"),
    ],
)
def test_a_directory_is_run_by_what_lies_in_it(tmp_path: Path, make: object, runs: type, task: Task) -> None:
    source = locate(f"mine={make(tmp_path / 'model')}")  # type: ignore[operator]  # one of the four above
    model = load(source, CPU32)
    assert isinstance(model, runs)
    assert (model.metadata.task, model.metadata.name, model.metadata.version) == (task, "mine", source.version)
    assert (model.metadata.device, model.metadata.dtype, model.metadata.reason) == ("cpu", "float32", CPU32.reason)
    assert model.forward(model.text.encode(["a card", "x"])).shape == (2, model.metadata.width)


@pytest.mark.parametrize(
    "architectures", [None, [], ["BertModel"], ["BertForMaskedLM"], "BertForSequenceClassification"]
)
def test_only_a_stated_classifier_is_one(tmp_path: Path, architectures: object) -> None:
    path = tiny_models.encoder(tmp_path / "model")
    config = path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": architectures}))
    assert load(locate(str(path)), CPU32).metadata.task == "embedding"


def test_a_transformer_may_lie_in_a_folder_of_its_own(tmp_path: Path) -> None:
    path = tiny_models.encoder(tmp_path / "model")
    modules = json.loads((path / "modules.json").read_text())
    stays = {"modules.json", "config_sentence_transformers.json"}
    (path / "0_Transformer").mkdir()
    for file in [file for file in path.iterdir() if file.is_file() and file.name not in stays]:
        shutil.move(file, path / "0_Transformer" / file.name)
    (path / "modules.json").write_text(json.dumps([{**modules[0], "path": "0_Transformer"}, *modules[1:]]))
    model = load(locate(str(path)), CPU32)
    assert isinstance(model, Encoder)
    assert model.metadata.width == tiny_models.WIDTH


def test_several_models_are_loaded_one_after_another(tmp_path: Path) -> None:
    specs = [
        f"first={tiny_models.encoder(tmp_path / 'a')}",
        f"second={tiny_models.classifier(tmp_path / 'b')}",
        f"third={tmp_path / 'missing'}",
    ]
    models = open_models(map(locate, specs), "cpu", "float32", 0)
    assert [next(models).metadata.name, next(models).metadata.name] == ["first", "second"]
    with pytest.raises(ModelSourceError, match="there is no directory"):
        next(models)


@pytest.mark.parametrize(("make", "times"), [(tiny_models.encoder, 2), (tiny_models.classifier, 1)])
def test_what_a_model_computes_at_load_runs_in_the_context_of_the_caller(
    make: Callable[[Path], Path], times: int, tmp_path: Path
) -> None:
    inside: list[bool] = []

    @contextmanager
    def checking() -> Iterator[None]:
        inside.append(True)
        yield
        inside.append(False)

    [_] = open_models([locate(str(make(tmp_path / "model")))], "cpu", "float32", 0, checking)
    assert inside == [True, False] * times


def test_an_unsafe_model_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeModelError):
        list(open_models(map(locate, [str(tmp_path)]), "cpu", "float32", 0))


def test_a_device_that_is_not_there_is_told_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="'cuda' was asked for"):
        next(open_models(map(locate, ["/no/such/directory"]), "cuda", "auto", 0))


@pytest.mark.parametrize(("threads", "told"), [(0, []), (3, [3])])
def test_threads_are_set_where_a_number_is_given(
    monkeypatch: pytest.MonkeyPatch, threads: int, told: list[int]
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    assert list(open_models([], "cpu", "float32", threads)) == []
    assert seen == told
