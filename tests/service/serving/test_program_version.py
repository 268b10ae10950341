"""Programs of the registry: published, promoted, checked on the serving machine, swapped and rolled back."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import load_file, save_file

from models.errors import ArtifactError
from models.programs.description import Description, write_description
from models.programs.golden_tensors import GOLDEN, reproduce
from models.registry.artifact import verify
from models.registry.registry import Registry
from service.cli import main
from service.config import Settings
from service.serving.model_manager import ModelManager
from tests.support.app import served
from tests.support.programs import host, open_program, program_path

NAME = "ft:program:local:net"
BY: dict[str, Any] = {"by": "test", "why": ""}
X = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)


@dataclass
class Serving:
    """A service over a home in whose registry programs are put."""

    home: Path
    client: TestClient
    manager: ModelManager

    @property
    def registry(self) -> Registry:
        return self.manager.registry

    def promote(self, version: int) -> None:
        self.registry.promote(NAME, version, **BY)
        self.manager.watcher.sync()

    def classify(self, model: str = NAME) -> Any:
        return self.client.post("/v1/classify", json={"model": model, "rows": X.tolist()})


def _register(home: Path, folder: Path, labels: str = "", *flags: str, program: str = "mlp") -> None:
    file = folder / "net.pt2"
    shutil.copy(program_path(program), file)
    if labels:
        write_description(file, Description(task="classification", labels=tuple(labels), scores="logits"))
    assert main(["register", str(file), "net", "--home", str(home), *flags]) == 0


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Begin with a usual mask, and restore the tests' own."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    home = tmp_path / "home"
    _register(home, tmp_path, "abcd", "--promote")
    settings = Settings.read({"home": home, "host": "testserver", "model": [str(program_path("fixed"))]})
    with served(settings) as (client, manager):
        yield Serving(home, client, manager)


def test_a_registered_program_serves_its_task_under_its_name(serving: Serving) -> None:
    answer = serving.classify()
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-sonde-model"] == f"{NAME}:v1"
    expected = open_program("mlp").run({"x": host(X)})["output"].values
    assert [item["label"] for item in answer.json()["data"]] == ["abcd"[at] for at in expected.argmax(1)]
    about = serving.client.get(f"/v1/models/{NAME}").json()
    assert (about["base"], about["versions"], about["notes"]) == ("program", [1], [])
    assert about["batches"].startswith("rows of several requests share a batch")
    [version] = serving.client.get(f"/v1/models/{NAME}/versions").json()["data"]
    assert (version["task"], version["encoder"], version["job"]) == ("classification", "program", None)


def test_versions_are_swapped_rolled_back_and_named(serving: Serving, tmp_path: Path) -> None:
    held = serving.manager.find(NAME)
    _register(serving.home, tmp_path, "wxyz")
    assert serving.classify().headers["x-sonde-model"] == f"{NAME}:v1"
    assert serving.classify(f"{NAME}:v2").json()["data"][0]["label"] in "wxyz"
    serving.registry.set_alias("net", NAME)
    promoted = serving.client.post(f"/v1/models/{NAME}/promote", json={"version": 2})
    assert promoted.status_code == 200, promoted.text
    serving.manager.watcher.sync()
    assert serving.classify("net").headers["x-sonde-model"] == f"{NAME}:v2"
    assert not held.engine.failure  # a request that began with it could finish
    assert serving.client.post(f"/v1/models/{NAME}/rollback").status_code == 200
    serving.manager.watcher.sync()
    assert serving.classify().headers["x-sonde-model"] == f"{NAME}:v1"


def test_no_products_are_autotuned_for_a_program(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file says the dtypes."""
    _register(serving.home, tmp_path, "wxyz")
    autotuned: list[str] = []
    monkeypatch.setattr("models.runtime.placement.autotune_products", lambda: autotuned.append("products"))
    assert serving.classify(f"{NAME}:v2").status_code == 200
    assert not autotuned


def test_the_repository_unloads_and_loads_a_program(serving: Serving) -> None:
    assert serving.client.post(f"/v2/repository/models/{NAME}/unload").status_code == 200
    assert serving.classify().status_code == 404
    assert serving.client.post(f"/v2/repository/models/{NAME}/load").status_code == 200
    x = {"name": "x", "datatype": "FP32", "shape": [2, 16], "data": X.ravel().tolist()}
    answer = serving.client.post(f"/v2/models/{NAME}/infer", json={"inputs": [x]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model_version"] == "v1"


def _with_golden(serving: Serving, change: Callable[[dict[str, np.ndarray[Any, Any]]], None]) -> None:
    """Publish the version in service with other golden tensors, and promote that."""
    staging = serving.home / "staging"
    shutil.copytree(serving.registry.path(NAME, 1), staging)
    manifest = verify(staging)
    (staging / "manifest.json").unlink()
    tensors = load_file(staging / GOLDEN)
    change(tensors)
    save_file(tensors, staging / GOLDEN)
    serving.promote(serving.registry.publish(NAME, staging, lambda version: _numbered(manifest, version)))


def _numbered(manifest: Any, version: int) -> Any:
    return replace(manifest, version=version, files={})


def test_other_outputs_than_at_the_registration_refuse_the_swap(serving: Serving) -> None:
    def change(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
        tensors["output.output"] *= 1.01

    _with_golden(serving, change)
    assert serving.classify().headers["x-sonde-model"] == f"{NAME}:v1"
    problem = serving.manager.watcher.problem(NAME) or ""
    assert "golden inputs: output output differs by" in problem
    assert problem in serving.client.get(f"/v1/models/{NAME}").json()["notes"][0]


def test_golden_tensors_of_another_contract_refuse_the_swap(serving: Serving) -> None:
    _with_golden(serving, lambda tensors: tensors.update(extra=tensors["input.x"]))
    assert "golden inputs: expected input.x, output.output, got" in (serving.manager.watcher.problem(NAME) or "")
    assert serving.classify().status_code == 200


def test_a_version_that_cannot_read_its_images_leaves_no_engine(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its description divides so finely that the processor's float32 differs from ours; no check at load says it."""
    monkeypatch.setattr("models.loader.require_preprocessing", lambda stated, name: None)
    about = {"task": "classification", "labels": list("abc"), "scores": "logits"}
    images = {"preprocess": {"height": 8, "width": 8, "std": [1e-9] * 3, "mean": [0.3] * 3}}
    (tmp_path / "net.sonde.json").write_text(json.dumps(about | images))
    _register(serving.home, tmp_path, program="picture")
    before = [thread.name for thread in threading.enumerate()]
    assert serving.classify(f"{NAME}:v2").status_code == 503
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("engine")] == [
        name for name in before if name.startswith("engine")
    ]


def test_a_file_that_was_changed_is_not_loaded(serving: Serving) -> None:
    path = serving.registry.path(NAME, 1) / "model.sonde.json"
    path.write_text(path.read_text().replace('"a"', '"z"'))
    with pytest.raises(ArtifactError, match=r"model\.sonde\.json has SHA-256"):
        serving.registry.promote(NAME, 1, **BY)


def test_a_program_without_golden_tensors_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.programs.golden_tensors.sample_inputs", lambda contract, rows: None)
    _register(tmp_path, tmp_path)
    registry = Registry(tmp_path / "models")
    assert "without golden inputs, so a service cannot check it: no inputs were found" in capsys.readouterr().err
    assert not reproduce(registry.path(NAME, 1), open_program("mlp"))


def test_only_programs_have_a_file_of_this_kind(tmp_path: Path) -> None:
    _register(tmp_path, tmp_path)
    path = tmp_path / "models" / "ft--program--local--net" / "versions" / "1"
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "encoder": "own"}))
    with pytest.raises(ArtifactError, match=r"model\.pt2: \.pt2 files can run code"):
        verify(path)


def test_other_users_read_nothing_that_was_registered(tmp_path: Path) -> None:
    _register(home := tmp_path / "home", tmp_path, "abcd", "--promote")
    assert [path for path in (home, *home.rglob("*")) if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("name", ["a:b", "", "x" * 65])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    assert main(["register", str(program_path("mlp")), name, "--home", str(tmp_path)]) != 0
    assert not list((tmp_path / "models").glob("*")) if (tmp_path / "models").exists() else True
