"""Compiled code: run only for trusted names, and checked by the contract that is stated beside it."""

from __future__ import annotations

import json
import mmap
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.errors import ModelError, ModelSourceError, TensorError, UnsafeModelError
from models.loader import load_program, open_programs
from models.programs import native
from models.programs.native import is_native
from models.runtime.placement import place
from models.source import locate_program
from service.config import Settings
from service.errors import ConfigError
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from tests.support.programs import host, program_path, read_parts, write_parts

CONTRACT: dict[str, Any] = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 16]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 4]}],
    "dimensions": {"batch": {"minimum": 1, "maximum": 64}},
}


class FakeLoader:
    """PyTorch's loader of a package, which checks no input."""

    def __init__(self, compute: Callable[[list[Tensor]], list[Tensor]], device: str = "cpu") -> None:
        self.run = compute
        self._device = device

    def get_metadata(self) -> dict[str, str]:
        return {"AOTI_DEVICE_KEY": self._device}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_parts(
        tmp_path / "net.pt2", {"archive_format": b"pt2", "data/aotinductor/model/net.wrapper.so": b"\x7fELF"}
    )


def _state(package: Path, contract: dict[str, Any] = CONTRACT, **fields: object) -> None:
    package.with_suffix(".sonde.json").write_text(json.dumps({"contract": contract, **fields}))


def _loads(monkeypatch: pytest.MonkeyPatch, loader: FakeLoader) -> None:
    monkeypatch.setattr("torch._C._aoti.AOTIModelPackageLoader", lambda *_: loader)


def _open(package: Path) -> Any:
    return load_program(locate_program(f"net={package}"), place("cpu", "float32"), trusts_native=True)


def _double(values: list[Tensor]) -> list[Tensor]:
    return [2 * values[0][:, :4]]


def test_compiled_code_is_refused_unless_its_name_is_trusted(package: Path) -> None:
    _state(package)
    for trusted in ((), ("other",)):
        with pytest.raises(
            UnsafeModelError, match=r"net\.pt2: it has compiled code in .*, which is not run: .*--trust-native"
        ):
            list(open_programs([f"net={package}"], "cpu", "float32", 0, trusted=trusted))


def test_trusted_code_computes_within_its_stated_contract(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _loads(monkeypatch, FakeLoader(_double))
    _state(package, task="embedding")
    [program] = open_programs([f"net={package}"], "cpu", "float32", 0, trusted=("net",))
    assert program.metadata.architecture == "AOTInductor: native code"
    assert program.metadata.batches.startswith("rows of several requests share a batch")
    assert (program.metadata.task, program.metadata.width) == ("embedding", 4)
    x = np.arange(48).reshape(3, 16)
    np.testing.assert_array_equal(program.run({"x": host(x)})["y"].values, 2.0 * x[:, :4])
    for wrong, message in [
        (host(np.zeros((3, 15))), r"x: expected float32 \[batch, 16\], got \[3, 15\]"),
        (host(np.zeros((65, 16))), r"dimension 0 is 65, expected 1\.\.64"),
        (host(np.zeros((3, 16)), "float64"), "got dtype float64"),
    ]:
        with pytest.raises(TensorError, match=message):
            program.contract.check({"x": wrong})


def test_loading_compiles_no_probes_of_the_processor(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take seconds, and are run from a directory of /tmp that another user could have made."""

    def refuse(path: str) -> None:
        raise AssertionError("Inductor was called")

    monkeypatch.setattr("torch._inductor.aoti_load_package", refuse)
    _loads(monkeypatch, FakeLoader(_double))
    _state(package)
    _open(package)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux shows what is mapped")
@pytest.mark.parametrize(("device", "left"), [("cpu", False), ("cuda", True)])
def test_the_files_of_loaded_code_are_removed(
    device: str, left: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process would leave them. Kernels of a GPU are read later."""
    folder = tmp_path / "aotinductor_a1B2c3"
    code = folder / "net" / "data" / "aotinductor" / "model" / "net.wrapper.so"
    code.parent.mkdir(parents=True)
    code.write_bytes(b"code" * 1024)
    monkeypatch.setattr("torch._C._aoti.AOTIModelPackageLoader", lambda *_: FakeLoader(_double))
    with code.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        native.load_code(tmp_path / "net.pt2", torch.device(device))
        assert folder.exists() is left
        assert mapped[:4] == b"code"


def test_code_without_a_contract_is_not_run(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr("torch._C._aoti.AOTIModelPackageLoader", never)
    with pytest.raises(ModelSourceError, match="it has compiled code, which accepts any shape: state its contract"):
        _open(package)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda values: [values[0].double()[:, :4]], r"the program gave float64 \[3, 4\]"),
        (lambda values: [values[0][:, 0]], r"the program gave float32 \[3\]"),
        (lambda values: [values[0][:, :5]], r"the program gave float32 \[3, 5\]"),
        (lambda values: [values[0]] * 2, r"the program gave float32 \[3, 16\], float32 \[3, 16\]"),
    ],
)
def test_other_outputs_than_are_stated_are_refused(
    package: Path, monkeypatch: pytest.MonkeyPatch, compute: Callable[[list[Tensor]], list[Tensor]], message: str
) -> None:
    _loads(monkeypatch, FakeLoader(compute))
    _state(package)
    with pytest.raises(ModelError, match=message):
        _open(package)


def test_code_of_another_device_is_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _loads(monkeypatch, FakeLoader(_double, "cuda"))
    _state(package)
    with pytest.raises(ModelSourceError, match="expected code for cpu, got code for cuda"):
        _open(package)


def test_code_that_cannot_be_linked_says_why(package: Path) -> None:
    _state(package)
    with pytest.raises(ModelSourceError, match="its compiled code cannot be loaded here"):
        _open(package)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimensions": {}}, "contract: x: expected 'batch' among dimensions"),
        (
            {"inputs": [{"name": "x", "dtype": "complex64", "shape": [1]}]},
            "contract: x: expected a dtype of bool, .*got complex64",
        ),
        (
            {"inputs": [{"name": "x", "dtype": "float32", "shape": ["__import__('os')"]}]},
            "contract: x: expected .*among dimensions",
        ),
        (
            {"inputs": [{"name": "x", "dtype": "int64", "shape": ["batch"], "minimum": 1}]},
            "contract: x: expected a maximum beside the minimum of its ids",
        ),
        ({"inputs": []}, "Expected `array` of length >= 1"),
        ({"guards": []}, "unknown field `guards`"),
    ],
)
def test_a_contract_that_is_none_is_refused(package: Path, change: dict[str, Any], message: str) -> None:
    _state(package, CONTRACT | change)
    with pytest.raises(ModelSourceError, match=message):
        _open(package)


def test_ids_of_a_stated_contract_have_bounds(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _loads(monkeypatch, FakeLoader(lambda values: [torch.zeros(len(values[0]), 4)]))
    ids = {"name": "x", "dtype": "int64", "shape": ["batch"], "minimum": 0, "maximum": 9}
    _state(package, CONTRACT | {"inputs": [ids]})
    program = _open(package)
    with pytest.raises(TensorError, match=r"x: expected ids 0\.\.9, got 10"):
        program.contract.check_values({"x": host([10], "int64")})


def test_an_ordinary_program_has_a_contract_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    shutil.copy(program_path("mlp"), path)
    assert not is_native(path)
    _state(path)
    with pytest.raises(ModelSourceError, match=r"net\.sonde\.json: contract is for compiled code"):
        _open(path)


def test_only_names_of_programs_can_be_trusted(tmp_path: Path) -> None:
    settings = Settings.read({"home": tmp_path, "model": [f"net={program_path('mlp')}"], "trust_native": "net, other"})
    assert settings.trust_native == ("net", "other")
    manager = ModelManager(settings, Metrics())
    with pytest.raises(ConfigError, match=r"--trust-native: expected names of programs \(net\), got other"):
        manager.open()
    manager.close()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Inductor's imports warn of what PyTorch itself uses
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler is here")
def test_a_package_of_aotinductor_computes_what_the_module_does(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(network, (torch.randn(2, 16),), dynamic_shapes=({0: batch},))
    package = Path(torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "net.pt2")))
    assert is_native(package)
    with pytest.raises(UnsafeModelError, match="--trust-native"):
        load_program(locate_program(f"net={package}"), place("cpu", "float32"))
    _state(package)
    x = torch.randn(5, 16)
    with torch.inference_mode():
        expected = network(x).numpy()
    got = _open(package).run({"x": host(x.numpy())})["y"].values
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_parts_of_native_code_in_an_ordinary_program_are_refused(tmp_path: Path) -> None:
    parts = {**read_parts("mlp"), "data/aotinductor/model/net.so": b"\x7fELF"}
    path = write_parts(tmp_path / "net.pt2", parts)
    assert is_native(path)
    with pytest.raises(UnsafeModelError, match="it has compiled code"):
        load_program(locate_program(f"net={path}"), place("cpu", "float32"))
