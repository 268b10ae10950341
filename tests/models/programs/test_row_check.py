from __future__ import annotations

import pytest

from models.errors import ModelSourceError
from models.programs.row_check import check_rows
from tests.support.programs import open_program


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


def test_a_program_that_changes_its_weights_is_refused() -> None:
    with pytest.raises(ModelSourceError, match=r"training: .* changes them at each call: export module\.eval\(\)"):
        check_rows(open_program("training"))
