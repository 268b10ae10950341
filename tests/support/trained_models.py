"""Trained models over fakes, published in a registry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.registry.artifact import Golden, Manifest
from models.registry.registry import Registry
from models.source import ModelSource
from models.text.detectors.knn import KnnDetector
from models.text.detectors.serialization import save_detector
from models.text.golden_texts import answers, read_parts, read_texts
from models.text.heads import LinearHead
from models.text.model import TextModel
from tests.fakes.model import FakeModel
from tests.support.artifacts import NAME, numbered, staging

NORMAL = tuple(f"my card is lost please help w{number}" for number in range(40))
TEXTS = ("hello world", "my card is lost", "pizza")


def train(
    registry: Registry,
    where: Path,
    encoder: TextModel,
    /,
    *,
    name: str = NAME,
    detector: bool = False,
    files: dict[str, str] | None = None,
    **changes: Any,
) -> int:
    """Publish a version over a fake. A classifier of version n answers `vn` to everything, so that answers tell
    versions apart.
    """
    version = max(registry.versions(name), default=0) + 1
    manifest = numbered(name, **{"base": encoder.metadata.name, "base_version": encoder.metadata.version, **changes})(
        version
    )
    staged = staging(where / f"{name.replace(':', '-')}-{version}", files or {"report.md": "# report"})
    if manifest.task == "classification" and encoder.metadata.task == "embedding":
        manifest = replace(manifest, labels=changes.get("labels", (f"v{version}", "other")))
        width = encoder.metadata.width
        LinearHead(0.1 * torch.ones(2, width), torch.tensor([3.0, -3.0]), manifest.labels).save(staged)
    if manifest.task == "anomaly" or detector:
        save_detector(KnnDetector().fit(torch.from_numpy(encoder.forward(encoder.text.encode(NORMAL)))), staged)
    if "golden" not in changes:
        manifest = replace(manifest, golden=golden(staged, manifest, encoder))
    return registry.publish(name, staged, lambda number: manifest)


def golden(staged: Path, manifest: Manifest, encoder: TextModel) -> Golden:
    """What the files in `staged` give for some texts."""
    texts: tuple[str | tuple[str, str], ...] = (
        tuple((text, text) for text in TEXTS) if manifest.task == "rerank" else TEXTS
    )
    asked = Golden(texts, (), 1e-4)
    there = replace(manifest, files={path.name: "" for path in staged.iterdir()})
    tokens = read_texts(asked, encoder)
    rows = answers(there, read_parts(staged, there), encoder.forward(tokens), tokens)
    return replace(asked, rows=tuple(tuple(map(float, row)) for row in rows))


def own_encoder(
    registry: Registry, where: Path, *, seed: int, name: str = NAME, task: Any = "embedding", **changes: Any
) -> int:
    """Publish a version with an encoder of its own: a fake, which `open_fake_encoders` makes of its files."""
    labels = changes.get("labels", ())
    files = {"encoder/config.json": json.dumps({"seed": seed, "task": task, "labels": labels})}
    model = FakeModel(name, task=task, labels=labels, seed=seed)
    base = {"base": "fake", "base_version": "0", "encoder": "own", "task": task}
    return train(registry, where, model, name=name, files=files, **{**base, "labels": labels, **changes})


def open_fake_encoders(monkeypatch: pytest.MonkeyPatch) -> list[FakeModel]:
    """Have the loader make fakes of `own_encoder`'s files; the list is what it made."""
    made: list[FakeModel] = []

    def load(source: ModelSource, placement: object) -> FakeModel:
        about = json.loads((source.path / "config.json").read_text())
        made.append(
            FakeModel(
                source.name,
                task=about["task"],
                labels=tuple(about["labels"]),
                version=source.version,
                seed=about["seed"],
            )
        )
        return made[-1]

    monkeypatch.setattr("models.loader.load", load)
    return made
