"""Fronts check tensors and the engine computes them: the same outputs as in one process, from one copy of a program."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.errors import ArtifactError, TensorError
from models.programs.description import Description, write_description
from models.programs.golden_tensors import GOLDEN, write_golden
from models.programs.program import Program
from models.programs.row_check import sample_inputs
from models.programs.tensors import NUMPY_DTYPES, HostTensor
from models.source import ModelSource
from service.engine.frames import SubmitTensors, TensorPart, encode, to_engine
from service.engine.request import Request
from service.errors import BodyTooLarge, InvalidOutput
from service.metrics import Metrics
from service.serving.engine_factory import EngineFactory
from service.serving.engine_link import RECONNECTING
from service.serving.model_manager import ModelManager
from service.serving.model_opener import LocalModelOpener
from service.serving.program_model import ProgramOutput, ServedProgram, TensorItem
from service.serving.remote_models import RemoteModelOpener
from service.serving.servable import Caller, wait_for_rows
from service.serving.tensor_frames import give_outputs, read_facts, tensor_submission, tensors_of, write_facts
from tests.service.serving.test_remote_models import Bench, until
from tests.support.programs import PROGRAMS, host, open_program, program_path

TIMEOUT_S = 60.0
NAMES = ["mlp", "words", "multiples", "doubled", "fixed", "lookup", "half", "convolution"]
X = host(np.random.default_rng(0).standard_normal((3, 16)))


class ProgramBench(Bench):
    """An engine of real programs, and what fronts open them by."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        super().__init__(model=[str(program_path(name)) for name in names], home=folder)
        engines = EngineFactory(self.settings, self.metrics, self.failures.append)
        self.source = cast(Any, LocalModelOpener(self.settings, engines))
        self.server = self._new_server()

    async def opener(self) -> RemoteModelOpener:
        """What a front opens models by."""
        link = self.link()
        await self.connect(link)
        return RemoteModelOpener(self.settings, link, self.metrics)

    async def manager(self) -> ModelManager:
        """A front's models, once they are open."""
        manager = ModelManager(self.settings, Metrics(), opener=await self.opener())
        await asyncio.to_thread(manager.open)
        return manager


def run(folder: Path, test: Callable[[ProgramBench], Awaitable[None]], *names: str) -> None:
    async def main() -> None:
        bench = ProgramBench(folder, list(names))
        bench.server.start()
        try:
            await asyncio.wait_for(cast(Any, test(bench)), TIMEOUT_S)
        finally:
            await bench.server.close()

    asyncio.run(main())


async def infer(manager: ModelManager, name: str, **tensors: Any) -> ProgramOutput:
    served = manager.find(name)
    assert isinstance(served, ServedProgram)
    served.check(tensors)
    return await served.infer(tensors, Caller())


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*.pt2")), ids=lambda path: path.stem)
def test_a_front_knows_the_contract_and_the_description(path: Path) -> None:
    program = open_program(path)
    contract, description = read_facts(write_facts(program))
    assert contract.signature() == program.contract.signature()
    assert [one.text for one in contract.conditions] == [one.text for one in program.contract.conditions]
    assert (contract.batch, contract.ids) == (program.contract.batch, program.contract.ids)
    assert description == program.description


def test_outputs_are_those_of_one_process(tmp_path: Path) -> None:
    async def test(bench: ProgramBench) -> None:
        manager = await bench.manager()
        assert [served.metadata.name for served in manager.all()] == NAMES
        for name in NAMES:
            program = open_program(name)
            inputs = sample_inputs(program.contract, 2)
            assert inputs is not None
            made, expected = (await infer(manager, name, **inputs)).tensors, program.run(inputs)
            assert {key: (one.dtype, one.shape) for key, one in made.items()} == {
                key: (one.dtype, one.shape) for key, one in expected.items()
            }
            for key, one in made.items():
                np.testing.assert_allclose(one.values, expected[key].values, rtol=1e-4, atol=1e-5)
        await asyncio.to_thread(manager.close)

    run(tmp_path, test, *NAMES)


def test_two_fronts_share_one_copy_and_a_large_request_is_several_items(tmp_path: Path) -> None:
    async def test(bench: ProgramBench) -> None:
        first, second = [await bench.manager(), await bench.manager()]
        ids = host(np.arange(60 * 16).reshape(60, 16) % 50, "int64")
        made = await asyncio.gather(*(infer(manager, "words", ids=ids) for manager in (first, second)))
        expected = open_program("words").run({"ids": ids})["output_1"].values
        for output in made:
            np.testing.assert_allclose(output.tensors["output_1"].values, expected, rtol=1e-5, atol=1e-6)
            assert output.inference_s > 0
        assert list(bench.server._models) == [first.find("words").label]
        assert (bench.server.admission.items, bench.server.admission.tokens) == (0, 0)
        await asyncio.to_thread(first.close)
        await infer(second, "words", ids=ids)
        await asyncio.to_thread(second.close)

    run(tmp_path, test, "words")


def test_a_request_larger_than_a_frame_travels_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = host(np.arange(60 * 16).reshape(60, 16) % 50, "int64")

    async def test(bench: ProgramBench) -> None:
        manager = await bench.manager()
        monkeypatch.setattr("service.engine.frames.MAX_FRAME_BYTES", 5000)
        with pytest.raises(BodyTooLarge, match="5000 are allowed"):
            await infer(manager, "words", ids=ids)
        monkeypatch.setattr("service.serving.remote_models._PART_BYTES", 4096)
        made = (await infer(manager, "words", ids=ids)).tensors
        expected = open_program("words").run({"ids": ids})["output_1"].values
        np.testing.assert_allclose(made["output_1"].values, expected, rtol=1e-5, atol=1e-6)
        [front] = bench.server._fronts
        assert not front._begun
        await asyncio.to_thread(manager.close)

    run(tmp_path, test, "words")


def test_errors_of_a_front_and_of_the_engine_are_those_of_one_process(tmp_path: Path) -> None:
    async def test(bench: ProgramBench) -> None:
        manager = await bench.manager()
        with pytest.raises(TensorError, match=r"x: expected float32 \[batch, 16\], got \[1, 15\]"):
            await infer(manager, "mlp", x=host(np.zeros((1, 15))))
        with pytest.raises(InvalidOutput, match="NaN or infinity"):
            await infer(manager, "mlp", x=host(np.full((1, 16), 3e38)))
        with pytest.raises(TensorError, match=r"expected values that the program computes: .* \(IndexError\)"):
            await infer(manager, "lookup", x=host(np.full((1, 3), 9)))
        assert (await infer(manager, "mlp", x=X)).tensors["output"].is_finite
        await asyncio.to_thread(manager.close)

    run(tmp_path, test, "mlp", "lookup")


def test_a_new_engine_has_the_programs_again(tmp_path: Path) -> None:
    async def test(bench: ProgramBench) -> None:
        link = bench.link()
        await bench.connect(link)
        manager = ModelManager(bench.settings, Metrics(), opener=RemoteModelOpener(bench.settings, link, bench.metrics))
        await asyncio.to_thread(manager.open)
        await bench.server.close()
        await until(lambda: manager.problem == RECONNECTING)
        bench.restart()
        await bench.connect(link)
        await until(lambda: manager.problem is None)
        assert (await infer(manager, "mlp", x=X)).tensors["output"].is_finite
        assert not bench.failures
        await asyncio.to_thread(manager.close)

    run(tmp_path, test, "mlp")


def _registered(folder: Path) -> ModelSource:
    """A classifier with its golden tensors, as a version of the registry has them."""
    path = folder / "v1" / "model.pt2"
    path.parent.mkdir()
    shutil.copy(program_path("mlp"), path)
    write_description(path, Description(task="classification", labels=tuple("abcd"), scores="logits"))
    assert write_golden(path.parent, open_program("mlp")) == ""
    return ModelSource("ft:program:local:net", path, "registered", "v1")


def test_a_registered_program_is_loaded_once_and_unloaded_with_the_last_front(tmp_path: Path) -> None:
    source = _registered(tmp_path)

    async def test(bench: ProgramBench) -> None:
        opened = [await asyncio.to_thread((await bench.opener()).open_program, source) for _ in range(2)]
        found = bench.server.find("ft:program:local:net:v1")
        assert found is not None
        assert isinstance(found[0], Program)
        for one in opened:
            assert one.program.metadata == found[0].metadata
            assert one.program.description.labels == tuple("abcd")
            item = TensorItem({"x": X}, 1)
            await wait_for_rows(one.engine.submit([item]))
            expected = open_program("mlp").run({"x": X})["output"].values
            np.testing.assert_allclose(item.finished()["output"].values, expected, rtol=1e-5, atol=1e-6)
            one.engine.close()
        await until(lambda: bench.server.find("ft:program:local:net:v1") is None)

    run(tmp_path, test, "fixed")


def test_a_version_that_a_front_opens_again_outlives_the_end_of_the_first(tmp_path: Path) -> None:
    """A version that comes back into service while a request holds it from before is open twice."""
    source = _registered(tmp_path)
    label = "ft:program:local:net:v1"

    async def test(bench: ProgramBench) -> None:
        link = bench.link()
        await bench.connect(link)
        opener = RemoteModelOpener(bench.settings, link, bench.metrics)
        first, second, third = [await asyncio.to_thread(opener.open_program, source) for _ in range(3)]
        first.engine.close()
        await wait_for_rows(second.engine.submit([TensorItem({"x": X}, 1)]))
        await bench.server.close()
        await until(lambda: link.lost is not None)
        bench.restart()
        await bench.connect(link)
        await until(lambda: link.lost is None)
        second.engine.close()
        await wait_for_rows(third.engine.submit([TensorItem({"x": X}, 1)]))
        third.engine.close()
        await until(lambda: bench.server.find(label) is None)

    run(tmp_path, test, "fixed")


def test_the_engine_refuses_a_program_that_gives_other_outputs_than_at_its_registration(tmp_path: Path) -> None:
    source = _registered(tmp_path)
    tensors = load_file(source.path.parent / GOLDEN)
    save_file(tensors | {"output.output": tensors["output.output"] * 1.01}, source.path.parent / GOLDEN)

    async def test(bench: ProgramBench) -> None:
        opener = await bench.opener()
        with pytest.raises(ArtifactError, match="golden inputs: output output differs by"):
            await asyncio.to_thread(opener.open_program, source)
        assert bench.server.find("ft:program:local:net:v1") is None

    run(tmp_path, test, "fixed")


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_tensors_come_back_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(6).astype(NUMPY_DTYPES[dtype])[: int(np.prod(shape))].reshape(shape)
    item = TensorItem({"x": HostTensor(dtype, values)}, 1)
    request = Request([item, item], 1, client="me", bulk=True)
    frame = tensor_submission("net:1", request, [item, item])
    read = tensors_of(cast(SubmitTensors, to_engine.decode(encode(frame)[4:])))
    for one in read:
        assert (one.tensors["x"].dtype, one.tensors["x"].values.tolist()) == (dtype, values.tolist())
    assert (frame.client, frame.bulk, len(read)) == ("me", True, 2)


@pytest.mark.parametrize(
    "part",
    [
        TensorPart("x", "float32", (2, 3), memoryview(b"\0" * 20)),
        TensorPart("x", "float32", (-1, 3), memoryview(b"\0" * 20)),
        TensorPart("x", "object", (1,), memoryview(b"\0" * 8)),
    ],
)
def test_values_that_do_not_fit_are_refused(part: TensorPart) -> None:
    frame = SubmitTensors(1, "net:1", "", None, None, False, False, ((part,),))
    with pytest.raises(ValueError, match=r"reshape|tensor of object|multiple of element size"):
        tensors_of(frame)


def test_a_frame_without_tensors_and_outputs_of_other_items_are_refused() -> None:
    for items in ((), ((),)):
        with pytest.raises(ValueError, match="expected items with tensors"):
            tensors_of(SubmitTensors(1, "net:1", "", None, None, False, False, items))
    with pytest.raises(ValueError, match="shorter"):
        give_outputs([TensorItem({"x": X}, 1), TensorItem({"x": X}, 1)], [()])
