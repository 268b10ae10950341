"""Plans of batches: which rows come together, which never do, and none is lost."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from models.runtime.placement import place
from models.source import locate
from models.training.tuning.batch_plan import by_label, no_duplicates, plan, shuffled
from models.training.tuning.batches import Batches
from models.training.tuning.settings import TunerSettings
from models.training.tuning.text_augmentation import Augmenter
from models.training.tuning.trainable_encoder import TrainableEncoder
from tests.support import tiny_models

LABELS = [label for label, count in (("a", 7), ("b", 2), ("c", 1), ("d", 12)) for _ in range(count)]


def test_a_plan_is_the_same_for_the_same_seed_and_another_each_epoch() -> None:
    one, two = (plan(shuffled(10, 4), epochs=2, seed=1) for _ in range(2))
    assert one == two
    assert one[:3] != one[3:]
    assert sorted(row for batch in one[:3] for row in batch) == list(range(10))
    assert plan(shuffled(10, 4), epochs=2, seed=2) != one


def test_broken_epochs_and_a_number_of_steps_end_a_plan() -> None:
    assert len(plan(shuffled(100, 10), epochs=1.5, seed=0)) == 15
    assert len(plan(shuffled(100, 10), epochs=0.01, seed=0)) == 1
    assert len(plan(shuffled(100, 10), epochs=3, seed=0, max_steps=7)) == 7


@pytest.mark.parametrize("batch_size", [4, 8, 64])
def test_every_batch_by_label_has_positives_and_negatives(batch_size: int) -> None:
    for seed in range(20):
        batches = by_label(LABELS, batch_size)(random.Random(seed))
        assert sorted(row for batch in batches for row in batch) == [row for row in range(22) if LABELS[row] != "c"]
        for batch in batches:
            counts = Counter(LABELS[row] for row in batch)
            assert min(counts.values()) >= 2
            assert len(counts) >= 2


def test_batches_of_two_labels_are_filled() -> None:
    batches = by_label(["yes", "no"] * 500, 20)(random.Random(0))
    assert len(batches) == 50


@pytest.mark.slow
def test_planning_many_rows_takes_no_time() -> None:
    began = time.process_time()
    by_label(["yes"] * 19_800 + ["no"] * 200, 32)(random.Random(0))
    no_duplicates([[str(row // 2) for row in range(20_000)], [str(row) for row in range(20_000)]], 32)(random.Random(0))
    assert time.process_time() - began < 4


def test_no_text_comes_twice_in_a_batch() -> None:
    anchors, positives = ["a", "a", "b", "c", "a"], ["x", "y", "x", "z", "w"]
    for seed in range(20):
        batches = no_duplicates([anchors, positives], 4)(random.Random(seed))
        for batch in batches:
            texts = [column[row] for row in batch for column in (anchors, positives)]
            assert len(texts) == len(set(texts))
            assert len(batch) > 1


@pytest.mark.slow
def test_a_batch_holds_texts_of_like_length_together_and_gives_them_back_in_order(tmp_path: Path) -> None:
    encoder = TrainableEncoder(
        locate(str(tiny_models.encoder(tmp_path / "tiny"))), place("cpu", "float32"), TunerSettings()
    )
    texts = [f"the card {'x' * (number % 9)}" for number in range(40)]
    batch = Batches([texts], None, [list(range(40))], encoder.reader)[0]
    assert [len(part.places) for part in batch.columns[0]] == [16, 16, 8]
    encoder.eval()
    with torch.inference_mode():
        together = encoder.columns(batch)[0]
        alone = torch.cat([encoder.columns(Batches([[text]], None, [[0]], encoder.reader)[0])[0] for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)


def test_augmentation_changes_texts_step_by_step_and_repeats_itself(tmp_path: Path) -> None:
    encoder = TrainableEncoder(
        locate(str(tiny_models.encoder(tmp_path / "tiny"))), place("cpu", "float32"), TunerSettings()
    )
    texts = ["where is my lost card", "open a new account"]
    ids = []
    for step in (0, 1, 0):
        batch = Batches([texts], None, [[0, 1]] * 3, encoder.reader, augment=Augmenter({"typos": 1.0}, 3))[step]
        ids.append(batch.columns[0][0].features["input_ids"])
    assert torch.equal(ids[0], ids[2])
    assert ids[0].shape != ids[1].shape or not torch.equal(ids[0], ids[1])
