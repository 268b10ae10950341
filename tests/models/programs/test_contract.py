from __future__ import annotations

import numpy as np
import pytest

from models.errors import TensorError
from models.programs.contract import Contract
from models.programs.tensors import HostTensor
from tests.support.programs import host, open_program


@pytest.fixture(scope="module")
def convolution() -> Contract:
    return open_program("convolution").contract


def _image(*shape: int) -> HostTensor:
    return host(np.zeros(shape))


def test_a_contract_names_inputs_outputs_and_sizes() -> None:
    assert open_program("mlp").contract.signature() == {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 16]}],
        "outputs": [{"name": "output", "dtype": "float32", "shape": ["batch", 4]}],
        "dimensions": {"batch": {"minimum": 1, "maximum": 64}},
    }


def test_outputs_have_the_keys_of_the_dictionary_that_a_module_returned(convolution: Contract) -> None:
    assert [spec.name for spec in convolution.outputs] == ["features", "means"]  # the count is no tensor


def test_the_batch_is_the_size_that_all_tensors_begin_with() -> None:
    assert open_program("convolution").contract.batch is not None
    assert open_program("mlp").contract.most_rows == 64
    assert open_program("fixed").contract.batch is None
    assert open_program("doubled").contract.batch is None


@pytest.mark.parametrize(
    ("tensors", "param", "message"),
    [
        ({}, "image", "image: expected float32 [batch, 3, s73, s6], got none"),
        ({"image": _image(1, 3, 9, 9)}, "gain", "gain: expected float32 [batch], got none"),
        ({"img": _image(1, 3, 9, 9)}, "inputs", "inputs: no input 'img'; the model has: image, gain"),
        ({"image": host(np.zeros((1, 3, 9, 9)), "float64"), "gain": _image(1)}, "image", "got dtype float64"),
        ({"image": host(np.zeros((1, 3, 9, 9)), "int64"), "gain": _image(1)}, "image", "got dtype int64"),
        ({"image": _image(3, 9, 9), "gain": _image(1)}, "image", "got [3, 9, 9]"),
        ({"image": _image(1, 4, 9, 9), "gain": _image(1)}, "image", "dimension 1 is 4, expected 3"),
        ({"image": _image(0, 3, 9, 9), "gain": _image(0)}, "image", "dimension 0 is 0, expected 1.."),
        ({"image": _image(1, 3, 513, 9), "gain": _image(1)}, "image", "dimension 2 is 513, expected 8..512"),
        ({"image": _image(1, 3, 7, 9), "gain": _image(1)}, "image", "dimension 2 is 7, expected 8..512"),
        ({"image": _image(1, 3, 9, 9), "gain": _image(2)}, "gain", "dimension 0 is 2, expected 1, as batch is"),
        ({"image": _image(1, 3, 9, 9), "gain": _image()}, "gain", "expected float32 [batch], got []"),
    ],
)
def test_a_tensor_that_breaks_the_contract_is_named(
    convolution: Contract, tensors: dict[str, HostTensor], param: str, message: str
) -> None:
    with pytest.raises(TensorError) as caught:
        convolution.check(tensors)
    assert caught.value.param == param
    assert message in caught.value.message


def test_what_torch_export_took_for_granted_is_checked() -> None:
    contract = open_program("multiples").contract
    contract.check({"x": _image(2, 24)})
    with pytest.raises(TensorError, match=r"expected sizes with x\[1\] % 8 == 0, got x \[2, 20\]"):
        contract.check({"x": _image(2, 20)})
    with pytest.raises(TensorError, match="expected sizes with"):  # a width of 4 divides by zero in other conditions
        contract.check({"x": _image(2, 4)})


def test_a_size_may_be_a_formula_of_others() -> None:
    contract = open_program("doubled").contract
    contract.check({"x": _image(5, 3), "y": _image(10, 3)})
    with pytest.raises(TensorError, match="dimension 0 is 9, expected 10"):
        contract.check({"x": _image(5, 3), "y": _image(9, 3)})


def test_ids_are_bounded_by_the_table_that_they_are_looked_up_in() -> None:
    contract = open_program("words").contract
    assert contract.signature()["inputs"] == [
        {"name": "ids", "dtype": "int64", "shape": ["batch", "s27"], "minimum": 0, "maximum": 49}
    ]
    contract.check_values({"ids": host([[0, 49]], "int64")})
    with pytest.raises(TensorError, match=r"ids: expected ids 0\.\.49, got 50"):
        contract.check_values({"ids": host([[0, 50]], "int64")})


def test_requests_that_passed_let_no_others_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.programs.contract._MOST_PASSED", 2)
    contract = open_program("mlp").contract
    for rows in (1, 2, 3, 1):
        contract.check({"x": _image(rows, 16)})
    assert len(contract._passed) == 2
    for wrong in (_image(1, 15), _image(65, 16), _image(16), host(np.zeros((1, 16)), "float64")):
        for _ in range(2):
            with pytest.raises(TensorError):
                contract.check({"x": wrong})
    with pytest.raises(TensorError, match="no input 'y'"):
        contract.check({"x": _image(1, 16), "y": _image(1, 16)})
