"""Rows and tensors of programs, and images, by the commands, over an application of this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import cli
from service.config import Settings
from tests.fakes.image import FakeDetector, FakeRecognizer
from tests.support.app import MakeApp, listening, opened
from tests.support.described_programs import LABELS, described
from tests.support.images import encoded, picture
from tests.support.pages import draw_page

ROWS = [[float(row == at) for at in range(16)] for row in range(100)]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service of programs that do tasks."""
    folder = tmp_path_factory.mktemp("programs")
    models = [described(folder, name) for name in ("classes", "vectors", "strange")]
    with opened(Settings.read({"home": folder / "home", "model": models})) as (app, _), listening(app) as url:
        yield url


@pytest.fixture
def images(make_app: MakeApp) -> Iterator[str]:
    """The address of a service of models of images."""
    app = make_app(host="127.0.0.1")
    for model in (FakeDetector(), FakeRecognizer()):
        app.state.manager.add_images(model)
    with listening(app) as url:
        yield url


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    header = ",".join(f"c{at}" for at in range(16))
    Path("rows.csv").write_text("\n".join([header, *(",".join(map(str, row)) for row in ROWS)]))
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, ROWS[:2])))
    ids = {"name": "ids", "datatype": "INT64", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}
    Path("ids.json").write_text(json.dumps({"inputs": [ids]}))
    Path("cat.png").write_bytes(encoded(picture(81, 60)))
    Path("page.png").write_bytes(encoded(draw_page(0, width=600, height=300).image))
    Path("wrong.csv").write_text("a,b\n1,2\n3,x\n")
    Path("wrong.jsonl").write_text('[1, 2]\n{"a": 3}\n')
    Path("huge.jsonl").write_text(f"[{10**400}]")
    Path("bare.csv").write_text("1,2\n3,4\n")
    Path("none.png").touch()
    Path("wrong.json").write_text('{"x": [1]}')


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run `sonde`; exit code, standard output and standard error."""
    code = cli.main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Any]:
    """What a command prints as JSON."""
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_more_rows_than_a_program_takes_at_once_go_in_pieces(programs: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(capsys, "classify", "--rows", "rows.csv", "--url", programs)  # the program takes 64
    assert [item["row"] for item in found] == list(range(100))
    assert {item["label"] for item in found} <= set(LABELS)
    code, out, _ = run(capsys, "classify", "--rows", "rows.jsonl", "--top", "2", "--url", programs)
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == ["row", "0", "", "1", ""]


def test_rows_and_tensors_are_embedded_and_scored(programs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert [item["row"] for item in lines(capsys, "embed", "--inputs", "ids.json", "--url", programs)] == [0, 1]
    found = lines(capsys, "anomaly", "--rows", "rows.csv", "--url", programs)  # in pieces of 2
    assert [item["row"] for item in found] == list(range(100))
    assert all(0 < item["p_value"] <= 1 for item in found)


def test_objects_and_texts_of_images_are_shown(images: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "detect", "cat.png", "cat.png", "--url", images)
    assert code == 0
    table = [line.split("\t") for line in out.splitlines()]
    assert table == [
        ["file", "label", "score", "xmin", "ymin", "xmax", "ymax"],
        *[["cat.png", "cat", "0.900", "0", "0", "40", "60"]] * 2,
    ]
    [found] = lines(capsys, "detect", "cat.png", "--threshold", "0.3", "--url", images)
    assert (found["file"], found["width"], [one["label"] for one in found["objects"]]) == (
        "cat.png",
        81,
        ["cat", "dog"],
    )
    [page] = lines(capsys, "ocr", "page.png", "--url", images)
    assert len(page["lines"]) > 3
    _, out, _ = run(capsys, "ocr", "page.png", "--one-line", "--url", images)
    assert out.splitlines()[1].endswith("\t0.500\t0\t0\t600\t300")


@pytest.mark.parametrize("command", ["detect", "ocr"])
def test_a_file_that_is_no_image_is_named(images: str, capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, _, err = run(capsys, command, "cat.png", "rows.csv", "--url", images)
    assert code == 1
    assert err.startswith("sonde: rows.csv: expected JPEG, PNG, WebP, GIF, BMP or TIFF, got bytes that begin with")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("classify", "--rows", "wrong.csv"), "wrong.csv, line 3, column 2: expected a finite number, got 'x'"),
        (("classify", "--rows", "wrong.jsonl"), "wrong.jsonl, line 2: expected a list of numbers, got dict"),
        (("classify", "--rows", "huge.jsonl"), "huge.jsonl, line 1, column 1: expected a finite number, got '1000"),
        (("classify", "--rows", "bare.csv"), "bare.csv, line 1: expected the columns' names, got numbers"),
        (("embed", "--inputs", "wrong.json"), "wrong.json: expected a list of tensors, each with name, datatype"),
        (("embed", "--inputs", "cat.png"), "cat.png: expected UTF-8 text, got the byte 0x89"),
        (("embed", "--inputs", "rows.csv"), "rows.csv: expected JSON"),
        (("anomaly", "--rows", "none.csv"), "none.csv: No such file"),
        (("classify", "red", "--rows", "rows.csv"), "expected one of texts, --rows, --inputs; got texts and --rows"),
        (("detect", "cat.png"), "no model for detection is in service"),
        (("ocr", "nowhere.png", "--model", "reader"), "nowhere.png: No such file"),
        (("ocr", "none.png", "--model", "reader"), "none.png: expected an image, got an empty file"),
    ],
)
def test_what_cannot_be_sent_is_named(
    programs: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    code, _, err = run(capsys, *arguments, "--url", programs)
    assert code == 1
    assert message in err
