"""Jobs on images, on a tiny random encoder: a head, a detector of patches, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from models.errors import ArtifactError
from models.filesystem import sha256_of
from models.images.data_uri import from_data_uri
from models.images.detectors.serialization import STATE, load_image_detector
from models.images.golden_images import reproduce
from models.loader import load_images
from models.registry.artifact import Golden, Manifest
from models.runtime.placement import place
from models.source import locate
from models.text.detectors.serialization import load_detector
from models.text.heads import LinearHead
from models.training.run import FAILED, run
from tests.support.artifacts import MANIFEST
from tests.support.image_files import archive, disc, discs, image_job, stripes, tile, tiles
from tests.support.images import encoded
from tests.support.tiny_image_models import image_encoder, text_image_encoder

pytestmark = pytest.mark.slow

Ran = tuple[Path, list[Mapping[str, Any]]]


def mislabelled(wrong: int) -> dict[str, bytes]:
    """Images of three colours, some blue ones with the label red."""
    return discs(30) | {f"discs/red/wrong-{number}.png": disc("blue", 900 + number) for number in range(wrong)}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_encoder(tmp_path_factory.mktemp("models") / "tiny")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def succeed(directory: Path) -> Any:
    assert run(directory, lambda event: None) == 0, read(directory / "error.json")
    return read(directory / "result.json")


def failure(directory: Path) -> dict[str, Any]:
    assert run(directory, lambda event: None) == FAILED
    error: dict[str, Any] = read(directory / "error.json")
    return error


@pytest.fixture(scope="module")
def classified(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A job whose images are of three colours, some of them with a wrong label."""
    events: list[Mapping[str, Any]] = []
    directory = tmp_path_factory.mktemp("classified")
    image_job(directory, encoder, "classification", mislabelled(14), hyperparameters={"augmentation": {"use": "off"}})
    assert run(directory, events.append) == 0, read(directory / "error.json")
    return directory, events


@pytest.fixture(scope="module")
def detected(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = image_job(tmp_path_factory.mktemp("detected"), encoder, "anomaly", tiles(60, 6))
    succeed(directory)
    return directory


def test_a_classification_job_writes_head_detector_and_result(classified: Ran) -> None:
    directory, events = classified
    result = read(directory / "result.json")
    assert (result["mode"], result["encoder"], result["labels"]) == ("frozen", "base", ["blue", "green", "red"])
    assert result["metrics"]["macro_f1"] > 0.7
    assert "lexical" not in result["metrics"]
    assert result["trained_tokens"] > 0
    files = sorted(path.name for path in (directory / "result").iterdir())
    assert files == ["detector.json", "detector.safetensors", "head.json", "head.safetensors", "judged"]
    assert LinearHead.load(directory / "result").labels == ("blue", "green", "red")
    assert len(load_detector(directory / "result").calibration) > 80, "the held-out images teach, too"
    assert any("images to train on" in event.get("message", "") for event in events)


def test_the_report_compares_with_colours_and_shows_pictures(classified: Ran) -> None:
    report = read(classified[0] / "report.json")
    found = {one["check"]: one for stage in report["rungs"] for one in stage["findings"]}
    assert {"baseline_colours", "against_trivial", "label_errors", "exact_duplicates"} <= set(found)
    assert "truncation" not in found
    example = report["confusion"]["pairs"][0]["examples"][0]
    assert example["text"].startswith("discs/")
    assert from_data_uri(example["picture"])[:2] == b"\xff\xd8"


def arrows(per_label: int) -> dict[str, bytes]:
    """Dark triangles that point to the left or to the right, anywhere in an image."""
    files = {}
    for label, points in (("left", [(0, 8), (12, 0), (12, 16)]), ("right", [(12, 8), (0, 0), (0, 16)])):
        for number in range(per_label):
            chance = np.random.default_rng([number, len(label)])
            x, y = chance.integers(4, 16, 2).tolist()
            image = Image.new("RGB", (32, 32), tuple(chance.integers(180, 256, 3).tolist()))
            ImageDraw.Draw(image).polygon([(x + a, y + b) for a, b in points], fill=(20, 20, 20))
            files[f"{label}/{number}.png"] = encoded(image)
    return files


def augmentation_of(directory: Path) -> dict[str, Any]:
    choices: list[dict[str, Any]] = read(directory / "report.json")["choices"]
    return next(choice for choice in choices if choice["what"] == "Augmentation")


def test_flips_that_make_one_label_another_are_measured_and_left_out(encoder: Path, tmp_path: Path) -> None:
    succeed(image_job(tmp_path, encoder, "classification", arrows(30)))
    choice = augmentation_of(tmp_path)
    accuracy = {name: figures["accuracy out of fold"] for name, figures in choice["candidates"].items()}
    assert choice["chosen"] == "off"
    assert accuracy["on"] < accuracy["off"]
    pictures = read(tmp_path / "report.json")["pictures"]
    assert [str(one["caption"]).split("/")[0] for one in pictures] == ["left", "right"]


def test_views_that_help_out_of_fold_are_kept(encoder: Path, tmp_path: Path) -> None:
    result = succeed(image_job(tmp_path, encoder, "classification", mislabelled(8)))
    choice = augmentation_of(tmp_path)
    accuracy = {name: figures["accuracy out of fold"] for name, figures in choice["candidates"].items()}
    assert choice["chosen"] == "on"
    assert accuracy["on"] > accuracy["off"]
    assert result["metrics"]["macro_f1"] > 0.95


def test_augmentation_is_done_or_left_out_as_asked(encoder: Path, tmp_path: Path) -> None:
    heads = []
    for use in ("on", "off"):
        wanted = {"augmentation": {"use": use, "flip": "none"}}
        directory = tmp_path / use
        succeed(image_job(directory, encoder, "classification", arrows(12), hyperparameters=wanted))
        choice = augmentation_of(directory)
        assert (choice["chosen"], choice["reason"]) == (use, "the job asks for it")
        assert ("pictures" in read(directory / "report.json")) == (use == "on")
        heads.append(LinearHead.load(directory / "result").weight)
    assert not torch.allclose(heads[0], heads[1], atol=0.01)


def manifest_of(directory: Path, task: Any) -> Manifest:
    """The manifest of a job's result, as the worker writes it."""
    result = read(directory / "result.json")
    names, golden = {path.name: "" for path in (directory / "result").iterdir()}, Golden.from_json(result["golden"])
    about: dict[str, Any] = {"encoder": result["encoder"], "hyperparameters": {"kind": "images"}, "files": names}
    return replace(MANIFEST, task=task, labels=tuple(result["labels"]), golden=golden, **about)


@pytest.mark.parametrize("task", ["classification", "anomaly"])
def test_golden_images_are_reproduced(classified: Ran, detected: Path, encoder: Path, task: Any) -> None:
    directory = classified[0] if task == "classification" else detected
    manifest = manifest_of(directory, task)
    golden, model = manifest.golden, load_images(locate(f"tiny={encoder}"), place("cpu", "float32"))
    assert model is not None
    reproduce(directory / "result", manifest, model)
    assert all(len(uri) < 40_000 for uri in golden.texts)
    rows = tuple(tuple(value + 1 for value in row) for row in golden.rows)
    with pytest.raises(ArtifactError, match="golden inputs: differs by 1"):
        reproduce(directory / "result", replace(manifest, golden=replace(golden, rows=rows)), model)


def test_a_detector_is_chosen_calibrated_and_saved(detected: Path) -> None:
    metrics, report = read(detected / "result.json")["metrics"], read(detected / "report.json")
    assert metrics["auroc"] > 0.95
    assert metrics["known_anomalies"] == 6
    assert metrics["calibrated_on"] == 48
    assert metrics["power"] == 1
    assert 0 < metrics["smallest_spot"] <= 0.25
    detector = load_image_detector(detected / "result")
    assert detector.count == 48
    assert (detected / "result" / STATE).stat().st_size < 64 << 20
    (choice,) = report["choices"]
    assert set(choice["candidates"]) == {"padim", "patchcore"}
    titles = [one["title"] for one in report["pictures"]]
    assert titles == ["Good images that look strangest"] * 4 + ["Known anomalies that look strangest"] * 4
    assert report["pictures"][4]["caption"].startswith("anomaly/")


def test_without_anomalies_the_detector_is_chosen_by_drawn_defects(encoder: Path, tmp_path: Path) -> None:
    job = image_job(tmp_path, encoder, "anomaly", tiles(40))
    result, report = succeed(job), read(tmp_path / "report.json")
    assert "auroc" not in result["metrics"]
    assert "drawn into good images" in report["choices"][0]["reason"]


def test_all_labels_but_the_normal_one_are_anomalies(encoder: Path, tmp_path: Path) -> None:
    wanted = {"normal_label": "good", "detector": "patchcore"}
    files = {name.replace("anomaly", "scratch"): data for name, data in tiles(30, 4).items()}
    result = succeed(image_job(tmp_path, encoder, "anomaly", files, hyperparameters=wanted))
    assert result["metrics"]["known_anomalies"] == 4
    assert load_image_detector(tmp_path / "result").detector.kind == "patchcore"


def test_too_few_good_images_calibrate_no_alarm(encoder: Path, tmp_path: Path) -> None:
    result = succeed(image_job(tmp_path, encoder, "anomaly", tiles(12)))
    assert "power" not in result["metrics"]
    stages = read(tmp_path / "report.json")["rungs"]
    found = {one["check"]: one["status"] for stage in stages for one in stage["findings"]}
    assert (found["power"], found["false_alarm_rate_0.05"]) == ("skipped", "warn")


@pytest.mark.parametrize(
    ("task", "files", "code"),
    [
        ("classification", discs(5) | {"discs/red/broken.png": b"x", "x.png": disc("red", 0)}, "unsupported_image"),
        ("classification", {name: data for name, data in discs(5).items() if "red" in name}, "one_class"),
        ("anomaly", {"good/a.png": tile(0), "good/b.png": tile(1), "good/c.png": tile(2)}, "too_few_rows"),
        ("anomaly", {"anomaly/a.png": tile(0)}, "no_normal_rows"),
    ],
)
def test_files_that_teach_nothing_are_refused(
    encoder: Path, tmp_path: Path, task: str, files: dict[str, bytes], code: str
) -> None:
    error = failure(image_job(tmp_path, encoder, task, files))
    assert (error["code"], error["param"]) == (code, "training_file")


def test_a_model_without_inner_maps_finds_no_defects(tmp_path: Path) -> None:
    clip = text_image_encoder(tmp_path / "clip")
    error = failure(image_job(tmp_path / "job", clip, "anomaly", tiles(10)))
    assert (error["code"], error["param"]) == ("wrong_model", "model")


def test_the_version_in_service_and_bound_images_judge_a_successor(
    encoder: Path, classified: Ran, tmp_path: Path
) -> None:
    bound = archive(tmp_path / "bound.zip", discs(4, seed=5000))
    about = {
        "path": str(bound),
        "sha256": sha256_of(bound),
        "task": "classification",
        "hyperparameters": {"kind": "images"},
    }
    base = read(classified[0] / "result.json")["base_version"]
    served: dict[str, Any] = {"incumbent": str(classified[0] / "result"), "incumbent_base": f"tiny={encoder}"}
    result = succeed(
        image_job(
            tmp_path / "job",
            encoder,
            "classification",
            discs(20) | discs(2, seed=5000),
            bound=about,
            **served,
            incumbent_base_version=base,
        )
    )
    assert result["incumbent_metrics"]["macro_f1"] > 0.9
    assert (result["bound"]["rows"], result["bound"]["left_out"], result["bound"]["objection"]) == (12, 6, None)
    assert result["bound"]["metrics"]["accuracy"] > 0.9
    assert result["bound"]["incumbent_metrics"]["accuracy"] > 0.9
    assert np.isfinite(result["metrics"]["ece"])


def striped(per_label: int, seed: int = 0) -> dict[str, bytes]:
    down = {f"down/{number}.png": encoded(stripes("down", seed + number)) for number in range(per_label)}
    return down | {f"across/{number}.png": encoded(stripes("across", seed + number)) for number in range(per_label)}


def test_a_tuned_encoder_that_leads_is_published_with_what_serving_needs(tmp_path: Path) -> None:
    resnet = image_encoder(tmp_path / "resnet", "resnet")
    wanted = {"mode": "full", "n_epochs": 10, "batch_size": 16, "learning_rate": 0.01, "augmentation": {"use": "off"}}
    judges = striped(40, seed=1000)
    job = image_job(tmp_path / "job", resnet, "classification", striped(40), judges, hyperparameters=wanted)
    result = succeed(job)
    assert (result["mode"], result["encoder"]) == ("full", "own")
    assert result["metrics"]["macro_f1"] > result["metrics"]["frozen_macro_f1"] + 0.05
    stages = {stage["rung"]: stage["findings"] for stage in read(job / "report.json")["rungs"]}
    assert {"loss", "gradient"} <= {name for name, findings in stages.items() if findings}
    assert "against_frozen" in {one["check"] for one in stages["outcome"]}
    tuned = load_images(locate(f"own={job / 'result' / 'encoder'}"), place("cpu", "float32"))
    assert tuned is not None
    reproduce(job / "result", manifest_of(job, "classification"), tuned)
