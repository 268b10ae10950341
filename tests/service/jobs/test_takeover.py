"""Swapped labels in both files of a job, sent by a `train` key and by an admin's: a real worker and trainer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.registry.registry import Registry
from service.auth import Keyring
from service.jobs.held_out_binding import bind, find_upload
from tests.models.training.test_run import Row, labelled
from tests.support import tiny_models
from tests.support.jobs import JobHarness
from tests.support.processes import sonde_worker

pytestmark = [pytest.mark.real, pytest.mark.slow]

NAME = "ft:fake:local:support"
_SWAPPED = {"fruit": "steel", "steel": "river", "river": "fruit"}


class Home:
    """A home with keys, jobs on a tiny encoder, and a worker."""

    def __init__(self, home: Path) -> None:
        self.harness = JobHarness(home, lease_s=15.0)
        self.registry = Registry(home / "models")
        self.keyring = Keyring(home / "keys.json")
        self.encoder = tiny_models.encoder(home / "tiny", normalize=True)

    def upload(self, rows: list[Row]) -> str:
        return self.harness.upload("".join(json.dumps(row) + "\n" for row in rows).encode())

    def run(self, owner: str, rows: list[Row], judges: list[Row]) -> dict[str, Any]:
        new = replace(
            self.harness.new("support", mode="frozen"),
            base_spec=f"tiny={self.encoder}",
            training_file=self.upload(rows),
            validation_file=self.upload(judges),
            owner=owner,
        )
        done = self.harness.until(self.harness.start(new), timeout_s=240)
        assert done.result is not None, done
        return done.result

    def serving(self) -> int | None:
        now = self.registry.current(NAME)
        return now.version if now else None


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("home"))
    with sonde_worker(made.harness.home, "--max-calibration-error", "1"):
        yield made
    made.harness.close()


def swapped(rows: list[Row]) -> list[Row]:
    return [row | {"label": _SWAPPED[row["label"]]} for row in rows]


@pytest.fixture(scope="module")
def owner(home: Home) -> str:
    """The key whose model is in service."""
    key = home.keyring.create(["train"])[0].id
    assert home.run(key, labelled(20), labelled(10, seed=1))["decision"] == "promoted"
    return key


def attack(home: Home, key: str) -> dict[str, Any]:
    """A job with swapped labels in both files, which must replace nothing."""
    result = home.run(key, swapped(labelled(20)), swapped(labelled(10, seed=1)))
    assert (result["decision"], home.serving()) == ("held", 1)
    return result


def test_swapped_labels_in_both_files_replace_no_model_of_another_key(home: Home, owner: str) -> None:
    stranger = home.keyring.create(["train"])[0].id
    why = attack(home, stranger)["why"]
    assert f"its key, {stranger}, does not own {NAME}" in why
    assert "macro-F1 on the held-out rows is 1.0000, against 0.0000" in why, "by its own files it is better"


def test_swapped_labels_lose_on_the_bound_rows_even_with_the_key_of_an_admin(home: Home, owner: str) -> None:
    file = home.upload(labelled(10, seed=9))
    upload = find_upload(home.harness.files, file)
    bound = bind(home.registry, NAME, *upload, {}, by=owner, permit=lambda: None, max_memory_bytes=4 << 30)
    assert bound.rows == 30
    home.harness.files.delete(file)
    why = attack(home, home.keyring.create(["admin"])[0].id)["why"]
    assert "on the rows bound to this name is 0.0000, less than the 1.0000 of what serves now" in why
