"""The data checks of an uploaded file over HTTP."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api.routes import file_check
from tests.support.image_files import archive, discs

ROWS = "text,label\n" + "".join(f"text number {at},{'even' if at % 2 == 0 else 'odd'}\n" for at in range(60))


def upload(client: TestClient, content: str | bytes, name: str = "rows.csv") -> str:
    answer = client.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": (name, content)})
    identity: str = answer.raise_for_status().json()["id"]
    return identity


def check(client: TestClient, file: str, **body: Any) -> Any:
    return client.post(f"/v1/files/{file}/check", json=body)


def test_a_good_file_has_findings_of_the_first_stage(client: TestClient) -> None:
    report = check(client, upload(client, ROWS)).json()
    assert report["status"] in {"ok", "warn"}
    assert report["rungs"][0]["rung"] == "data"
    assert report["rungs"][0]["findings"]


def test_all_faulty_rows_are_named(client: TestClient) -> None:
    report = check(client, upload(client, ROWS + ",even\n,odd\n")).json()
    assert report["status"] == "fail"
    assert [finding["rows"] for finding in report["rungs"][0]["findings"]] == [[62], [63]]


def test_columns_are_mapped(client: TestClient) -> None:
    file = upload(client, ROWS.replace("text,label", "said,meant", 1))
    assert check(client, file).json()["status"] == "fail"
    assert check(client, file, columns={"text": "said", "label": "meant"}).json()["status"] != "fail"


@pytest.mark.parametrize("content", ["\x00\x01\x02", "no header", "\n\n"])
def test_what_is_no_table_is_a_finding(client: TestClient, content: str) -> None:
    assert check(client, upload(client, content)).json()["status"] == "fail"


def test_wrong_requests_are_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    file = upload(client, ROWS)
    assert check(client, "file-none").status_code == 404
    assert check(client, file, task="dance").status_code == 422
    assert check(client, file, hyperparameters={"dance": 1}).status_code == 422
    monkeypatch.setattr(file_check, "MAX_BYTES", 100)
    refused = check(client, file)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "file_id")


def test_a_workbook_is_measured_unpacked(client: TestClient) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", bytes(file_check.MAX_UNPACKED_BYTES + 1))
    refused = check(client, upload(client, stream.getvalue(), "rows.xlsx"))
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "file_id")
    assert "bytes unpacked" in refused.json()["error"]["message"]
    assert check(client, upload(client, b"PK\x03\x04 no archive", "rows.xlsx")).json()["status"] == "fail"


def test_an_archive_of_images_is_checked_as_images(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = archive(tmp_path / "images.zip", discs(3) | {"discs/red/broken.png": b"no image"}).read_bytes()
    file = upload(client, content, "images.zip")
    report = check(client, file).json()
    assert [finding["check"] for finding in report["rungs"][0]["findings"]] == ["unsupported_image"]
    monkeypatch.setattr(file_check, "MAX_PIXELS", 9 * 48 * 48 - 1)
    refused = check(client, file)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "file_id")
    assert "at most 20735 pixels to check, got 20736" in refused.json()["error"]["message"]
