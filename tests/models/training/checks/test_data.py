"""The data checks find what is wrong with rows, and pass healthy ones."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.loader import load
from models.runtime.placement import place
from models.source import locate
from models.text.tokenization import TextProcessor
from models.training.checks import before_training
from models.training.checks.data import check_data
from models.training.checks.duplicates import check_near_duplicates
from models.training.data.rows import TextRows
from models.training.errors import CheckFailed
from models.training.report import Finding, Report
from tests.support import tiny_models
from tests.support.check_rows import embed, healthy, parts, relabelled, troubles


def check(train: TextRows, held_out: TextRows) -> dict[str, Finding]:
    return troubles(
        check_data(
            train,
            held_out,
            embed=embed,
            truncated=lambda texts: [0.0] * len(texts),
            unknown=lambda texts: [0.0] * len(texts),
        )
    )


@pytest.mark.parametrize("seed", range(4))
def test_healthy_rows_raise_nothing(seed: int) -> None:
    assert check(*parts(healthy(seed=seed))) == {}


def test_every_check_reports_even_when_all_is_well() -> None:
    train, held_out = parts(healthy())
    found = {finding.check for finding in check_data(train, held_out, embed=embed)}
    assert found >= {
        "parse",
        "class_counts",
        "imbalance",
        "exact_duplicates",
        "leaks",
        "near_duplicates",
        "label_errors",
        "baseline_tfidf",
    }


def test_a_leak_of_a_fifth_stops_the_job_and_names_the_rows() -> None:
    train, held_out = parts(healthy())
    leaked = replace(held_out, texts=[[*(text.upper() + "!" for text in train.texts[0][:12]), *held_out.texts[0][12:]]])
    found = check(train, replace(leaked, labels=[*(train.labels or [])[:12], *(held_out.labels or [])[12:]]))
    assert found["leaks"].status == "fail"
    assert found["leaks"].rows == tuple(range(1, 13))
    assert found["leaks"].value == pytest.approx(0.2)
    with pytest.raises(CheckFailed) as caught:
        Report(found.values()).raise_if_failed("data")
    assert (caught.value.code, caught.value.param) == ("leaks", "training_file")


def test_a_small_leak_warns() -> None:
    train, held_out = parts(healthy())
    leaked = replace(held_out, texts=[[train.texts[0][7], *held_out.texts[0][1:]]])
    assert check(train, leaked)["leaks"].status == "warn"
    assert check(train, leaked)["leaks"].rows == (8,)


def test_near_copies_on_both_sides_warn() -> None:
    train, held_out = parts(healthy())
    shuffled = [" ".join(reversed(text.split())) for text in train.texts[0][:20]]
    found = check(
        train,
        replace(
            held_out,
            texts=[[*shuffled, *held_out.texts[0][20:]]],
            labels=[*(train.labels or [])[:20], *(held_out.labels or [])[20:]],
        ),
    )
    assert found["near_leaks"].status == "warn"
    assert set(range(1, 21)) <= set(found["near_leaks"].rows)
    assert "leaks" not in found


def test_wrong_labels_are_suspected_and_named() -> None:
    train, held_out = parts(healthy(480))
    wrong = list(range(0, 420, 10))
    found = check(relabelled(train, wrong), held_out)["label_errors"]
    assert found.status == "warn"
    named, real = set(found.rows), {train.lines[place] for place in wrong}
    assert len(named & real) >= 0.8 * len(real)
    assert len(named & real) >= 0.7 * len(named)


def test_with_few_rows_a_label_no_label_is_suspected() -> None:
    train, held_out = parts(healthy(60), 30)
    wrong = relabelled(train, [0, 5])
    assert "label_errors" not in check(wrong, held_out)
    [finding] = [one for one in check_data(wrong, held_out, embed=embed) if one.check == "label_errors"]
    assert (finding.status, finding.rows) == ("skipped", ())


def test_duplicates_and_near_duplicates_are_counted_apart() -> None:
    train, held_out = parts(healthy())
    assert train.labels is not None
    copies = [text.capitalize() + "." for text in train.texts[0][:20]]
    found = check(
        replace(
            train,
            texts=[[*train.texts[0], *copies]],
            labels=[*train.labels, *train.labels[:20]],
            lines=list(range(1, 201)),
        ),
        held_out,
    )
    assert found["exact_duplicates"].rows == tuple(range(181, 201))
    turned = [" ".join(reversed(text.split())) for text in train.texts[0][:40]]
    found = check(
        replace(
            train,
            texts=[[*train.texts[0], *turned]],
            labels=[*train.labels, *train.labels[:40]],
            lines=list(range(1, 221)),
        ),
        held_out,
    )
    assert set(found) == {"near_duplicates"}
    assert found["near_duplicates"].rows == tuple(range(181, 221))


def test_one_text_under_two_labels_is_named() -> None:
    train, held_out = parts(healthy())
    texts = [*train.texts[0][:-4], *(text.title() for text in train.texts[0][1:5])]
    labels = [*(train.labels or [])[:-4], *((train.labels or [])[0:1] * 4)]
    found = check(replace(train, texts=[texts], labels=labels), held_out)["conflicting_labels"]
    assert found.status == "warn"
    assert {178, 179} <= set(found.rows)


def test_a_constant_column_stops_the_job() -> None:
    train, held_out = parts(healthy())
    found = check(replace(train, texts=[["the same"] * len(train)]), held_out)
    assert (found["constant_columns"].status, found["constant_columns"].value) == ("fail", "text")
    scored = TextRows("scored", [["a", "b", "c"], ["d", "e", "f"]], None, [1.0, 1.0, 1.0], [1, 2, 3])
    assert troubles(check_data(scored, scored.take([])))["constant_columns"].value == "score"


def test_too_few_rows_of_a_label_stop_the_job() -> None:
    train, held_out = parts(healthy())
    found = check(replace(train, labels=["rare", *(train.labels or [])[1:]]), held_out)
    assert (found["class_counts"].status, found["class_counts"].rows) == ("fail", (1,))
    found = check(train, replace(held_out, labels=["rare", "rare", *(held_out.labels or [])[2:]]))
    assert "Only the held-out part" in found["class_counts"].message
    found = check(replace(train, labels=["x"] * len(train)), replace(held_out, labels=["x"] * len(held_out)))
    assert found["class_counts"].message == "There is only one label."


def test_imbalance_beyond_ten_to_one_warns() -> None:
    rows = healthy(400)
    names = sorted(set(rows.labels or []))
    kept = [index for index, label in enumerate(rows.labels or []) if label != names[0] or index < 32]
    found = check(*parts(rows.take(kept)))
    assert found["imbalance"].status == "warn"
    assert names[0] in found["imbalance"].message


def test_labels_that_differ_by_spelling_alone_warn() -> None:
    train, held_out = parts(healthy())
    labels = [
        "Lost card" if label == "lost_card" and index % 2 else label for index, label in enumerate(train.labels or [])
    ]
    labels = [label.upper() if label == "pin" and index < 90 else label for index, label in enumerate(labels)]
    found = check(replace(train, labels=labels), held_out)["similar_labels"]
    assert found.status == "warn"
    assert "'PIN' and 'pin'" in found.message


def test_labels_that_have_nothing_to_do_with_the_texts_warn() -> None:
    rows = healthy(400)
    noise = [str(number) for number in np.random.default_rng(0).choice(2, 400, p=[0.9, 0.1])]
    found = check(*parts(replace(rows, labels=noise), 100))
    assert found["signal"].status == "warn"


@pytest.mark.slow
def test_cut_and_unknown_texts_are_named(tmp_path: Path) -> None:
    processor: TextProcessor = load(locate(str(tiny_models.encoder(tmp_path / "tiny"))), place("cpu", "float32")).text
    train, held_out = parts(healthy())
    texts = [*("a " * 300 for _ in range(20)), *("☃ card ☃" for _ in range(20)), *train.texts[0][40:]]
    found = troubles(
        check_data(
            replace(train, texts=[texts]),
            held_out,
            truncated=lambda texts: before_training.truncated_texts(processor.encode(texts)),
            unknown=lambda texts: before_training.unknown_token_shares(processor.encode(texts), processor),
        )
    )
    assert found["truncation"].rows == tuple(range(1, 21))
    assert found["unknown_tokens"].rows[:20] == tuple(range(21, 41))


def test_pairs_that_are_one_text_twice_are_named() -> None:
    texts = healthy(40).texts[0]
    pairs = TextRows("pairs", [texts, [*texts[:4], *reversed(texts[4:])]], None, None, list(range(1, 41)))
    assert troubles(check_data(pairs, pairs.take([])))["identical_pairs"].rows[:4] == (1, 2, 3, 4)
    triplets = TextRows(
        "triplets", [texts, texts[1:] + texts[:1], [texts[1], *texts[3:], *texts[:2]]], None, None, list(range(1, 41))
    )
    found = troubles(check_data(triplets, triplets.take([])))["identical_pairs"]
    assert (found.status, found.rows) == ("fail", (1,))


def test_what_the_reader_left_out_is_in_the_report() -> None:
    train, held_out = parts(healthy())
    found = check(replace(train, notes=("column 'id' is not used (first on line 1)",)), held_out)["parse"]
    assert found.status == "warn"
    assert "column 'id' is not used" in found.message


@pytest.mark.real
def test_real_embeddings_find_the_wrong_label_and_the_near_copy() -> None:
    model = load(locate("all-MiniLM-L6-v2"), place("cpu", "float32"))
    templates = {
        "lost": ["I {} my card {}", "my card is {} since {}", "someone took my card, it was {} {}"],
        "weather": ["will it {} in the mountains {}", "the forecast says {} for {}", "is {} likely {}"],
    }
    words = {"lost": ["lost", "dropped", "misplaced", "forgot"], "weather": ["rain", "snow", "storm", "hail"]}
    when = ["yesterday", "on Monday", "this morning", "last week"]
    made = [
        (t.format(w, d), label) for label in templates for t in templates[label] for w in words[label] for d in when
    ]
    rows = TextRows(
        "labelled", [[text for text, _ in made]], [label for _, label in made], None, list(range(1, len(made) + 1))
    )
    wrong = relabelled(rows, [3, 60])
    found = {
        finding.check: finding
        for finding in check_data(
            wrong, rows.take([]), embed=lambda texts: model.forward(model.text.encode(list(texts)))
        )
    }
    assert found["label_errors"].rows == (4, 61)
    assert "line" in found["label_errors"].message


@pytest.mark.slow
def test_thousands_of_rows_that_are_all_alike_take_seconds_and_little_memory() -> None:
    texts = [f"text {number}" for number in range(7_000)]
    train = TextRows("plain", [texts], None, None, list(range(7_000)))
    began = time.thread_time()
    tracemalloc.start()
    found = check_near_duplicates(train, np.full((7_000, 4), 0.5, np.float32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.value == 6_999 / 7_000
    assert peak < 150_000_000
    assert time.thread_time() - began < 20
