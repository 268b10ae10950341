"""Files of images: the three forms, what is refused with its row, and what an archive may not do."""

from __future__ import annotations

import json
import stat
import struct
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.training.data import image_archive
from models.training.data.image_reader import ImageReader, read_small
from models.training.data.rows import TextRows
from models.training.errors import TrainingDataError
from models.training.images.store import ImageStore
from tests.support.image_files import archive, disc, discs, tile
from tests.support.images import hostile

RED, BLUE = disc("red", 0), disc("blue", 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    made = ImageStore(tmp_path / "images")
    yield made
    made.close()


@pytest.fixture
def read(store: ImageStore) -> Callable[..., TextRows]:
    def read(path: Path, task: str = "classification", **columns: str) -> TextRows:
        return ImageReader(task, read_small, store).rows(path, columns, "training_file")

    return read


@pytest.fixture
def faults(store: ImageStore) -> Callable[..., list[TrainingDataError]]:
    def faults(path: Path, task: str = "classification") -> list[TrainingDataError]:
        return ImageReader(task, read_small, store).faults(path, {}, "training_file")

    return faults


def test_a_folder_is_a_label_and_a_copy_has_the_same_key(
    tmp_path: Path, store: ImageStore, read: Callable[..., TextRows]
) -> None:
    files = {"all/red/a.png": RED, "all/blue/b.png": BLUE, "all/red/copy.png": RED, "__MACOSX/all/._a.png": b"x"}
    rows = read(archive(tmp_path / "x.zip", {**files, "all/.DS_Store": b"x", "all/notes.txt": b"x"}))
    first, second, third = rows.texts[0]
    assert (rows.kind, rows.labels, rows.inputs) == ("labelled", ["red", "blue", "red"], "images")
    assert first == third != second
    assert rows.lines == [1, 2, 3]
    assert store.name(second) == "all/blue/b.png"
    assert store.picture(first).size == (64, 64)
    (note,) = rows.notes
    assert note == "1 file was left out, whose name does not end as an image's: first 'all/notes.txt'"


def test_images_need_no_label_for_anomalies(tmp_path: Path, read: Callable[..., TextRows]) -> None:
    path = archive(tmp_path / "x.zip", {"a.png": RED, "b.png": BLUE})
    assert read(path, "anomaly").kind == "plain"
    with pytest.raises(TrainingDataError) as caught:
        read(path)
    words = "expected an image in a folder that is named as its label, got none"
    assert caught.value.message == f"entry 1, 'a.png': {words}; entry 2, 'b.png': {words}"


def test_an_archive_of_another_kind_is_named(tmp_path: Path, read: Callable[..., TextRows]) -> None:
    (tmp_path / "x.zip").write_bytes(b"Rar!\x1a\x07\x01\0" + bytes(90))
    with pytest.raises(TrainingDataError, match="a ZIP archive, JSONL or Parquet of images, got a RAR"):
        read(tmp_path / "x.zip")


def test_a_workbook_is_not_named_as_the_archive_that_it_is(tmp_path: Path, read: Callable[..., TextRows]) -> None:
    with pytest.raises(TrainingDataError, match="a ZIP archive, JSONL or Parquet of images, got xlsx"):
        read(archive(tmp_path / "x.xlsx", {"xl/workbook.xml": b"<workbook/>"}))


def test_jsonl_has_data_uris_or_base64(tmp_path: Path, read: Callable[..., TextRows]) -> None:
    plain, path = b64encode(RED).decode(), tmp_path / "x.jsonl"
    rows = [{"image": f"data:image/png;base64,{plain}", "label": "red"}, {"image": plain, "label": 1}]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read(path)
    assert found.labels == ["red", "1"]
    assert len(set(found.texts[0])) == 1
    path.write_text(json.dumps({"photo": plain, "class": "red"}))
    assert read(path, image="photo", label="class").labels == ["red"]


@pytest.mark.parametrize("nested", [False, True])
def test_parquet_has_bytes(tmp_path: Path, read: Callable[..., TextRows], nested: bool) -> None:
    images = [{"bytes": one, "path": "a.png"} for one in (RED, BLUE)] if nested else [RED, BLUE]
    pq.write_table(pa.table({"image": images, "label": ["red", "blue"]}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet").labels == ["red", "blue"]


def test_a_list_in_an_archive_names_images_and_labels(
    tmp_path: Path, read: Callable[..., TextRows], faults: Callable[..., list[TrainingDataError]]
) -> None:
    rows = [{"file_name": "images/a.png", "label": "red"}, {"image": "images/b.png", "label": "blue"}]
    files = {"set/images/a.png": RED, "set/images/b.png": BLUE}
    listed = "\n".join(map(json.dumps, rows)).encode()
    assert read(archive(tmp_path / "x.zip", {**files, "set/metadata.jsonl": listed})).labels == ["red", "blue"]
    wrong = listed + b'\n{"image": "../a.png"}\nno json'
    found = faults(archive(tmp_path / "y.zip", {**files, "set/metadata.jsonl": wrong}))
    assert [(fault.code, fault.line) for fault in found] == [("no_image", 3), ("invalid_json", 4)]


def test_every_image_that_cannot_be_used_is_named(
    tmp_path: Path, faults: Callable[..., list[TrainingDataError]], read: Callable[..., TextRows]
) -> None:
    bad = hostile()
    path = archive(tmp_path / "x.zip", {"red/0.png": RED, **{f"red/{name}.png": data for name, data in bad.items()}})
    found = faults(path)
    assert [fault.line for fault in found] == list(range(2, len(bad) + 2))
    assert {fault.code for fault in found} == {"invalid_image", "image_too_large", "unsupported_image"}
    with pytest.raises(TrainingDataError) as caught:
        read(path)
    assert caught.value.message.count("entry ") == len(bad)


def test_rows_without_an_image_are_named(tmp_path: Path, faults: Callable[..., list[TrainingDataError]]) -> None:
    path = tmp_path / "x.jsonl"
    good = b64encode(RED).decode()
    rows = ['{"label": "a"}', '{"image": "%", "label": "a"}', "{", json.dumps({"image": good}), '{"image": 3}']
    path.write_text("\n".join(rows))
    assert [(one.code, one.line) for one in faults(path)] == [
        ("no_image", 1),
        ("no_image", 2),
        ("invalid_json", 3),
        ("no_image", 5),
        ("no_label", 4),
    ]


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        ("../red/a.png", 0, "names below the archive's own folder"),
        ("/red/a.png", 0, "names below the archive's own folder"),
        ("red\\a.png", 0, "names below the archive's own folder"),
        ("c:/red/a.png", 0, "names below the archive's own folder"),
        ("red/a.png", stat.S_IFLNK | 0o777, "the link 'red/a.png'"),
    ],
)
def test_a_member_outside_the_archive_is_a_fault(
    tmp_path: Path, faults: Callable[..., list[TrainingDataError]], name: str, mode: int, words: str
) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as made:
        member = zipfile.ZipInfo("placeholder")
        member.filename, member.external_attr, member.create_system = name, mode << 16, 3
        made.writestr(member, RED)
    (fault,) = faults(path)
    assert (fault.code, fault.line) == ("unsafe_member", 1)
    assert words in fault.message
    assert {one.name for one in tmp_path.iterdir()} == {"images", "x.zip"}


def test_an_encrypted_member_and_another_method_are_faults(
    tmp_path: Path, faults: Callable[..., list[TrainingDataError]]
) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as made:
        made.writestr("red/a.png", RED)
    assert "method 12" in faults(path)[0].message
    data = bytearray(archive(path, {"red/a.png": RED}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "encrypted" in faults(path)[0].message


def test_a_member_is_read_no_further_than_allowed_whatever_it_states(
    tmp_path: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("red/bomb.png", bytes(30 << 20))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    for stated in (30 << 20, 100):
        data[at : at + 4] = struct.pack("<I", stated)
        path.write_bytes(data)
        (fault,) = ImageReader("anomaly", read_small, store).faults(path, {}, "training_file")
        assert fault.code in {"image_too_large", "broken_member", "unsupported_image"}


def test_an_archive_of_too_many_members_is_refused_before_its_directory_is_read(
    tmp_path: Path, faults: Callable[..., list[TrainingDataError]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "x.zip", discs(2))
    monkeypatch.setattr(image_archive, "MAX_IMAGES", 5)
    assert "at most 5 images, got 6" in faults(path)[0].message
    monkeypatch.setattr(zipfile, "ZipFile", None)
    for at, content in ((12, struct.pack("<I", 1 << 30)), (-20, b"PK\x06\x07")):
        data = bytearray(path.read_bytes())
        end = data.index(b"PK\x05\x06") + at
        data[end : end + 4] = content
        (tmp_path / "y.zip").write_bytes(data)
        assert faults(tmp_path / "y.zip")[0].code == "too_many_rows"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"PK\x03\x04 and no more", "invalid_zip"),
        (b"PK\x05\x06" + bytes(18), "no_rows"),
        (b"text,label\n", "wrong_format"),
        (b"", "no_rows"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, faults: Callable[..., list[TrainingDataError]], content: bytes, code: str
) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    assert [fault.code for fault in faults(path)] == [code]


def test_columns_are_those_of_images(tmp_path: Path, read: Callable[..., TextRows]) -> None:
    with pytest.raises(TrainingDataError, match="among image, label"):
        read(archive(tmp_path / "x.zip", {"red/a.png": tile(0)}), text="a")
