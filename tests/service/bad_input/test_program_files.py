"""Exported programs that must not be loaded: each is refused by file and reason, at once, and forgotten."""

from __future__ import annotations

import json
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service import cli
from tests.service.bad_input.running import MOST_KEPT_MB, MOST_PEAK_MB, MOST_S
from tests.support.processes import peak_mb, reset_peak, resident_mb
from tests.support.programs import WEIGHTS, program_path, read_parts, write_parts

Write = Callable[[Path], object]


class _Canary:
    """An object that makes a directory where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("canary",)


def _pickled(path: Path) -> None:
    config = json.loads(read_parts("mlp")[WEIGHTS])
    config["config"]["layers.0.weight"]["use_pickle"] = True
    attack = {WEIGHTS: json.dumps(config).encode(), "data/weights/weight_0": pickle.dumps(_Canary())}
    write_parts(path, read_parts("mlp") | attack)


def _of_100_gb(path: Path) -> None:
    """A weight of 100 GB in its description, whose part has a kilobyte."""
    config = json.loads(read_parts("mlp")[WEIGHTS])
    meta = config["config"]["layers.0.weight"]["tensor_meta"]
    meta["sizes"] = [{"as_int": 5 * 10**6}, {"as_int": 5 * 10**3}]
    write_parts(path, read_parts("mlp") | {WEIGHTS: json.dumps(config).encode()})


def _archive_of_100_gb(path: Path) -> None:
    """An archive whose directory declares a part of 100 GB."""
    write_parts(path, read_parts("mlp") | {"data/weights/weight_9": b"0" * 64})
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\x01\x02")
    extra = (1).to_bytes(2, "little") + (16).to_bytes(2, "little") + (10**11).to_bytes(8, "little") * 2
    name_length = int.from_bytes(content[at + 28 : at + 30], "little")
    content[at + 20 : at + 28] = b"\xff" * 8
    content[at + 30 : at + 32] = len(extra).to_bytes(2, "little")
    content[at + 46 + name_length : at + 46 + name_length] = extra
    end = content.rfind(b"PK\x05\x06")
    content[end + 12 : end + 16] = (int.from_bytes(content[end + 12 : end + 16], "little") + len(extra)).to_bytes(
        4, "little"
    )
    path.write_bytes(content)


def _bomb(path: Path) -> None:
    write_parts(path, read_parts("mlp") | {"data/weights/weight_9": bytes(200 << 20)}, zipfile.ZIP_DEFLATED)


# By kind: how the file is written, and what the refusal says after its name.
FILES: dict[str, tuple[Write, str]] = {
    "pickle": (_pickled, "'layers.0.weight' is a pickle"),
    "a name with ../": (
        lambda path: write_parts(path, read_parts("mlp") | {"../../evil": b"x"}),
        "expected paths within one folder",
    ),
    "a weight of 100 GB": (_of_100_gb, "expected a tensor within its part"),
    "a part of 100 GB": (_archive_of_100_gb, "its parts declare 100,00"),
    "a bomb": (_bomb, "its parts declare 209,"),
    "native code": (
        lambda path: write_parts(path, read_parts("mlp") | {"data/aotinductor/model/a.so": b"\x7fELF"}),
        "compiled code",
    ),
    "cut off": (
        lambda path: path.write_bytes(program_path("mlp").read_bytes()[:9000]),
        "not a program of torch.export",
    ),
    "empty": (lambda path: path.write_bytes(b""), "not a program of torch.export"),
}


@pytest.mark.parametrize("name", FILES)
def test_program_files_are_refused_at_once_and_forgotten(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, expected = FILES[name]
    monkeypatch.chdir(tmp_path)
    write(Path("evil.pt2"))
    arguments = ("register", "evil.pt2", "net", "--home", str(tmp_path / "home"))
    cli.main(arguments)  # what a first command imports does not count
    before = resident_mb()
    reset_peak()
    began = time.process_time()
    assert cli.main(arguments) == 1
    seconds, more, kept = time.process_time() - began, peak_mb() - before, resident_mb() - before
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("sonde: evil.pt2: ")
    assert expected in said
    assert not Path("canary").exists()
    assert not list((tmp_path / "home").rglob("model.pt2"))
    assert (seconds < MOST_S, more < MOST_PEAK_MB, kept < MOST_KEPT_MB) == (True, True, True), (seconds, more, kept)
