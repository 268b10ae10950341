"""A person's way through the console, on a real service with a real worker, without keys and then with them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.auth import Keyring
from tests.service.web.conftest import Visit, take
from tests.support import intents
from tests.support.processes import sonde_up

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(500)]

NAME = "ft:all-MiniLM-L6-v2:local:intents"
HARD = ["it is gone and I want to know why", "the card and the fee", "what about the money"]
JOB_MS = 180_000


def click(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def test_from_the_playground_to_a_model_that_was_corrected(visit: Visit, tmp_path: Path, pictures: Path) -> None:
    rows = tmp_path / "intents.csv"
    with rows.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["utterance", "intent"])
        table.writerows((row["text"], row["label"]) for row in intents.rows()[0])
    home = tmp_path / "home"
    home.mkdir()
    with sonde_up(home, "--keep-inputs", "50") as (_, url):
        visitor = visit(url)
        page = visitor.open()
        page.get_by_text("Nothing is wrong.").wait_for()
        try_the_playground(page, pictures)
        train(page, rows, pictures)
        visitor.open("overview").get_by_role("cell", name=NAME).wait_for()
        take(page, pictures, "overview")
        ask(page)

        secret = Keyring(home / "keys.json").create(["admin"])[1]
        visitor.open("overview")
        page.get_by_label("API key").fill(secret)
        page.keyboard.press("Enter")
        review(page, pictures)
        compare_and_roll_back(page, pictures)


def try_the_playground(page: Page, pictures: Path) -> None:
    page.get_by_role("link", name="Playground").click()
    click(page, "Embed and compare")
    page.get_by_text("5 vectors of 384 dimensions").wait_for(timeout=30_000)
    take(page, pictures, "playground")


def train(page: Page, rows: Path, pictures: Path) -> None:
    """Start a job by dropping a file, watch it, and read its report."""
    page.get_by_role("link", name="Jobs").click()
    page.locator("input[type=file]").set_input_files(rows)
    assert page.get_by_label("Column of text").input_value() == "utterance"
    assert page.get_by_label("Column of label").input_value() == "intent"
    take(page, pictures, "new-job")
    page.get_by_text("More settings").click()
    page.get_by_label("Hyperparameters").fill('{"mode": "frozen"}')  # the second job has them from this one
    click(page, "Check the file and start")
    click(page, "Start all the same")  # the rows are much alike, which the checks say
    page.get_by_role("heading", name="Events").wait_for()
    page.get_by_text("Created fine-tuning job").wait_for()
    page.get_by_text("Version 1 is promoted: it serves now.").wait_for(timeout=JOB_MS)
    page.get_by_role("heading", name="Report").wait_for()
    take(page, pictures, "report")


def ask(page: Page) -> None:
    """Have the new model answer texts that are hard for it."""
    page.get_by_role("link", name="Playground").click()
    page.get_by_role("tab", name="Classify").click()
    page.get_by_label("Model").select_option(NAME)
    page.get_by_label("Texts").fill("\n".join(HARD))
    page.locator("form").get_by_role("button", name="Classify").click()
    page.locator("meter").first.wait_for()


def review(page: Page, pictures: Path) -> None:
    """Correct three texts by keyboard, and train on them."""
    page.get_by_role("link", name="Review").click()
    said: list[str] = []
    for left in (3, 2, 1):
        page.get_by_text(f"{left} texts wait").wait_for()
        if left == 3:
            take(page, pictures, "review")
        with page.expect_request(re.compile("v1/feedback$")) as sent:
            page.keyboard.press("2")
        body = json.loads(sent.value.post_data or "{}")
        assert body["correct_label"] != body["label"]
        said.append(body["text"])
    assert sorted(said) == sorted(HARD)
    page.get_by_text("Nothing of this model waits.").wait_for()
    click(page, "Train on the feedback")
    page.get_by_role("link", name="Watch it").click()
    page.get_by_text(re.compile("Version 2 is (held|promoted)")).wait_for(timeout=JOB_MS)


def compare_and_roll_back(page: Page, pictures: Path) -> None:
    """Put the second version in service where it is not, then the first one again."""
    page.get_by_role("link", name="Versions of this model").click()
    page.get_by_role("heading", name="Metrics side by side").wait_for()
    page.get_by_role("cell", name="macro-F1: 95 % interval from", exact=True).wait_for()
    if (promote := page.get_by_role("button", name="Promote v2", exact=True)).count():
        promote.click()
        page.get_by_role("dialog").get_by_role("button", name="Promote v2").click()
        page.get_by_text("Version 2 serves.").wait_for()
    take(page, pictures, "models")
    click(page, "Roll back")
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    page.get_by_text("The version before serves again.").wait_for()
    page.get_by_role("button", name="Promote v2", exact=True).wait_for()
    page.get_by_text("rolled back in the console").wait_for()
