"""A model in service: what is refused before any work, what is never computed, and that rows keep their order."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import ParamSpec, TypeVar

import numpy as np
import pytest

from models.errors import BadTokens, NoTokens, TextTooLong
from models.runtime.device import ComputeDevice
from models.text.tokenization import Tokens
from service.engine.cache import LruCache, RowCache
from service.engine.engine import Engine
from service.engine.scheduler import BatchLimits
from service.errors import BackendError, DeadlineExceeded, InvalidRequest, Overloaded
from service.metrics import Metrics
from service.serving.servable import Admission, Caller, ServingContext
from service.serving.text_model import _CHUNK, Inputs, ModelOutput, ServedText, TokenizeOptions
from tests.fakes.model import FakeModel

P = ParamSpec("P")
T = TypeVar("T")
WAIT_S = 5.0
ANYONE = Caller()
AS_IT_IS = TokenizeOptions()


class Setting:
    """A served model with all that it was made of."""

    def __init__(self, model: FakeModel, max_items: int, max_request_tokens: int, pool: Executor) -> None:
        self.model = model
        self.metrics = Metrics()
        self.admission = Admission(max_items, 100_000, self.metrics)
        self.engine: Engine[Tokens] = Engine(
            "fake",
            "0",
            model,
            model.metadata.width,
            limits=BatchLimits(max_tokens=4096, max_items=256),
            cache=RowCache(0),
            metrics=self.metrics,
            device=ComputeDevice(),
        )
        context = ServingContext(self.admission, LruCache(100), pool, self.metrics, max_request_tokens)
        self.served = ServedText(model, self.engine, context)

    @property
    def computed(self) -> list[str]:
        """Every text of which a row was computed, in order."""
        return [self.model.text.decode(item.ids.tolist()) for batch in self.model.batches for item in batch]

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def rows(self, inputs: Inputs, caller: Caller = ANYONE, options: TokenizeOptions = AS_IT_IS) -> ModelOutput:
        return await self.served.rows(inputs, caller, "embedding", options)


@contextmanager
def serving(
    model: FakeModel | None = None,
    *,
    max_items: int = 1000,
    max_request_tokens: int = 10_000,
    pool: Executor | None = None,
) -> Iterator[Setting]:
    """A served fake whose engine runs, and is closed in the end."""
    with pool or ThreadPoolExecutor(2) as threads:
        made = Setting(model or FakeModel(), max_items, max_request_tokens, threads)
        made.engine.start()
        try:
            yield made
        finally:
            made.model.gate.set()
            made.served.engine.close()


class Busy(FakeModel):
    """A model that computes its first batch until it is released."""

    def __init__(self) -> None:
        super().__init__(fault=self._hold)
        self.entered, self.released = threading.Event(), threading.Event()

    def _hold(self, batch: Sequence[Tokens]) -> None:
        self.entered.set()
        if not self.released.wait(WAIT_S):
            raise TimeoutError("nobody released the batch")


@asynccontextmanager
async def busy(one: Setting, model: Busy) -> AsyncIterator[None]:
    """While one text, "hello", is being computed; then wait for its row."""
    first = asyncio.create_task(one.rows(["hello"]))
    assert await asyncio.to_thread(model.entered.wait, WAIT_S)
    try:
        yield
    finally:
        model.released.set()
        await first


async def queued(one: Setting, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
    """Start work and let it run until it waits in the queue."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    assert one.served.engine.waiting[0] > 0
    return task


def test_texts_become_rows_with_what_they_cost() -> None:
    with serving() as one:
        rows = asyncio.run(one.rows(["hello world", "rain"]))
        alone = asyncio.run(one.rows(["rain"]))
    assert (rows.values.shape, rows.values.dtype.name) == ((2, 16), "float32")
    assert rows.values[1].tolist() == alone.values[0].tolist()
    assert [item.count for item in rows.tokens] == [4, 3]
    assert (rows.token_count, rows.truncated) == (7, 0)
    assert min(rows.tokenize_s, rows.inference_s) > 0
    assert rows.queue_s >= 0


def test_texts_ids_and_pairs_are_read_alike() -> None:
    with serving() as one:
        text = asyncio.run(one.rows(["hello world"]))
        ids = asyncio.run(one.rows([text.tokens[0].ids.tolist()]))
        pair = asyncio.run(one.rows([("hello", "world")]))
    assert ids.values.tolist() == text.values.tolist()
    assert pair.tokens[0].types is not None
    assert pair.tokens[0].types.tolist() == [0, 0, 0, 1, 1]


class Recorded(Executor):
    """Runs nothing until it has been given so many pieces, and then the last one first."""

    def __init__(self, count: int) -> None:
        self.sizes: list[int] = []
        self._count = count
        self._waiting: list[Callable[[], None]] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        self._waiting.append(lambda: future.set_result(fn(*args, **kwargs)))
        self.sizes.append(len(args[0]))  # type: ignore[arg-type]  # a part of the inputs
        if len(self._waiting) == self._count:
            for run in reversed(self._waiting):
                run()
        return future


def test_a_long_request_is_tokenized_in_parts_and_keeps_its_order() -> None:
    texts = [f"w{number} my card is lost" for number in range(3 * _CHUNK + 5)]
    pool = Recorded(4)
    with serving(pool=pool) as one:
        rows = asyncio.run(one.rows(texts))
        assert [one.model.text.decode(item.ids.tolist()) for item in rows.tokens] == texts
        expected = one.model.forward(one.model.text.encode(texts))
    assert pool.sizes == [_CHUNK, _CHUNK, _CHUNK, 5]
    np.testing.assert_array_equal(rows.values, expected)


def test_a_short_request_is_tokenized_at_once() -> None:
    pool = Recorded(1)
    with serving(pool=pool) as one:
        asyncio.run(one.rows(["hello"] * 100))
    assert pool.sizes == []


def _refuse(*_: object, **__: object) -> list[Tokens]:
    pytest.fail("it was tokenized")


def test_a_full_service_refuses_before_it_tokenizes(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(max_items=10) as one:
        monkeypatch.setattr(one.model.text, "encode", _refuse)
        with one.admission.admit(9, 1, lambda: 1.0), pytest.raises(Overloaded):
            asyncio.run(one.rows(["hello", "world"]))
    assert one.value("sonde_shed_total", reason="items") == 1
    assert one.value("sonde_inputs_total", model="fake", task="embedding") == 0


def test_room_is_held_until_the_rows_are_there() -> None:
    model = Busy()

    async def look(one: Setting) -> tuple[int, int]:
        async with busy(one, model):
            return one.admission.items, one.admission.tokens

    with serving(model) as one:
        assert asyncio.run(look(one)) == (1, len("hello") // 4 + 2)
        assert (one.admission.items, one.admission.tokens) == (0, 0)


@pytest.mark.parametrize(
    ("inputs", "estimate"),
    [
        (["a" * 40, ""], 12 + 2),
        (["a" * 4000], 32),  # no more than the model reads
        ([[5] * 10], 12),
        ([("a" * 20, "a" * 20)], 12),
    ],
)
def test_the_room_is_estimated_without_tokenizing(inputs: Inputs, estimate: int) -> None:
    model = FakeModel()
    model.gate.clear()

    async def look(one: Setting) -> int:
        task = asyncio.create_task(one.rows(inputs))
        await asyncio.sleep(0)
        held = one.admission.tokens
        one.model.gate.set()
        await task
        return held

    with serving(model) as one:
        assert asyncio.run(look(one)) == estimate


def test_a_deadline_that_passes_in_the_queue_is_never_computed() -> None:
    model = Busy()

    async def late(one: Setting) -> None:
        async with busy(one, model):
            task = await queued(one, one.rows(["rain"], Caller(deadline=time.monotonic() + 0.05)))
            with pytest.raises(DeadlineExceeded, match="time ran out"):
                await task
            assert one.served.engine.waiting == (0, 0)
            assert one.admission.items == 1

    with serving(model) as one:
        asyncio.run(late(one))
    assert one.computed == ["hello"]


def test_a_deadline_that_has_passed_already_is_never_computed() -> None:
    model = Busy()

    async def late(one: Setting) -> None:
        async with busy(one, model):
            with pytest.raises(DeadlineExceeded):
                await one.rows(["rain"], Caller(deadline=time.monotonic() - 1))

    with serving(model) as one:
        asyncio.run(late(one))
    assert one.computed == ["hello"]


def test_a_deadline_far_away_changes_nothing() -> None:
    with serving() as one:
        asyncio.run(one.rows(["rain"], Caller(deadline=time.monotonic() + 60)))
    assert one.computed == ["rain"]


def test_a_caller_that_goes_is_never_computed() -> None:
    model = Busy()

    async def gone(one: Setting) -> None:
        async with busy(one, model):
            task = await queued(one, one.rows(["rain"]))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert one.served.engine.waiting == (0, 0)
            assert one.admission.items == 1

    with serving(model) as one:
        asyncio.run(gone(one))
    assert one.computed == ["hello"]


def test_a_caller_that_goes_while_it_is_computed_harms_nobody() -> None:
    model = Busy()

    async def gone(one: Setting) -> None:
        task = asyncio.create_task(one.rows(["hello"]))
        assert await asyncio.to_thread(model.entered.wait, WAIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        model.released.set()
        await one.rows(["rain"])

    with serving(model) as one:
        asyncio.run(gone(one))
    assert one.computed == ["hello", "rain"]


def test_the_models_failure_is_told_and_the_room_given_back() -> None:
    def fail(batch: Sequence[Tokens]) -> None:
        raise ValueError("a secret of the library")

    with serving(FakeModel(fault=fail)) as one:
        with pytest.raises(BackendError, match=r"^the model failed on this input$"):
            asyncio.run(one.rows(["hello"]))
        assert (one.admission.items, one.admission.tokens) == (0, 0)


def test_long_texts_are_cut_and_counted() -> None:
    with serving(FakeModel(max_tokens=8)) as one:
        rows = asyncio.run(one.rows(["my " * 20, "my card"]))
    assert [(item.count, item.truncated) for item in rows.tokens] == [(8, True), (4, False)]
    assert rows.truncated == 1
    assert one.value("sonde_inputs_total", model="fake", task="embedding") == 2
    assert one.value("sonde_truncated_inputs_total", model="fake", task="embedding") == 1
    assert one.value("sonde_tokenize_seconds_count", model="fake") == 1


@pytest.mark.parametrize("index", [0, 1, _CHUNK, 2 * _CHUNK + 1])
def test_a_text_that_may_not_be_cut_is_named(index: int) -> None:
    texts = ["my card is lost where is my card please"] * (2 * _CHUNK + 2)
    texts[index] = "my " * 20
    with (
        serving(FakeModel(max_tokens=12)) as one,
        pytest.raises(TextTooLong, match="22 tokens, the limit is 12") as caught,
    ):
        asyncio.run(one.rows(texts, options=TokenizeOptions(truncate=False, param="texts")))
    assert caught.value.param == f"texts[{index}]"
    assert one.computed == []


@pytest.mark.parametrize("wrong", [-1, 1_000_000])
@pytest.mark.parametrize("index", [0, _CHUNK + 3])
def test_ids_that_the_model_does_not_know_are_named(index: int, wrong: int) -> None:
    ids = [[5] * 10 for _ in range(_CHUNK + 4)]
    ids[index] = [5, wrong]
    with (
        serving() as one,
        pytest.raises(BadTokens, match=rf"0 to {one.model.metadata.vocabulary - 1} .* got {wrong}") as caught,
    ):
        asyncio.run(one.rows(ids))
    assert caught.value.param == f"input[{index}]"
    assert (one.computed, one.admission.items) == ([], 0)


@pytest.mark.parametrize(("most", "fits"), [(9, False), (10, True)])
def test_a_request_has_so_many_tokens_and_no_more(most: int, fits: bool) -> None:
    with serving(max_request_tokens=most) as one:
        if fits:
            assert asyncio.run(one.rows(["my card is", "my card is"])).token_count == 10
            return
        with pytest.raises(InvalidRequest, match=r"10 tokens, 9 are allowed: send it in several requests") as caught:
            asyncio.run(one.rows(["my card is", "my card is"], options=TokenizeOptions(param="documents")))
    assert (caught.value.param, one.computed) == ("documents", [])


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (TokenizeOptions(), "a b c d e f"),
        (TokenizeOptions(prompt="hello "), "hello a b c d e"),
        (TokenizeOptions(side="left"), "c d e f g h"),
        (TokenizeOptions(max_tokens=2), "a b"),
        (TokenizeOptions(max_tokens=2, prompt="hello "), "hello a b"),
        (TokenizeOptions(max_tokens=99), "a b c d e f"),
    ],
)
def test_texts_are_read_as_the_caller_wants(options: TokenizeOptions, seen: str) -> None:
    with serving(FakeModel(max_tokens=8)) as one:
        asyncio.run(one.rows(["a b c d e f g h"], options=options))
    assert one.computed == [seen]


def test_of_a_pair_the_second_text_is_cut_where_the_caller_wants() -> None:
    with serving() as one:
        asyncio.run(one.rows([("hello my card", "world rain pizza")], options=TokenizeOptions(max_tokens=2)))
    assert one.computed == ["hello my card world rain"]


def test_prompts_are_found_by_name() -> None:
    with serving(FakeModel(prompts={"query": "find: ", "passage": ""})) as one:
        assert (one.served.prompt("query"), one.served.prompt("passage"), one.served.prompt(None)) == ("find: ", "", "")
        assert (one.served.prompt("document"), one.served.prompt("corpus")) == ("", ""), "by convention"
        with pytest.raises(InvalidRequest, match=r"fake has no prompt 'other'; it has: passage, query") as caught:
            one.served.prompt("other")
    assert caught.value.param == "prompt_name"


def test_a_model_without_prompts_says_so() -> None:
    with serving() as one, pytest.raises(InvalidRequest, match="it has: none"):
        one.served.prompt("title")


@pytest.mark.parametrize(
    ("prompts", "default", "query", "document", "clustering"),
    [
        ({}, None, "", "", ""),
        ({"query": "q: ", "document": "d: "}, None, "q: ", "d: ", ""),
        ({"query": "q: "}, "query", "q: ", "", "q: "),
        ({"query": "q: ", "document": "", "passage": "p: "}, None, "q: ", "p: ", ""),
        ({"query": "q: ", "corpus": "c: "}, "query", "q: ", "c: ", "q: "),
        ({"search_query": "q: ", "search_document": "d: ", "clustering": "c: "}, None, "q: ", "d: ", "c: "),
        ({"instruction": "i: "}, "instruction", "", "", "i: "),
    ],
)
def test_a_purpose_has_the_prompt_that_models_give_it(
    prompts: dict[str, str], default: str | None, query: str, document: str, clustering: str
) -> None:
    with serving(FakeModel(prompts=prompts, default_prompt=default)) as one:
        found = [one.served.prompt_for(purpose) for purpose in ("query", "document", "clustering")]
    assert found == [query, document, clustering]


@pytest.mark.parametrize("name", ["query", "document", "passage", "corpus"])
def test_every_model_knows_the_usual_names(name: str) -> None:
    with serving() as one:
        assert one.served.prompt(name) == ""


def test_work_aside_runs_on_another_thread() -> None:
    with serving() as one:
        assert asyncio.run(one.served.run_in_pool(threading.get_ident)) != threading.get_ident()


def test_the_label_names_model_and_version() -> None:
    with serving() as one:
        assert (one.served.label, one.served.memory_bytes()) == ("fake:0", 0)


class Mean:
    """Something fitted: the mean of the rows."""

    def __init__(self, rows: ModelOutput) -> None:
        self.value = rows.values.mean(axis=0).tolist()
        self.size_bytes = 10


class Other(Mean):
    """Something else fitted to the same texts."""


def test_what_was_fitted_is_kept_by_kind_content_and_reading() -> None:
    async def ask(kind: type[Mean], texts: list[str], truncate: bool = True) -> int:
        made, computed = await one.served.fitted(
            kind, texts, texts, ANYONE, "anomaly", TokenizeOptions(truncate=truncate), kind
        )
        assert type(made) is kind
        assert made.value == Mean(await one.rows(texts)).value
        return len(computed)

    async def ask_all() -> list[int]:
        a, b = ["hello"], ["rain"]
        return [
            await ask(Mean, a),
            await ask(Mean, a),
            await ask(Mean, b),
            await ask(Other, a),
            await ask(Other, a),
            await ask(Mean, a, False),
        ]

    with serving() as one:
        assert asyncio.run(ask_all()) == [1, 0, 1, 1, 0, 1]
    assert one.value("sonde_fitted_cache_hits_total", model="fake") == 2
    assert one.value("sonde_fitted_cache_misses_total", model="fake") == 4


def test_texts_are_explained_uncut() -> None:
    with serving(FakeModel(max_tokens=4)) as one:
        (seen,) = asyncio.run(one.served.explain(["my  card is lost"], ANYONE, "inputs", prompt="hello ", special=True))
        (bare,) = asyncio.run(one.served.explain(["my card"], ANYONE, "inputs", prompt="", special=False))
    assert (seen.text, seen.tokens) == (
        "hello my  card is lost",
        ["[CLS]", "hello", "my", "card", "is", "lost", "[SEP]"],
    )
    assert bare.tokens == ["my", "card"]


@pytest.mark.parametrize("texts", [["a b c", "a b c"], ["a" * 45]])
def test_no_more_is_explained_than_a_request_may_have(texts: list[str]) -> None:
    with serving(max_request_tokens=9) as one, pytest.raises(InvalidRequest, match="9 are allowed") as caught:
        asyncio.run(one.served.explain(texts, ANYONE, "inputs", prompt="", special=True))
    assert (caught.value.param, one.admission.items) == ("inputs", 0)


def test_explaining_ends_with_the_callers_time() -> None:
    with serving() as one, pytest.raises(DeadlineExceeded):
        asyncio.run(one.served.explain(["a"], Caller(deadline=time.monotonic() - 1), "inputs", prompt="", special=True))


def test_ids_become_texts() -> None:
    with serving() as one:
        ids = [item.ids.tolist() for item in one.model.text.encode(["my card", "rain"])]
        assert asyncio.run(one.served.decode(ids, ANYONE)) == ["my card", "rain"]
        assert asyncio.run(one.served.decode(ids[1:], ANYONE, skip_special_tokens=False)) == ["[CLS] rain [SEP]"]


def test_unknown_ids_among_those_to_decode_are_named() -> None:
    with serving() as one, pytest.raises(BadTokens, match="got -1") as caught:
        asyncio.run(one.served.decode([[5], [5, -1]], ANYONE))
    assert caught.value.param == "ids[1]"


def test_decoding_ends_with_the_callers_time() -> None:
    with serving() as one, pytest.raises(DeadlineExceeded) as caught:
        asyncio.run(one.served.decode([[5]], Caller(deadline=time.monotonic() - 1)))
    assert caught.value.param is None


def test_no_more_is_decoded_than_a_request_may_have() -> None:
    with (
        serving(max_request_tokens=9) as one,
        pytest.raises(InvalidRequest, match=r"10 tokens, 9 are allowed") as caught,
    ):
        asyncio.run(one.served.decode([[5] * 5, [5] * 5], ANYONE))
    assert caught.value.param == "ids"


def test_a_full_service_explains_and_decodes_nothing() -> None:
    with serving(max_items=1) as one, one.admission.admit(1, 1, lambda: 1.0):
        with pytest.raises(Overloaded):
            asyncio.run(one.served.explain(["a"], ANYONE, "inputs", prompt="", special=True))
        with pytest.raises(Overloaded):
            asyncio.run(one.served.decode([[5]], ANYONE))


@pytest.mark.parametrize("inputs", [["card", ""], ["card", " \n"], [("card", "card"), ("", " ")], [[5], []]])
def test_a_text_without_tokens_is_refused_at_once_by_its_name(inputs: Inputs) -> None:
    with serving(FakeModel(special_tokens=False)) as one:
        with pytest.raises(NoTokens, match=r"texts\[1\] has no tokens for this model") as caught:
            asyncio.run(one.rows(inputs, options=TokenizeOptions(param="texts")))
        assert caught.value.param == "texts[1]"
        assert one.model.batches == []
