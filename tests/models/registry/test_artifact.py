"""Artifacts: written in one step, checked file by file, with nothing in them that runs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.errors import ArtifactError
from models.registry.artifact import FORBIDDEN, Golden, publish, read_manifest, verify
from tests.support.artifacts import MANIFEST, PowerCut, cut_power, staging, tree


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A published artifact."""
    target = tmp_path / "versions" / "1"
    publish(staging(tmp_path / "staging"), target, MANIFEST)
    return target


def test_what_was_published_is_read_again(made: Path) -> None:
    manifest = verify(made)
    assert replace(manifest, files={}) == MANIFEST
    assert set(manifest.files) == {"head.json", "encoder/config.json"}
    assert {file: content for file, content in tree(made).items() if file != "manifest.json"} == tree(
        made.parent.parent / "staging"
    )
    assert names(made.parent) == ["1"]


def test_the_digest_tells_contents_apart(made: Path, tmp_path: Path) -> None:
    publish(staging(tmp_path / "other", {"head.json": "[]"}), tmp_path / "2", MANIFEST)
    publish(tmp_path / "staging", tmp_path / "3", replace(MANIFEST, version=3))
    digests = [read_manifest(path).digest for path in (made, tmp_path / "2", tmp_path / "3")]
    assert digests[0] == digests[2] != digests[1]
    assert {len(digest) for digest in digests} == {12}


def test_an_artifact_never_changes(made: Path, tmp_path: Path) -> None:
    before = tree(made)
    with pytest.raises(ArtifactError, match=r"1 is there already"):
        publish(staging(tmp_path / "other", {"head.json": "[]"}), made, MANIFEST)
    assert tree(made) == before


def test_the_manifest_is_not_for_others_to_write(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json is written by the publication"):
        publish(staging(tmp_path / "staging", {"manifest.json": "{}"}), tmp_path / "1", MANIFEST)
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda path: (path / "head.json").write_text("{ }"),
            r"1/head\.json has SHA-256 \w{64}, the manifest says \w{64}",
        ),
        (lambda path: (path / "head.json").unlink(), r"1/head\.json is missing"),
        (
            lambda path: (path / "encoder" / "more.json").write_text("{}"),
            r"1/encoder/more\.json is not in the manifest",
        ),
        (lambda path: (path / "more").symlink_to("head.json"), r"more is a link or no regular file"),
        (lambda path: (path / "more").symlink_to("/etc"), r"more is a link or no regular file"),
        (lambda path: os.mkfifo(path / "more"), r"more is a link or no regular file"),
        (lambda path: (path / "manifest.json").unlink(), r"1/manifest\.json cannot be read: No such file"),
        (lambda path: (path / "manifest.json").write_text("{"), r"1/manifest\.json: content: Invalid JSON"),
        (lambda path: (path / "manifest.json").write_text("{}"), r"1/manifest\.json: name: "),
    ],
)
def test_every_change_is_found(made: Path, change: Any, problem: str) -> None:
    change(made)
    with pytest.raises(ArtifactError, match=problem):
        verify(made)


def test_a_link_to_an_artifact_is_none(made: Path) -> None:
    made.with_name("2").symlink_to(made)
    with pytest.raises(ArtifactError, match="2 is a link"):
        verify(made.with_name("2"))


UNSAFE = {
    **{f"weights{suffix}": (f"weights{suffix}", "x") for suffix in sorted(FORBIDDEN)},
    "capitals": ("encoder/pytorch_model.BIN", "x"),
    "module": ("encoder/modules.json", json.dumps([{"type": "evil.Module"}])),
    "no module": ("encoder/modules.json", json.dumps(["evil"])),
    "modules elsewhere": ("modules.json", json.dumps([{"type": "sentence_transformersevil.Module"}])),
    "no list": ("encoder/modules.json", "{}"),
    "auto_map": ("encoder/config.json", json.dumps({"auto_map": {}})),
    "tokenizer auto_map": ("encoder/0_T/tokenizer_config.json", json.dumps({"auto_map": {}})),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_what_could_run_is_neither_published_nor_accepted(tmp_path: Path, name: str) -> None:
    file, content = UNSAFE[name]
    with pytest.raises(ArtifactError):
        publish(staging(tmp_path / "staging", {file: content}), tmp_path / "1", MANIFEST)
    assert names(tmp_path) == ["staging"]


@pytest.mark.parametrize("name", UNSAFE)
def test_what_could_run_is_not_accepted_even_with_a_fitting_manifest(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, content = UNSAFE[name]
    with monkeypatch.context() as careless:
        careless.setattr("models.registry.artifact._refuse_unsafe", lambda *given: None)
        publish(staging(tmp_path / "staging", {file: content}), tmp_path / "1", MANIFEST)
    with pytest.raises(ArtifactError):
        verify(tmp_path / "1")


@pytest.mark.parametrize("target", ["/etc/passwd", "head.json"])
def test_links_are_not_published(tmp_path: Path, target: str) -> None:
    (staging(tmp_path / "staging") / "link").symlink_to(target)
    with pytest.raises(ArtifactError, match="link is a link"):
        publish(tmp_path / "staging", tmp_path / "1", MANIFEST)
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"metrics": {"f1": float("nan")}}, "cannot be written as JSON"),
        ({"hyperparameters": {"x": object()}}, "cannot be written as JSON"),
        ({"version": 0}, "version: "),
        ({"task": "poetry"}, "task: "),
        ({"encoder": "borrowed"}, "encoder: "),
        ({"labels": ("a", 3)}, r"labels\.1: "),
        ({"golden": Golden(("a", "b"), ((1.0,),), 0.1)}, "2 golden texts have 1 rows"),
        ({"golden": Golden(("a",), ((1.0,),), -1.0)}, r"golden\.tolerance: "),
    ],
)
def test_a_manifest_that_nobody_could_read_is_not_written(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ArtifactError, match=problem):
        publish(staging(tmp_path / "staging"), tmp_path / "1", replace(MANIFEST, **change))
    assert names(tmp_path) == ["staging"]


def test_golden_inputs_are_read_from_json() -> None:
    read = Golden.from_json({"texts": ["a", ["b", "c"]], "rows": [[1], [0.5]], "tolerance": 0})
    assert read == Golden(("a", ("b", "c")), ((1.0,), (0.5,)), 0.0)
    for wrong in (
        {},
        {"texts": [1], "rows": [[1]], "tolerance": 0},
        {"texts": ["a"], "rows": [[float("nan")]], "tolerance": 0},
    ):
        with pytest.raises(ArtifactError, match="golden: "):
            Golden.from_json(wrong)


@pytest.mark.parametrize("before", [True, False])
def test_a_power_cut_leaves_all_of_it_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    source = staging(tmp_path / "staging")
    outcomes = []
    for step in range(100):
        target = tmp_path / str(step) / "1"
        try:
            with monkeypatch.context() as cut:
                cut_power(cut, step, before=before)
                publish(source, target, MANIFEST)
        except PowerCut:
            outcomes.append(target.exists())
            if target.exists():
                assert verify(target).name == MANIFEST.name
            else:
                publish(source, target, MANIFEST)  # what was left does not stand in the way
            continue
        break
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}
    assert len(outcomes) >= 8
