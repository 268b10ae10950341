"""Exported programs in the engine: rows of several requests in one batch, or one request at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from models.errors import ModelSourceError, TensorError
from models.programs.program import Program
from models.programs.row_check import check_rows
from models.programs.tensors import HostTensor
from service.config import Settings
from service.errors import InvalidOutput, InvalidRequest, WrongTask
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from service.serving.program_model import (
    ProgramBackend,
    ProgramOutput,
    ServedProgram,
    TensorItem,
    cost_in_tokens,
    loop_tokens,
)
from service.serving.servable import Caller
from tests.support.programs import host, open_program, program_path


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelManager]:
    names = ["mlp", "words", "centred", "fixed", "lookup"]
    models = [f"net={program_path('mlp')}", *(str(program_path(name)) for name in names[1:])]
    settings = Settings.read({"home": tmp_path_factory.mktemp("home"), "model": models, "max_request_tokens": 1000})
    manager = ModelManager(settings, Metrics())
    manager.open()
    yield manager
    manager.close()


class Counting:
    """A program that notes the shapes of its first input."""

    def __init__(self, name: str) -> None:
        self._program = check_rows(open_program(name))
        self.contract, self.metadata = self._program.contract, self._program.metadata
        self.shapes: list[tuple[int, ...]] = []

    def run(self, tensors: Mapping[str, HostTensor]) -> dict[str, HostTensor]:
        self.shapes.append(next(iter(tensors.values())).shape)
        return self._program.run(tensors)


def _program(manager: ModelManager, name: str) -> ServedProgram:
    served = manager.find(name)
    assert isinstance(served, ServedProgram)
    return served


def _rows(count: int, width: int = 16) -> HostTensor:
    return host(np.random.default_rng(count).standard_normal((count, width)))


def _infer(served: ServedProgram, **tensors: HostTensor) -> Mapping[str, HostTensor]:
    served.check(tensors)
    return asyncio.run(served.infer(tensors, Caller())).tensors


def _forward(program: Counting, items: list[TensorItem]) -> list[float]:
    backend = ProgramBackend(program)  # type: ignore[arg-type]  # it has what the backend uses
    return [float(row) for row in backend.forward(items, lambda: None)[:, 0]]


def test_a_program_is_found_by_its_name_and_by_its_file(manager: ModelManager) -> None:
    assert [served.metadata.name for served in manager.all()] == ["net", "words", "centred", "fixed", "lookup"]
    metadata = _program(manager, "net").metadata
    assert metadata.signature() == _program(manager, "net").contract.signature()
    assert metadata.origin == f"file {program_path('mlp')}"
    assert len(metadata.version) == 12


def test_outputs_are_those_of_the_program(manager: ModelManager) -> None:
    x = _rows(5)
    [(name, got)] = _infer(_program(manager, "net"), x=x).items()
    assert name == "output"
    np.testing.assert_allclose(got.values, open_program("mlp").run({"x": x})["output"].values, rtol=1e-5, atol=1e-6)


def test_rows_of_several_requests_share_a_batch_of_one_shape() -> None:
    program = Counting("multiples")
    items = [TensorItem({"x": _rows(rows, width)}, 1) for rows, width in [(2, 16), (3, 24), (4, 16)]]
    assert _forward(program, items) == [0.0, 0.0, 0.0]
    assert program.shapes == [(6, 16), (3, 24)]
    for item in items:
        rows, width = item.tensors["x"].shape
        expected = item.tensors["x"].values.reshape(rows, width // 8, 8).sum(-1)
        np.testing.assert_allclose(item.finished()["output"].values, expected, rtol=1e-5, atol=1e-6)


def test_a_batch_has_no_more_rows_than_the_contract_allows() -> None:
    program = Counting("mlp")
    _forward(program, [TensorItem({"x": _rows(30)}, 1) for _ in range(5)])
    assert program.shapes == [(60, 16), (60, 16), (30, 16)]


def test_rows_that_depend_on_others_are_computed_alone() -> None:
    program = Counting("centred")
    _forward(program, [TensorItem({"x": _rows(2)}, 1), TensorItem({"x": _rows(3)}, 1)])
    assert program.shapes == [(2, 16), (3, 16)]


def test_a_program_that_gives_other_than_its_rows_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Counting("mlp")
    monkeypatch.setattr(program, "run", lambda tensors: {"output": _rows(4, 4)})
    with pytest.raises(InvalidOutput, match="the program gave other than 5 rows of output"):
        _forward(program, [TensorItem({"x": _rows(2)}, 1), TensorItem({"x": _rows(3)}, 1)])


def test_a_large_request_is_several_items(manager: ModelManager) -> None:
    served = _program(manager, "words")
    ids = host(np.arange(60 * 16).reshape(60, 16) % 50, "int64")
    assert cost_in_tokens({"ids": ids}) == 960
    assert [item.rows for item in served._cut({"ids": ids})] == [16, 16, 16, 12]
    outputs = _infer(served, ids=ids)
    assert {name: tensor.shape for name, tensor in outputs.items()} == {"output_0": (60, 3), "output_1": (60, 5)}
    alone = open_program("words").run({"ids": ids})
    np.testing.assert_allclose(outputs["output_1"].values, alone["output_1"].values, rtol=1e-5, atol=1e-6)


def test_a_request_beyond_the_contract_or_the_limit_is_refused(manager: ModelManager) -> None:
    with pytest.raises(TensorError, match=r"x: expected float32 \[batch, 16\], got \[2, 15\]"):
        _infer(_program(manager, "net"), x=_rows(2, 15))
    with pytest.raises(InvalidRequest, match="the tensors of the request count as 1024 tokens, 1000 are allowed"):
        _infer(_program(manager, "words"), ids=host(np.zeros((64, 16)), "int64"))


def test_each_of_many_callers_at_once_gets_the_answer_to_its_own_rows(manager: ModelManager) -> None:
    """Batches are computed on the event loop until more wait than it computes, and then in threads."""
    served = _program(manager, "net")
    random = np.random.default_rng(0)
    rows = [host(random.standard_normal((at % 7 + 1, 16))) for at in range(100)]
    alone = [_infer(served, x=one)["output"].values for one in rows]

    async def together() -> list[ProgramOutput]:
        return await asyncio.gather(*(served.infer({"x": one}, Caller(str(at))) for at, one in enumerate(rows)))

    for made, expected in zip(asyncio.run(together()), alone, strict=True):
        np.testing.assert_allclose(made.tensors["output"].values, expected, atol=1e-6)


def test_nan_and_failures_end_the_request_alone(manager: ModelManager) -> None:
    with pytest.raises(InvalidOutput):
        _infer(_program(manager, "net"), x=host(np.full((1, 16), 3e38)))
    for wrong in (50, -1):
        with pytest.raises(TensorError, match=rf"ids: expected ids 0\.\.49, got {wrong}"):
            _infer(_program(manager, "words"), ids=host([[1, wrong]], "int64"))
    with pytest.raises(TensorError, match=r"expected values that the program computes: .* \(IndexError\)"):
        _infer(_program(manager, "lookup"), x=host(np.full((1, 3), 9)))
    assert _infer(_program(manager, "net"), x=_rows(1))["output"].is_finite


def test_a_fixed_batch_is_served_as_it_is(manager: ModelManager) -> None:
    assert _infer(_program(manager, "fixed"), x=_rows(2))["output"].shape == (2,)
    with pytest.raises(TensorError, match="dimension 0 is 3, expected 2"):
        _infer(_program(manager, "fixed"), x=_rows(3))


def test_routes_for_texts_say_that_a_program_reads_tensors(manager: ModelManager) -> None:
    with pytest.raises(
        WrongTask, match="net does inference with tensors; models that do embedding with texts: none here"
    ):
        manager.find_for("embedding", "net")
    with pytest.raises(WrongTask, match="net reads tensors, not texts"):
        asyncio.run(manager.resolve_texts("net"))


def test_what_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    def open_one(spec: str) -> None:
        manager = ModelManager(Settings.read({"home": tmp_path, "model": [spec]}), Metrics())
        try:
            manager.open()
        finally:
            manager.close()

    with pytest.raises(ModelSourceError, match=r"there is no file 'nowhere\.pt2'"):
        open_one("nowhere.pt2")
    with pytest.raises(ModelSourceError, match="changes them as it runs"):
        open_one(str(program_path("training")))


def test_the_backend_reads_programs() -> None:
    program: Program = check_rows(open_program("half"))
    item = TensorItem({"x": HostTensor("bfloat16", np.zeros((2, 4), np.uint16))}, 1)
    assert ProgramBackend(program).forward([item], lambda: None).tolist() == [[0.0]]
    assert item.finished()["output"].dtype == "bfloat16"


class Slow(Counting):
    """A program that takes long for more than `fast_rows` rows."""

    has_sizes_by_values = False

    def __init__(self, name: str, fast_rows: int) -> None:
        super().__init__(name)
        self._fast_rows = fast_rows

    def run(self, tensors: Mapping[str, HostTensor]) -> dict[str, HostTensor]:
        outputs = super().run(tensors)
        until = time.thread_time() + 0.03 * (self.shapes[-1][0] > self._fast_rows)
        while time.thread_time() < until:
            pass
        time.sleep(0.03)  # as other threads do at a start, which have Python's lock or the processor
        return outputs


@pytest.mark.parametrize(("fast_rows", "tokens"), [(64, 64), (40, 2), (16, 1), (0, 0)])
@pytest.mark.slow
def test_the_event_loop_computes_what_takes_less_than_http(
    monkeypatch: pytest.MonkeyPatch, fast_rows: int, tokens: int
) -> None:
    monkeypatch.setattr("service.serving.program_model._LOOP_S", 0.02)
    assert loop_tokens(Slow("mlp", fast_rows)) == tokens  # type: ignore[arg-type]  # what is asked of a program


def test_the_event_loop_computes_no_program_whose_rows_share_no_batch() -> None:
    assert loop_tokens(check_rows(open_program("centred"))) == 0


def test_the_event_loop_runs_no_program_whose_values_are_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    program = check_rows(open_program("mlp"))
    assert not program.has_sizes_by_values
    assert loop_tokens(program) > 0
    monkeypatch.setattr("models.programs.program._SIZES_BY_VALUES", {"aten.linear.default"})
    assert program.has_sizes_by_values
    assert loop_tokens(program) == 0
