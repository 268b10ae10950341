"""Routes with images: every way to send one, and every form of other services' clients."""

from __future__ import annotations

import io
import json
import shlex
from base64 import b64decode, b64encode, encodebytes
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from huggingface_hub import InferenceClient
from PIL import Image

from models.images.model import ImageModel
from models.images.processor import ImageProcessor
from models.images.reader import ImageLimits
from models.loader import load_images
from models.runtime.placement import place
from models.source import locate
from service.banner import Banner
from service.serving.model_manager import ModelManager
from tests.support.app import MakeApp
from tests.support.images import encoded, hostile, picture, png_header
from tests.support.tiny_image_models import LABELS, image_classifier, image_encoder, text_image_encoder

DATA = encoded(picture(80, 60))
OTHER = encoded(picture(80, 60, seed=1), "JPEG")
BASE64 = b64encode(DATA).decode()
BASE64_OF_OTHER = b64encode(OTHER).decode()
WITH_DEADLINE = {"x-request-timeout-ms": "9000"}
URI = f"data:image/png;base64,{BASE64}"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ImageModel]:
    """A classifier, an encoder and a CLIP, all tiny."""
    made = {"vit": image_classifier, "dino": image_encoder, "clip": text_image_encoder}
    models = {}
    for name, make in made.items():
        path = cast(Any, make)(tmp_path_factory.mktemp("models") / name)
        model = load_images(locate(f"{name}={path}"), place("cpu", "float32"))
        assert model is not None
        models[name] = model
    return models


@pytest.fixture(scope="module")
def client(make_shared_app: MakeApp, loaded: dict[str, ImageModel]) -> Iterator[TestClient]:
    app = make_shared_app()
    manager: ModelManager = app.state.manager
    for model in loaded.values():
        manager.add_images(model)
    with TestClient(app) as client:
        yield client


def answer(response: Any) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def rows(model: ImageModel, *data: bytes) -> np.ndarray[Any, Any]:
    found = model.forward([model.images.read(one, ImageLimits(), "image") for one in data])
    normalized: np.ndarray[Any, Any] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return normalized


@pytest.mark.slow
def test_an_image_can_be_sent_in_every_way(client: TestClient) -> None:
    by_json = answer(client.post("/v1/classify", json={"model": "vit", "images": [URI]}))
    scores = {label["label"]: label["score"] for label in by_json["data"][0]["labels"]}
    assert set(scores) == set(LABELS)
    assert sum(scores.values()) == pytest.approx(1)
    part = ("a.png", DATA, "image/png")
    for response in (
        client.post("/v1/classify", json={"model": "vit", "images": BASE64}),
        client.post("/v1/classify", json={"model": "vit", "images": encodebytes(DATA).decode()}),  # in lines
        client.post("/v1/classify?model=vit", content=DATA, headers={"content-type": "image/png"}),
        client.post("/v1/classify?model=vit", content=DATA, headers={"content-type": "application/octet-stream"}),
        client.post("/v1/classify", data={"model": "vit"}, files={"images": part}),
        client.post("/v1/classify", data={"model": "vit"}, files={"file": part}),
        # The general way, as deadlines take it.
        client.post(
            "/v1/classify", data={"model": "vit"}, files={"image": part}, headers={"x-request-timeout-ms": "9000"}
        ),
    ):
        assert answer(response)["data"] == by_json["data"]


@pytest.mark.parametrize("name", ["holiday photo.jpg", "bread, butter.PNG"])
def test_a_form_with_the_name_of_a_file_says_how_to_send_it(client: TestClient, name: str) -> None:
    error = client.post("/v1/classify", data={"model": "vit"}, files={"images": (None, name, None)}).json()["error"]
    assert error["param"] == "images"
    assert f"got '{name}', which names a file; curl sends the file itself with @" in error["message"]


def test_a_body_with_the_name_of_a_file_says_how_to_send_it(client: TestClient) -> None:
    for kind in ("image/jpeg", "application/octet-stream"):
        answer = client.post("/v1/classify?model=vit", content=b"holiday.jpg", headers={"content-type": kind})
        assert answer.status_code == 422, answer.text
        assert "got 'holiday.jpg', which names a file; curl sends" in answer.json()["error"]["message"]


def test_a_form_has_options_and_several_images(client: TestClient) -> None:
    files = [("images", ("a.png", DATA, "image/png")), ("images", ("b.jpg", OTHER, "image/jpeg"))]
    found = answer(client.post("/v1/classify", data={"model": "vit", "top_k": "1"}, files=files))
    assert [len(item["labels"]) for item in found["data"]] == [1, 1]


def test_clip_classifies_by_labels_of_the_request(client: TestClient, loaded: dict[str, ImageModel]) -> None:
    body = {"model": "clip", "images": [URI], "labels": {"cat": "a cat", "card": ["the card", "a card"]}}
    first, again = (answer(client.post("/v1/classify", json=body)) for _ in range(2))
    clip: Any = loaded["clip"]
    texts = clip.forward(clip.text.encode(["a cat", "the card", "a card"]))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    card = texts[1:].sum(axis=0)
    logits = np.stack([texts[0], card / np.linalg.norm(card)]) @ rows(clip, DATA)[0] * clip.metadata.zero_shot[0]
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    scores = {label["label"]: label["score"] for label in first["data"][0]["labels"]}
    assert [scores["cat"], scores["card"]] == pytest.approx(expected, abs=1e-4)
    assert (first["label_set"]["cached"], again["label_set"]["cached"]) == (False, True)


def test_embeddings_take_images_in_the_forms_of_other_services(
    client: TestClient, loaded: dict[str, ImageModel]
) -> None:
    expected = rows(loaded["clip"], DATA)[0]
    image_url = {"type": "image_url", "image_url": {"url": URI}}
    for body in (
        {"input": [URI], "modality": "image"},
        {"input": URI, "modality": "image"},
        {"input": [{"image": BASE64}]},
        {"images": [BASE64]},
        {"messages": [{"role": "user", "content": [image_url]}]},
    ):
        found = answer(client.post("/v1/embeddings", json={"model": "clip", **body}))
        np.testing.assert_allclose(found["data"][0]["embedding"], expected, atol=1e-5)
    of_cohere: list[dict[str, object]] = [{"images": [URI]}, {"inputs": [{"content": [image_url]}]}]
    for one in of_cohere:
        more = {"model": "clip", "input_type": "image", "embedding_types": ["float"]}
        found = answer(client.post("/v2/embed", json={**more, **one}))
        np.testing.assert_allclose(found["embeddings"]["float"][0], expected, atol=1e-5)
        assert found["meta"]["billed_units"]["images"] == 1


def test_embeddings_take_the_files_of_a_form_and_an_image_itself(client: TestClient) -> None:
    expected = answer(client.post("/v1/embeddings", json={"model": "dino", "images": [URI]}))["data"]
    files = [("images", ("a.png", DATA, "image/png")), ("images", ("b.jpg", OTHER, "image/jpeg"))]
    for headers in ({}, WITH_DEADLINE):
        form = client.post("/v1/embeddings", data={"model": "dino"}, files=files, headers=headers)
        alone = client.post("/v1/embeddings?model=dino", content=DATA, headers={"content-type": "image/png", **headers})
        assert len(answer(form)["data"]) == 2
        assert answer(form)["data"][0] == answer(alone)["data"][0] == expected[0]
    both = client.post("/v1/embeddings", json={"model": "dino", "images": [URI], "input": "a"})
    assert "got input and images" in both.json()["error"]["message"]
    broken = client.post("/v1/embeddings", json={"model": "dino", "images": [URI, "%"]})
    assert broken.json()["error"]["param"] == "images[1]"


def test_texts_and_images_come_in_the_order_of_the_request(client: TestClient) -> None:
    def vectors(*items: object) -> np.ndarray[Any, Any]:
        found = answer(client.post("/v1/embeddings", json={"model": "clip", "input": list(items)}))
        return np.array([item["embedding"] for item in found["data"]])

    text, image = vectors("a cat"), vectors({"image": BASE64})
    mixed = vectors({"image": BASE64}, {"text": "a cat"}, {"image": BASE64})
    np.testing.assert_allclose(mixed, np.concatenate([image, text, image]), atol=1e-5)


def test_without_a_name_the_first_model_for_images_is_taken(client: TestClient, loaded: dict[str, ImageModel]) -> None:
    response = client.post("/v1/embeddings", json={"input": URI, "modality": "image"})
    np.testing.assert_allclose(answer(response)["data"][0]["embedding"], rows(loaded["dino"], DATA)[0], atol=1e-5)
    assert response.headers["x-sonde-model"].startswith("dino:")


def test_hugging_faces_client_classifies_images(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body and headers that its client makes, sent as they are."""
    from huggingface_hub.inference import _client

    def send(self: Any, request: Any, stream: bool = False) -> bytes:
        given = dict(request.headers)
        content = json.dumps(request.json).encode() if request.data is None else bytes(request.data)
        mime = getattr(request.data, "mime_type", None)
        headers = {"content-type": mime} if mime else given
        response = client.post(request.url.removeprefix("http://testserver"), content=content, headers=headers)
        assert response.status_code == 200, response.text
        return response.content

    monkeypatch.setattr(_client.InferenceClient, "_inner_post", send)
    found = InferenceClient(model="http://testserver/models/vit").image_classification(DATA)
    best = InferenceClient(model="http://testserver/models/vit").image_classification(DATA, top_k=1)
    assert {one.label for one in found} == set(LABELS)
    assert found[0].score >= found[1].score
    assert [one.label for one in best] == [found[0].label]


@pytest.mark.parametrize("name", hostile())
def test_hostile_images_are_refused_by_name(client: TestClient, name: str) -> None:
    data = hostile()[name] or b" "
    response = client.post(
        "/v1/classify", files=[("images", ("a", DATA)), ("images", ("b", data))], data={"model": "vit"}
    )
    assert response.status_code in {413, 415, 422}
    assert response.json()["error"]["param"] == "images[1]"


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("/v1/classify", {"model": "vit", "images": ["https://a.example/b.png"]}, "images[0]", "Sonde fetches none"),
        ("/v1/classify", {"model": "vit", "images": ["%%%"]}, "images[0]", "base64"),
        ("/v1/classify", {"model": "vit", "images": ["data:text/html;base64,aa"]}, "images[0]", "data URI of an image"),
        ("/v1/classify", {"model": "vit", "images": []}, "images", "at least 1 image"),
        ("/v1/classify", {"model": "vit", "images": [URI], "input": "a"}, "images", "exactly one"),
        ("/v1/classify", {"model": "vit"}, "input", "exactly one"),
        ("/v1/classify", {"model": "vit", "images": [URI], "labels": ["a"]}, "labels", "labels of its own"),
        ("/v1/classify", {"model": "clip", "images": [URI]}, "labels", "give it labels"),
        ("/v1/classify", {"model": "dino", "images": [URI], "labels": ["a"]}, "model", "encoder of images alone"),
        ("/v1/classify", {"model": "clip", "images": [URI], "labels": ["a"]}, "labels", "expected at least 2, got 1"),
        (
            "/v1/classify",
            {"model": "clip", "images": [URI], "labels": ["a", "b"], "multi_label": True},
            "multi_label",
            "compares labels with each other: leave it out",
        ),
        ("/v1/classify", {"model": "fake", "images": [URI]}, "model", "models that do classification with images: vit"),
        ("/v1/classify", {"model": "vit", "input": "a"}, "model", "reads images, not texts"),
        ("/v1/embeddings", {"model": "dino", "input": "a"}, "model", "models that do embedding with texts: fake, clip"),
        ("/v1/embeddings", {"model": "dino", "input": [{"image": BASE64}, {"text": "a"}]}, "input[1]", "images alone"),
        ("/v1/embeddings", {"model": "fake", "input": URI, "modality": "image"}, "model", "dino, clip"),
        ("/v1/embeddings", {"model": "dino", "input": [[1, 2]], "modality": "image"}, "modality", "got token ids"),
        ("/v1/embeddings", {"model": "dino", "input": [1, 2], "modality": "image"}, "modality", "got token ids"),
        (
            "/v1/embeddings",
            {"model": "dino", "images": [URI], "prompt_name": "q"},
            "prompt_name",
            "goes with texts alone",
        ),
        ("/v1/embeddings", {"model": "clip"}, "input", "exactly one of input, images, messages"),
        ("/v1/embeddings", {"model": "clip", "messages": [{"content": []}]}, "messages[0].content", "one part"),
        ("/v2/embed", {"model": "clip", "images": ["%"]}, "images[0]", "base64"),
        ("/v1/preprocess", {"model": "fake", "images": [URI]}, "model", "not images; models that read images: vit"),
        ("/v1/preprocess", {"model": "vit", "images": [URI] * 65}, "images", "64"),
    ],
)
def test_wrong_requests_are_refused_with_the_reason(
    client: TestClient, path: str, body: dict[str, object], param: str, words: str
) -> None:
    response = client.post(path, json=body)
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize("headers", [{}, WITH_DEADLINE])
def test_preprocessing_is_shown(client: TestClient, loaded: dict[str, ImageModel], headers: dict[str, str]) -> None:
    response = client.post("/v1/preprocess", json={"model": "clip", "images": [URI, BASE64]}, headers=headers)
    [first, second] = answer(response)["data"]
    pixels = loaded["clip"].images.read(DATA, ImageLimits(), "image")
    tensor = loaded["clip"].images.normalize(torch.from_numpy(pixels.values)).numpy()
    assert (first["shape"], first["dtype"], first["device"]) == ([1, 3, 32, 32], "float32", "cpu")
    assert len(first["mean"]) == len(first["std"]) == 3
    assert [first["minimum"], first["maximum"]] == pytest.approx([tensor.min(), tensor.max()], abs=1e-5)
    with Image.open(io.BytesIO(b64decode(first["image"].partition(",")[2]))) as drawn:
        shown = np.asarray(drawn).transpose(2, 0, 1)
    np.testing.assert_array_equal(shown, pixels.values)
    mean, std = (np.array(first[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    np.testing.assert_allclose((shown * first["scale"] - mean) / std, tensor, atol=1e-5)
    assert second == {**first, "index": 1}


def test_preprocessing_needs_no_name(client: TestClient) -> None:
    response = client.post("/v1/preprocess", content=DATA, headers={"content-type": "image/png"})
    assert answer(response)["model"] == "vit"
    assert response.headers["x-sonde-model"].startswith("vit:")


def test_models_say_what_they_read(client: TestClient) -> None:
    found = answer(client.get("/v1/models/vit"))
    assert found["signature"]["inputs"][0]["shape"] == ["n", 3, 32, 32]
    assert found["labels"] == list(LABELS)


@pytest.mark.parametrize("model", ["vit", "dino", "clip"])
def test_the_command_of_the_banner_works(client: TestClient, loaded: dict[str, ImageModel], model: str) -> None:
    [command] = [line for line in Banner(keys=False).text("", [loaded[model].metadata]).split("\n") if "curl" in line]
    _, _, path, *_, data = shlex.split(command)
    answer(client.post(path, content=data, headers={"content-type": "application/json"}))


@pytest.mark.parametrize("model", ["vit", "clip"])
def test_jobs_on_images_begin_with_encoders_of_images_alone(client: TestClient, model: str) -> None:
    job = {"model": model, "training_file": "file-0"}
    response = client.post("/v1/fine_tuning/jobs", json=job)
    assert response.status_code == 422, response.text
    assert "training begins with an encoder of images alone" in response.json()["error"]["message"]
    missing = client.post("/v1/fine_tuning/jobs", json=job | {"model": "dino"})
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "training_file")


def test_classified_images_wait_until_feedback_comes(make_app: MakeApp, loaded: dict[str, ImageModel]) -> None:
    app = make_app(keep_inputs=10)
    app.state.manager.add_images(loaded["vit"])
    with TestClient(app) as client:
        classified = answer(
            client.post("/v1/classify", json={"model": "vit", "images": [BASE64, URI, BASE64_OF_OTHER]})
        )
        kept = answer(client.get("/v1/kept_inputs", params={"model": "vit"}))["data"]
        assert {one["image"] for one in kept} == {URI, f"data:image/jpeg;base64,{BASE64_OF_OTHER}"}
        assert [one["text"] for one in kept] == [None, None]
        best = [one["labels"][0]["score"] for one in classified["data"]]
        assert {one["labels"][0]["score"] for one in kept} == set(best)
        report = {"model": "vit", "image": kept[0]["image"], "correct_label": "cat"}
        answer(client.post("/v1/feedback", json=report))
        assert answer(client.get("/v1/kept_inputs"))["data"] == kept[1:]


def test_a_job_on_images_needs_feedback_with_images(client: TestClient) -> None:
    job = {"model": "dino", "training_file": "feedback:dino"}
    answer(client.post("/v1/feedback", json={"model": "dino", "text": "a", "correct_label": "b"}))
    refused = client.post("/v1/fine_tuning/jobs", json=job)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "training_file")
    answer(client.post("/v1/feedback", json={"model": "dino", "image": BASE64, "correct_label": "b"}))
    assert answer(client.post("/v1/fine_tuning/jobs", json=job))["status"] == "queued"


def test_a_large_form_is_parsed_beside_the_event_loop(client: TestClient) -> None:
    large = encoded(picture(1200, 900), "BMP")
    assert len(large) > 256 * 1024
    found = answer(client.post("/v1/classify", data={"model": "vit"}, files={"images": ("a.bmp", large)}))
    assert found["data"][0]["label"] in LABELS


def test_a_form_that_is_none_is_refused(client: TestClient) -> None:
    kind = {"content-type": "multipart/form-data; boundary=x"}
    for headers, body in ((kind, b"no form"), ({"content-type": "multipart/form-data"}, b"--x--")):
        response = client.post("/v1/classify", content=body, headers=headers)
        assert response.status_code == 422, response.text


def test_the_open_inference_protocol_takes_image_files(client: TestClient, loaded: dict[str, ImageModel]) -> None:
    def infer(model: str, *files: bytes) -> Any:
        sizes = [len(file).to_bytes(4, "little") + file for file in files]
        one = {"name": "image", "datatype": "BYTES", "shape": [len(files)]}
        header = json.dumps({"inputs": [{**one, "parameters": {"binary_data_size": len(b"".join(sizes))}}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        return client.post(f"/v2/models/{model}/infer", content=b"".join([header, *sizes]), headers=headers)

    [vectors] = answer(infer("dino", DATA, OTHER))["outputs"]
    expected = rows(loaded["dino"], DATA, OTHER)
    np.testing.assert_allclose(np.reshape(vectors["data"], vectors["shape"]), expected, rtol=1e-4, atol=1e-5)
    label, scores = answer(infer("vit", DATA))["outputs"]
    assert label["data"] == [LABELS[int(np.argmax(scores["data"]))]]
    assert sum(scores["data"]) == pytest.approx(1)
    [of_clip] = answer(infer("clip", DATA, OTHER))["outputs"]
    np.testing.assert_allclose(
        np.reshape(of_clip["data"], of_clip["shape"]), rows(loaded["clip"], DATA, OTHER), rtol=1e-4, atol=1e-5
    )
    broken = infer("vit", DATA, DATA[:50])
    assert broken.status_code == 422
    assert broken.json()["error"].startswith("image[1]")


@pytest.mark.parametrize(
    ("names", "parameters", "message"),
    [
        (["text", "image"], {}, "image: expected text or image, got both: send them in two requests"),
        (["image"], {"truncate": False}, "parameters.truncate: clip has no such parameter; those of its kind: none"),
        (["picture"], {}, "inputs: no input 'picture'; the model has: text, image"),
    ],
)
def test_a_model_of_texts_and_images_takes_one_of_them(
    client: TestClient, names: list[str], parameters: dict[str, object], message: str
) -> None:
    inputs = [{"name": name, "datatype": "BYTES", "shape": [1], "data": ["a cat"]} for name in names]
    refused = client.post("/v2/models/clip/infer", json={"inputs": inputs, "parameters": parameters})
    assert (refused.status_code, refused.json()) == (422, {"error": message})


def test_the_protocol_describes_both_inputs_of_a_model_of_texts_and_images(client: TestClient) -> None:
    config = answer(client.get("/v2/models/clip/config"))
    assert [(one["name"], one.get("optional", False)) for one in config["input"]] == [("text", False), ("image", True)]
    assert [one["name"] for one in answer(client.get("/v2/models/clip"))["inputs"]] == ["text"]


def test_pixels_of_a_request_are_counted_before_any_is_decoded(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    monkeypatch.setattr(ImageProcessor, "read", lambda self, data, limits, param: decoded.append(param))
    images = [b64encode(png_header(6_000, 6_000)).decode()] * 9
    refused = client.post("/v1/classify", json={"model": "vit", "images": images})
    assert refused.status_code == 413, refused.text
    assert "images[8]: expected at most 320,000,000 pixels in all images of a request" in refused.text
    assert decoded == []
