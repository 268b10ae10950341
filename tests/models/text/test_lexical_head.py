"""Heads with word pieces: what counts, files, and when training takes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.errors import ModelSourceError
from models.text.confidence import Confidence
from models.text.heads import LinearHead
from models.text.lexical_head import LexicalHead, WordPieces, load_head
from models.text.tokenization import Tokens
from models.training.heads.lexical_head import SHARE, choose_head
from models.training.heads.linear_head import Examples, fit_head

pytestmark = pytest.mark.slow

LABELS = ("a", "b", "c", "d")
PAIR = 2**32


def read(*ids: int) -> Tokens:
    return Tokens(np.array(ids, np.int32), len(ids))


TEXTS = [read(1, 5, 6, 2), read(1, 5, 6, 2), read(1, 6, 5, 2), read(1, 7, 2)]


def made(temperature: float = 0.5) -> LexicalHead:
    random = torch.Generator().manual_seed(4)
    pieces = WordPieces.fit(TEXTS)
    words = torch.randn(len(pieces.keys), 4, generator=random)
    return LexicalHead(
        torch.randn(4, 3, generator=random),
        torch.randn(4, generator=random),
        pieces,
        words,
        LABELS,
        Confidence(temperature),
    )


def rows(count: int) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(5))


def drawn(count: int, *, telling: bool, seed: int = 0) -> tuple[Examples, list[Tokens]]:
    """Embeddings that tell two pairs of classes apart, and a word that tells the classes of a pair, if it is
    telling.
    """
    random = np.random.default_rng(seed)
    y = np.arange(count) % 4
    x = 0.2 * random.normal(size=(count, 8))  # in fewer dimensions some would be near enough to be copies
    x[:, :2] += np.stack([np.where(y < 2, 1.0, -1.0), np.ones(count)], axis=1)
    said = y % 2 if telling else random.integers(0, 2, count)
    said = np.where(random.random(count) < 0.1, 1 - said, said)
    texts = [read(1, 10 + int(word), *random.integers(20, 40, 3), 2) for word in said]
    return Examples.of((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y), texts


def test_pieces_and_pairs_of_two_texts_or_more_count_but_not_those_of_all() -> None:
    pieces = WordPieces.fit(TEXTS)
    assert pieces.keys.tolist() == [5, 6, 2 * PAIR + 5, 6 * PAIR + 6, 7 * PAIR + 2]
    assert pieces.idf == pytest.approx([np.log(5 / 4) + 1, np.log(5 / 4) + 1, *[np.log(5 / 3) + 1] * 3])
    assert WordPieces.fit(TEXTS, most=2).keys.tolist() == [5, 6]


def test_rows_have_length_one_or_none() -> None:
    found = WordPieces.fit(TEXTS)([read(1, 5, 5, 5), read(8, 9), read(1, 6, 5, 2)])
    assert found.columns.tolist() == [0, 2, 0, 1]
    assert found.starts.tolist() == [0, 2, 2, 4]
    assert np.linalg.norm(found.values[:2]) == pytest.approx(1.0)


def test_logits_add_what_the_words_say() -> None:
    head, x = made(), rows(3)
    texts = [TEXTS[0], read(8, 9), TEXTS[2]]
    found = head.pieces(texts)
    dense = torch.zeros(3, len(head.pieces.keys))
    for row, (start, stop) in enumerate(zip(found.starts, found.starts[1:], strict=False)):
        dense[row, found.columns[start:stop]] = torch.from_numpy(found.values[start:stop])
    torch.testing.assert_close(head(x, texts), (x @ head.weight.T + head.bias + dense @ head.words) / 0.5)
    plain = LinearHead(head.weight, head.bias, LABELS, Confidence(0.5))
    assert torch.equal(head(x, [read(8, 9)] * 3), plain(x))


def test_a_text_has_the_same_logits_beside_any_others() -> None:
    head, x = made(), rows(4)
    torch.testing.assert_close(head(x, TEXTS)[2:3], head(x[2:3], TEXTS[2:3]), rtol=0, atol=1e-6)


def test_it_wants_the_tokens_of_each_text() -> None:
    with pytest.raises(ValueError, match="expected the tokens of 2 texts, got none"):
        made()(rows(2))
    with pytest.raises(ValueError, match="expected the tokens of 2 texts, got 1"):
        made()(rows(2), TEXTS[:1])


def test_a_saved_head_answers_the_same_and_equal_heads_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made().save(tmp_path / name)
    back = load_head(tmp_path / "a")
    assert isinstance(back, LexicalHead)
    assert (back.labels, back.confidence) == (LABELS, Confidence(0.5))
    assert torch.equal(back(rows(4), TEXTS), made()(rows(4), TEXTS))
    for file in ("head.json", "head.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_linear_head_is_read_as_before(tmp_path: Path) -> None:
    LinearHead(torch.ones(4, 3), torch.zeros(4), LABELS).save(tmp_path)
    assert json.loads((tmp_path / "head.json").read_text())["kind"] == "linear"
    head = load_head(tmp_path)
    assert type(head) is LinearHead
    assert torch.equal(head(rows(4), TEXTS), head(rows(4)))


@pytest.mark.parametrize(
    "change",
    [
        {"words": torch.zeros(5, 3)},
        {"words": torch.full((5, 4), torch.nan)},
        {"keys": torch.tensor([5, 6, 7])},
        {"keys": torch.tensor([5, 4, 7, 8, 9])},
        {"keys": torch.zeros(5)},
        {"idf": torch.zeros(5, 1)},
        {"more": torch.zeros(1)},
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, torch.Tensor]) -> None:
    made().save(tmp_path)
    save_file(load_file(tmp_path / "head.safetensors") | change, tmp_path / "head.safetensors")
    with pytest.raises(ModelSourceError, match="not a classifier head"):
        load_head(tmp_path)


@pytest.mark.parametrize("kind", ["linear", "pickle"])
def test_a_head_of_another_kind_is_refused(tmp_path: Path, kind: str) -> None:
    made().save(tmp_path)
    settings = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps(settings | {"kind": kind}))
    with pytest.raises(ModelSourceError, match="expected kind 'linear'"):
        load_head(tmp_path)


def test_words_that_tell_classes_apart_are_taken_and_as_sure_as_they_are_right() -> None:
    examples, texts = drawn(1000, telling=True)
    # Penalised enough for the descent to arrive: where it stops on the way would hang on how sums are rounded.
    choice = choose_head(fit_head(examples, LABELS, strengths=(0.3,)), examples, texts, "auto")
    assert choice.share == SHARE
    assert choice.without_words is not None
    assert choice.with_words is not None
    assert choice.without_words < 0.6 < 0.8 < choice.with_words
    new, read_new = drawn(2000, telling=True, seed=1)
    probabilities = choice.head.probabilities(torch.from_numpy(new.x), read_new).numpy()
    right = np.mean(probabilities.argmax(axis=1) == new.y)
    assert right > 0.85
    assert abs(probabilities.max(axis=1).mean() - right) < 0.03


def test_words_that_tell_nothing_leave_the_linear_head_as_it_is() -> None:
    examples, texts = drawn(400, telling=False)
    fit = fit_head(examples, LABELS, strengths=(10.0,))
    choice = choose_head(fit, examples, texts, "auto")
    assert choice.head is fit.head
    assert choice.share == 0.0


def test_words_may_be_had_or_left_by_name() -> None:
    examples, texts = drawn(40, telling=False)
    fit = fit_head(examples, LABELS, strengths=(10.0,))
    assert choose_head(fit, examples, texts, False).head is fit.head
    assert isinstance(choose_head(fit, examples, texts, True).head, LexicalHead)


def test_the_same_examples_give_the_same_head() -> None:
    examples, texts = drawn(200, telling=True)
    one, two = (choose_head(fit_head(examples, LABELS), examples, texts, True).head for _ in range(2))
    assert one.confidence == two.confidence
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, two.tensors()[name]), name


def test_label_names_teach_and_are_not_scored() -> None:
    examples, texts = drawn(40, telling=True)
    more = Examples.of(examples.x, examples.y, examples.x[:4], examples.y[:4])
    choice = choose_head(fit_head(more, LABELS, strengths=(10.0,)), more, [*texts, *texts[:4]], True)
    assert choice.with_words == pytest.approx(0.9, abs=0.15)
    assert bool(torch.isfinite(choice.head.weight).all())
