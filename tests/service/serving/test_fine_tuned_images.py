"""Models trained on images: loaded only with their base and golden images, and what every route answers with them."""

from __future__ import annotations

import io
import json
import shutil
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from models.errors import ArtifactError
from models.images.model import ImageModel
from models.loader import load_images
from models.registry.artifact import Golden, Manifest
from models.registry.registry import Registry
from models.runtime.placement import place
from models.source import locate
from models.training.run import run
from service.config import Settings
from service.errors import Unservable
from service.jobs.backend import JobBackend
from service.jobs.golden_check import _check
from service.serving.fine_tuned_images import FineTunedImages
from service.serving.model_manager import ModelManager
from tests.support.app import MakeApp
from tests.support.artifacts import MANIFEST
from tests.support.image_files import archive, disc, discs, image_job, tile, tiles
from tests.support.tiny_image_models import image_classifier, image_encoder, text_image_encoder

pytestmark = pytest.mark.slow

COLOURS, PARTS = "ft:tiny:local:colours", "ft:tiny:local:parts"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_encoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def base(encoder: Path) -> ImageModel:
    model = load_images(locate(f"tiny={encoder}"), place("cpu", "float32"))
    assert model is not None
    return model


@pytest.fixture(scope="module")
def jobs(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The jobs of a classifier and of a detector, by name."""
    root = tmp_path_factory.mktemp("jobs")
    made = {
        COLOURS: image_job(root / "colours", encoder, "classification", discs(20)),
        PARTS: image_job(root / "parts", encoder, "anomaly", tiles(40, 4)),
    }
    for directory in made.values():
        assert run(directory, lambda event: None) == 0, (directory / "error.json").read_text()
    return made


def manifest_of(name: str, directory: Path, **changes: Any) -> Manifest:
    result = json.loads((directory / "result.json").read_text())
    about = {key: result[key] for key in ("task", "base_version", "encoder")}
    golden, labels = Golden.from_json(result["golden"]), tuple(result["labels"])
    made = replace(MANIFEST, name=name, base="tiny", labels=labels, golden=golden, **about)
    return replace(made, hyperparameters={"kind": "images"}, **changes)


def publish(registry: Registry, name: str, directory: Path, **changes: Any) -> int:
    version = max(registry.versions(name), default=0) + 1
    manifest = manifest_of(name, directory, version=version, **changes)
    registry.publish(name, directory / "result", lambda number: manifest)
    registry.promote(name, version, by="test", why="test")
    return version


@pytest.fixture
def app(make_app: MakeApp, base: ImageModel, jobs: dict[str, Path]) -> FastAPI:
    return put_in_service(make_app(), base, jobs)


def put_in_service(app: FastAPI, base: ImageModel, jobs: dict[str, Path]) -> FastAPI:
    """The application with the base, the classifier and the detector."""
    manager: ModelManager = app.state.manager
    manager.add_images(base)
    for name, directory in jobs.items():
        publish(manager.registry, name, directory)
    manager.watcher.sync()
    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def post(client: TestClient, path: str, **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def base64(*images: bytes) -> list[str]:
    return [b64encode(one).decode() for one in images]


def test_a_classifier_answers_with_its_labels_and_says_what_is_none_of_them(client: TestClient) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    found = post(client, "/v1/classify", model=COLOURS, images=base64(disc("red", 900), stream.getvalue()))
    red, strange = found["data"]
    assert (red["label"], red["out_of_scope"]) == ("red", False)
    assert strange["out_of_scope"] is True
    assert strange["p_value"] < red["p_value"]
    assert red["labels"][0]["score"] <= red["labels"][0]["score_in_scope"]


def test_other_forms_answer_with_the_same_labels(client: TestClient) -> None:
    picture = disc("green", 0)
    response = client.post(f"/v1/classify?model={COLOURS}", content=picture, headers={"content-type": "image/png"})
    scores = {one["label"]: one["score_in_scope"] for one in response.json()["data"][0]["labels"]}
    assert max(scores, key=lambda label: scores[label]) == "green"
    hugging_face = post(client, f"/models/{COLOURS}", inputs=b64encode(picture).decode())
    assert {one["label"]: one["score"] for one in hugging_face} == pytest.approx(scores)
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": base64(picture)}
    got = client.post(
        f"/v2/models/{COLOURS}/infer", json={"inputs": [tensor | {"parameters": {"content_type": "base64"}}]}
    )
    if got.status_code == 200:
        assert got.json()["outputs"][0]["data"] == ["green"]


def test_a_detector_finds_a_defect_and_where_it_is(client: TestClient) -> None:
    found = post(
        client,
        "/v1/anomaly/score",
        model=PARTS,
        images=base64(tile(900), tile(901, defect=True)),
        maps=True,
        alpha=0.05,
    )
    good, bad = found["data"]
    assert (good["is_anomaly"], bad["is_anomaly"]) == (False, True)
    assert good["score"] < found["threshold"] <= bad["score"]
    assert found["reference"] == {"count": 32, "cached": True, "truncated": 0}
    heat = np.asarray(Image.open(io.BytesIO(b64decode(bad["anomaly_map"].partition(",")[2]))))
    assert heat[:16, :16].mean() > heat[16:, 16:].mean() + 10
    few = post(client, "/v1/anomaly/score", model=PARTS, images=base64(tile(900)), alpha=0.001)
    assert "train on at least 999 images" in few["warnings"][0]


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        (
            "/v1/anomaly/score",
            {"model": PARTS, "reference": base64(*[tile(n) for n in range(3)])},
            "reference",
            "leave",
        ),
        ("/v1/anomaly/score", {"model": PARTS, "detector": "padim"}, "detector", "leave detector out"),
        ("/v1/anomaly/score", {"model": COLOURS}, "model", "does classification with images"),
        ("/v1/classify", {"model": PARTS}, "model", "models that do classification with images: ft:"),
        ("/v1/classify", {"model": COLOURS, "labels": ["a", "b"]}, "labels", "leave labels out"),
    ],
)
def test_wrong_requests_are_refused(
    client: TestClient, path: str, body: dict[str, Any], param: str, words: str
) -> None:
    response = client.post(path, json={"images": base64(tile(0)), **body})
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]


def test_the_models_list_says_what_they_are(client: TestClient) -> None:
    found = {one["id"]: one for one in client.get("/v1/models").json()["data"]}
    assert found[COLOURS]["base"] == found[PARTS]["base"] == "tiny"
    assert found[COLOURS]["labels"] == ["blue", "green", "red"]
    assert found[COLOURS]["signature"]["inputs"][0]["name"] == "image"
    assert found[PARTS]["signature"]["outputs"] == [{"name": "score", "dtype": "float32", "shape": ["n", 1]}]


def test_versions_change_and_roll_back(app: FastAPI, client: TestClient, jobs: dict[str, Path]) -> None:
    manager: ModelManager = app.state.manager
    assert publish(manager.registry, COLOURS, jobs[COLOURS]) == 2
    manager.watcher.sync()
    assert post(client, "/v1/classify", model=COLOURS, images=base64(disc("red", 0)))["model"] == COLOURS
    assert manager.find(COLOURS).metadata.version == "v2"
    manager.registry.promote(COLOURS, 1, by="test", why="back")
    manager.watcher.sync()
    assert manager.find(COLOURS).metadata.version == "v1"
    pinned = client.post("/v1/classify", json={"model": f"{COLOURS}:v2", "images": base64(disc("red", 0))})
    assert pinned.headers["x-sonde-model"] == f"{COLOURS}:v2"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": "other"}, "which is not served here"),
        ({"base_version": "0"}, "train again"),
        ({"base": "fake", "base_version": "0"}, "expected the encoder of images"),
        ({"golden": None}, "golden inputs: differs"),
    ],
)
def test_a_version_that_does_not_fit_its_base_is_refused(
    app: FastAPI, jobs: dict[str, Path], changes: dict[str, Any], words: str
) -> None:
    manager: ModelManager = app.state.manager
    if "golden" in changes:
        golden = manifest_of(PARTS, jobs[PARTS]).golden
        changes = {"golden": replace(golden, rows=tuple((row[0] + 5,) for row in golden.rows))}
    version = publish(manager.registry, PARTS, jobs[PARTS], **changes)
    with pytest.raises(ArtifactError, match=words):
        manager.watcher._load(PARTS, version)
    assert isinstance(manager.find(PARTS), FineTunedImages), "the old one goes on serving"


def test_a_version_with_an_encoder_of_its_own_needs_no_base_and_has_an_engine(
    make_app: MakeApp, jobs: dict[str, Path], encoder: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "tuned"
    shutil.copytree(jobs[COLOURS], directory)
    shutil.copytree(encoder, directory / "result" / "encoder")
    app = make_app()
    manager: ModelManager = app.state.manager
    version = publish(manager.registry, COLOURS, directory, encoder="own", base="elsewhere")
    assert _check(manager.registry.path(COLOURS, version), "elsewhere", "cpu", "float32", tmp_path / "races") is None
    manager.watcher.sync()
    with TestClient(app) as client:
        found = post(client, "/v1/classify", model=COLOURS, images=base64(disc("red", 900)))
        assert found["data"][0]["label"] == "red"
        served = manager.find(COLOURS)
        assert isinstance(served, FineTunedImages)
        assert served.owns_engine
    shutil.copytree(jobs[PARTS], directory, dirs_exist_ok=True)
    detector = publish(manager.registry, PARTS, directory, encoder="own")
    with pytest.raises(Unservable, match="expected that encoder, got one of its own"):
        manager.watcher.fetch(PARTS, detector)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(f"engine-{PARTS}")]
    without = publish(manager.registry, COLOURS, jobs[COLOURS], encoder="own", base="elsewhere")
    with pytest.raises(Unservable, match="an encoder of its own, and there is none"):
        manager.watcher.fetch(COLOURS, without)


def test_the_workers_check_reproduces_golden_images(jobs: dict[str, Path], encoder: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    for name, directory in jobs.items():
        path = registry.path(name, publish(registry, name, directory))
        assert _check(path, f"tiny={encoder}", "cpu", "float32", tmp_path / "races.json") is None
    other = image_encoder(tmp_path / "other", "resnet")
    assert "version" in str(_check(path, f"tiny={other}", "cpu", "float32", tmp_path / "races.json"))


@pytest.fixture(scope="module")
def trainer(
    make_shared_app: MakeApp, base: ImageModel, jobs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """A client of an application with models of other kinds, too, that takes jobs."""
    app, tmp_path = put_in_service(make_shared_app(), base, jobs), tmp_path_factory.mktemp("trainer")
    for made, name in ((image_classifier, "vit"), (text_image_encoder, "clip")):
        model = load_images(locate(f"{name}={made(tmp_path / name)}"), place("cpu", "float32"))
        assert model is not None
        app.state.manager.add_images(model)
    app.state.jobs.close()
    app.state.jobs = JobBackend.open(Settings.read({"home": tmp_path}))
    with TestClient(app) as client:
        yield client
    app.state.jobs.close()


def upload(client: TestClient, tmp_path: Path) -> str:
    content = archive(tmp_path / "x.zip", discs(2)).read_bytes()
    response = client.post("/v1/files", files={"file": ("x.zip", content)}, data={"purpose": "fine-tune"})
    assert response.status_code == 200, response.text
    found: str = response.json()["id"]
    return found


def start(client: TestClient, file: str, model: str, **supervised: Any) -> Any:
    method = {"type": "supervised", "supervised": supervised}
    return client.post("/v1/fine_tuning/jobs", json={"model": model, "training_file": file, "method": method})


def test_a_job_on_images_begins_with_an_encoder_of_images(trainer: TestClient, tmp_path: Path) -> None:
    file = upload(trainer, tmp_path)
    first = start(trainer, file, "tiny", columns={"image": "photo"}).json()
    assert first["method"]["supervised"]["hyperparameters"] == {"kind": "images"}
    again = start(trainer, file, PARTS, task="anomaly").json()
    assert (again["model"], again["method"]["supervised"]["task"]) == ("tiny", "anomaly")
    found = trainer.post(f"/v1/files/{file}/check", json={"task": "classification"}).json()
    assert found["status"] in {"ok", "warn"}, found


@pytest.mark.parametrize(
    ("model", "supervised", "words"),
    [
        ("vit", {}, "an encoder of images alone"),
        ("clip", {}, "an encoder of images alone"),
        ("fake", {"hyperparameters": {"kind": "images"}}, "images need an encoder of images"),
        ("tiny", {"task": "embedding"}, "classification or anomaly for images"),
        ("tiny", {"task": "forecast", "hyperparameters": {"horizon": 2}}, "classification or anomaly for images"),
        ("tiny", {"hyperparameters": {"kind": "series"}}, "leave kind out"),
        ("tiny", {"hyperparameters": {"mode": "frozen", "lora_rank": 4}}, "tunes nothing"),
        ("tiny", {"columns": {"text": "a"}}, "among image, label"),
        ("tiny", {"task": "anomaly", "hyperparameters": {"normal_label": "a", "anomaly_label": "b"}}, "normal_label"),
    ],
)
def test_jobs_on_images_that_mean_nothing_are_refused(
    trainer: TestClient, tmp_path: Path, model: str, supervised: dict[str, Any], words: str
) -> None:
    response = start(trainer, upload(trainer, tmp_path), model, **supervised)
    assert response.status_code == 422, response.text
    assert words in response.json()["error"]["message"]
