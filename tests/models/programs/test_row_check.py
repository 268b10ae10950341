from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.errors import ModelSourceError
from models.programs.row_check import check_rows
from tests.support.programs import MODEL, changed, host, open_program


@pytest.mark.parametrize("name", ["mlp", "convolution", "words", "half", "multiples"])
def test_rows_that_are_the_same_alone_share_batches(name: str) -> None:
    metadata = check_rows(open_program(name)).metadata
    assert not metadata.one_by_one
    assert metadata.batches == "rows of several requests share a batch; 3 rows were compared with each alone"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("centred", "a row of output depends on the others of its batch, by "),
        ("branches", "a row of output depends on the others of its batch, by "),
        ("fixed", "not all of its inputs and outputs begin with one size that varies"),
        ("doubled", "not all of its inputs and outputs begin with one size that varies"),
    ],
)
def test_others_compute_one_request_at_a_time_and_say_why(
    name: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = check_rows(open_program(name)).metadata
    assert metadata.one_by_one
    assert metadata.batches.startswith(f"one request at a time: {why}")
    assert why in caplog.text


def test_an_output_of_another_dtype_than_stated_is_refused(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model["graph_module"]["graph"]["tensor_values"]["mul"]["dtype"] = 8

    program = open_program(changed(tmp_path / "net.pt2", "mlp", MODEL, change))
    with pytest.raises(ModelSourceError, match="net: its output output is stated as float64 with 2 dimensions, and is"):
        check_rows(program)


def test_a_program_whose_inputs_are_too_large_to_try_is_served_alone(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model["range_constraints"] = {name: {"min_val": 10**15, "max_val": None} for name in model["range_constraints"]}

    metadata = check_rows(open_program(changed(tmp_path / "net.pt2", "words", MODEL, change))).metadata
    assert metadata.batches == "one request at a time: no sizes were found that keep to its conditions"


def test_a_program_that_changes_its_weights_is_refused() -> None:
    with pytest.raises(ModelSourceError, match=r"training: .* changes them as it runs: export module\.eval\(\)"):
        check_rows(open_program("training"))


def test_a_program_that_changes_its_weights_later_serves_no_request_after_it() -> None:
    program = open_program("mlp")
    inputs = {"x": host([[1.0] * 16])}
    program.run(inputs)
    program.weights()[0].zero_()  # as an operator in place does, behind a condition that the check at load missed
    for _ in range(2):
        with pytest.raises(ModelSourceError, match="changes them as it runs"):
            program.run(inputs)
