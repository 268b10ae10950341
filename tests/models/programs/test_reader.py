"""Archives that must not be read: what would run code, and what lies about its sizes."""

from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import ModelError, UnsafeModelError
from models.programs.reader import ReadProgram, read_program
from tests.support.programs import MODEL, WEIGHTS, changed, program_path, read_parts, write_parts

CPU = torch.device("cpu")
Change = Callable[[Any], None]


class _Attack:
    """An object that makes a directory where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


def _read(path: Path) -> ReadProgram:
    return read_program(path, CPU)


def _graph(model: Any) -> Any:
    return model["graph_module"]["graph"]


def _size_of_input(text: str) -> Change:
    def change(model: Any) -> None:
        _graph(model)["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = text

    return change


def _node(**fields: object) -> Change:
    return lambda model: _graph(model)["nodes"][0].update(fields)


def _argument(kind: str, value: object) -> Change:
    def change(model: Any) -> None:
        _graph(model)["nodes"][0]["inputs"][0]["arg"] = {kind: value}

    return change


def _weight(**fields: object) -> Change:
    return lambda config: config["config"]["layers.0.weight"].update(fields)


def _weight_meta(**fields: object) -> Change:
    return lambda config: config["config"]["layers.0.weight"]["tensor_meta"].update(fields)


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = changed(tmp_path / "net.pt2", "mlp", WEIGHTS, _weight(use_pickle=True))
    parts = {**read_parts("mlp"), "data/weights/weight_0": pickle.dumps(_Attack(canary))}
    with zipfile.ZipFile(path) as archive:
        parts[WEIGHTS] = archive.read(f"net/{WEIGHTS}")
    with pytest.raises(UnsafeModelError, match=r"net\.pt2: data/weights/: 'layers.0.weight' is a pickle"):
        _read(write_parts(path, parts))
    assert not canary.exists()


def test_pickled_sample_inputs_are_never_read(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    parts = {**read_parts("mlp"), "data/sample_inputs/model.pt": pickle.dumps(_Attack(canary))}
    assert _read(write_parts(tmp_path / "net.pt2", parts)).contract.inputs[0].name == "x"
    assert not canary.exists()


def test_a_size_that_sympy_would_run_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = changed(tmp_path / "net.pt2", "mlp", MODEL, _size_of_input(f"__import__('os').mkdir({str(canary)!r})"))
    with pytest.raises(UnsafeModelError, match=r"its size of x .* is no arithmetic of sizes"):
        _read(path)
    assert not canary.exists()


def test_a_condition_that_would_be_run_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    def change(model: Any) -> None:
        model["guards_code"] = [f"__import__('os').mkdir({str(canary)!r})"]

    with pytest.raises(UnsafeModelError, match=r"its condition .* is no arithmetic of sizes"):
        _read(changed(tmp_path / "net.pt2", "mlp", MODEL, change))
    assert not canary.exists()


def test_names_of_values_never_become_code(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = f"x):\n        __import__('os').mkdir({str(canary)!r})\n    def f(self"
    parts = read_parts("mlp")
    parts[MODEL] = (
        parts[MODEL].replace(b'"name": "x"', b'"name": %s' % _json(evil)).replace(b'"x":', _json(evil) + b":")
    )
    program = _read(write_parts(tmp_path / "net.pt2", parts))
    assert program.contract.inputs[0].name == evil
    program.module(torch.zeros(1, 16))
    assert not canary.exists()


def _json(text: str) -> bytes:
    import json

    return json.dumps(text).encode()


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("torch.ops.aten.from_file.default", "from_file"),  # it reads any file
        ("torch.ops.aten.empty.memory_format", "empty"),  # it shows memory of other requests
        ("torch.ops.aten.as_strided.default", "as_strided"),
        ("torch.ops.aten.resize_.default", "resize_"),
        ("torch.ops.aten.add.out", "add.out"),
        ("torch.ops.aten.relu.__class__", "__class__"),
        ("torch.ops.load_library", "load_library"),
        ("torch.load", "torch.load"),
        ("torch.hub.load", "hub"),
        ("_operator.attrgetter", "attrgetter"),
        ("_operator.pow", "pow"),
        ("math.factorial", "factorial"),
        ("os.system", "os.system"),
        ("#ext:op", "#ext:op"),
        ("torch.ops.higher_order.map_impl", "map_impl"),
        ("torch.ops.mine.op.default", "mine"),
    ],
)
def test_an_operator_that_is_not_on_the_list_is_refused_by_name(target: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"net\.pt2: the operator .*{reason}.* is not one of those that are run"):
        _read(changed(tmp_path / "net.pt2", "mlp", MODEL, _node(target=target)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_argument("as_operator", "os.system"), "unknown field"),
        (_argument("as_custom_obj", {"name": "a", "class_fqn": "b"}), "unknown field"),
        (_argument("as_tensor", {"name": "nowhere"}), "computed before, got 'nowhere'"),
        (
            _argument("as_device", {"type": "cuda", "index": 99}),
            "",
        ),  # the placement's device; aten refuses the argument
        (_argument("as_layout", 1), "got as_layout"),
        (_node(inputs=[]), ""),
        (_node(outputs=[{"as_tensor": {"name": "x"}}]), "twice"),
        (_node(outputs=[{"as_int": 3}]), "expected outputs that are tensors or sizes"),
        (lambda model: model["schema_version"].update(major=9), "expected schema 8"),
        (lambda model: model["schema_version"].update(major=7, minor=1), "schema 7.1: export it again"),
        (lambda model: model.update(extra=1), "unknown field `extra`"),
        (lambda model: model.pop("graph_module"), "missing required field `graph_module`"),
        (lambda model: model["graph_module"]["signature"].update(input_specs=[]), "expected inputs that are tensors"),
        (
            lambda model: model["graph_module"]["signature"]["output_specs"].append({"buffer_mutation": {}}),
            "expected a program that only computes, got buffer_mutation",
        ),
        (
            lambda model: model["graph_module"]["signature"]["input_specs"].append({"custom_obj": {}}),
            "an object of its own class",
        ),
        (lambda model: _graph(model)["tensor_values"].pop("x"), "expected the shape of 'x'"),
        (lambda model: _graph(model)["tensor_values"]["x"].update(dtype=33), "torch.export's number 33"),
        (lambda model: _graph(model)["tensor_values"]["p_layers_0_bias"].update(dtype=8), "another dtype or shape"),
        (_size_of_input("s0 + s1"), "expected sizes that inputs state by themselves, got s0, s1"),
        (lambda model: model["guards_code"].append("L['z'].size()[0] == 1"), "is about no size of an input"),
    ],
)
def test_a_graph_that_is_not_well_formed_is_refused(change: Change, reason: str, tmp_path: Path) -> None:
    path = changed(tmp_path / "net.pt2", "mlp", MODEL, change)
    if reason:
        with pytest.raises(ModelError, match=reason) as caught:
            _read(path)
        assert caught.value.message.startswith("net.pt2: ")
    else:
        with pytest.raises((ModelError, RuntimeError, TypeError)):
            _read(path).module(torch.zeros(1, 16))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_weight_meta(storage_offset={"as_int": 1}), "its last value is at 1,024 and its part has 1,024"),
        (_weight_meta(strides=[{"as_int": 17}, {"as_int": 1}]), "expected a tensor within its part"),
        (_weight_meta(strides=[{"as_int": -16}, {"as_int": 1}]), "not negative"),
        (_weight_meta(strides=[{"as_int": 16}]), "expected a stride for each"),
        (_weight_meta(sizes=[{"as_int": 10**11}, {"as_int": 16}]), "expected a tensor within its part"),
        (
            _weight_meta(sizes=[{"as_int": 10**6}, {"as_int": 10**6}], strides=[{"as_int": 0}, {"as_int": 0}]),
            "it declares 1,000,000,000,000 values and its part has 1,024",
        ),
        (_weight_meta(sizes=[{"as_int": 2**63}, {"as_int": 16}]), "not a program"),
        (_weight_meta(sizes=[{"as_expr": {"expr_str": "s0"}}, {"as_int": 16}]), "as numbers"),
        (_weight_meta(dtype=8), "expected a tensor within its part"),
        (_weight_meta(layout=1), "expected a dense tensor"),
        (_weight_meta(dtype=99), "number 99"),
        (_weight(tensor_meta=None), "is a pickle or an object"),
        (_weight(path_name="custom_obj_0"), "is a pickle or an object"),
        (_weight(path_name="../../../../etc/passwd"), "is a pickle or an object"),
        (_weight(path_name="weight_99"), "expected the part data/weights/weight_99"),
        (lambda config: config["config"].pop("layers.0.weight"), "it lacks the weight 'layers.0.weight'"),
    ],
)
def test_a_weight_beyond_its_part_is_refused(change: Change, reason: str, tmp_path: Path) -> None:
    path = changed(tmp_path / "net.pt2", "mlp", WEIGHTS, change)
    tracemalloc.start()
    with pytest.raises(ModelError, match=reason) as caught:
        _read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.message.startswith("net.pt2: ")
    assert peak < 64 * 2**20


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("../evil", b"", "expected paths within one folder"),
        ("data/../../evil", b"", "expected paths within one folder"),
        ("data\\evil", b"", "expected paths within one folder"),
        ("data/aotinductor/model/model.so", b"\x7fELF", "compiled code"),
        ("models/other.json", b"{}", "expected one program"),
        ("serialized_exported_program.json", b"{}", "pickles of an older torch.export"),
        ("archive_format", b"pt3", "expected format pt2"),
        ("archive_version", b"1", "expected format pt2, version 0"),
        ("byteorder", b"big", "little-endian"),
        (MODEL, b"{", "not a program of torch.export"),
        (MODEL, b"[" * 100_000, "not a program of torch.export"),
        (MODEL, b'{"schema_version": {"major": 8, "minor": 1}}', "not a program of torch.export"),
    ],
)
def test_an_archive_of_another_kind_is_refused(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    path = write_parts(tmp_path / "net.pt2", {**read_parts("mlp"), name: content})
    with pytest.raises(ModelError, match=reason) as caught:
        _read(path)
    assert caught.value.message.startswith("net.pt2: ")


@pytest.mark.parametrize("start", [b"Rar!\x1a\x07\x01\0", b"7z\xbc\xaf\x27\x1c", b"\x80\x02", b"%PDF-1.7"])
def test_a_file_of_another_kind_is_named(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(start + bytes(600))
    with pytest.raises(ModelError, match=r"^net\.pt2: expected a program of torch\.export, got a [Rp7P]"):
        _read(path)


def test_parts_must_be_stored_so_that_none_is_a_bomb(tmp_path: Path) -> None:
    parts = {**read_parts("mlp"), "data/weights/weight_9": bytes(10_000_000)}
    with pytest.raises(ModelError, match=r"declare|stored uncompressed"):
        _read(write_parts(tmp_path / "net.pt2", parts, zipfile.ZIP_DEFLATED))


def test_a_size_of_100_gb_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "net.pt2", read_parts("mlp"))
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\x01\x02", 0, content.rfind(b"PK\x05\x06"))
    content[at + 20 : at + 28] = (0xFFFFFFF0).to_bytes(4, "little") * 2
    path.write_bytes(content)
    with pytest.raises(ModelError, match="its parts declare 4,29"):
        _read(path)


def test_two_parts_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "net.pt2", read_parts("mlp"))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"net/{MODEL}", b"{}")
    with pytest.raises(ModelError, match=r"two parts called 'models/model\.json'"):
        _read(path)


def test_a_cut_or_flipped_file_is_refused(tmp_path: Path) -> None:
    content = program_path("mlp").read_bytes()
    path = tmp_path / "net.pt2"
    for cut in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(ModelError, match=r"not a program of torch\.export"):
            _read(path)
    at = content.find(b'"graph_module"')
    path.write_bytes(content[:at] + b"'" + content[at + 1 :])
    with pytest.raises(ModelError, match="Bad CRC-32"):
        _read(path)
