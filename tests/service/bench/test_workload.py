"""When and what the load generator sends: arrivals, lengths, texts and mixes."""

from __future__ import annotations

import itertools
import random
import statistics
from collections import Counter
from pathlib import Path

import orjson
import pytest
from tokenizers import Tokenizer

from models.source import locate
from service.bench.arrivals import poisson, recorded, scaled
from service.bench.workload import INTENTS, NAMED, WORDS, MixPart, Requests, Texts, between, parse_mix
from service.errors import ConfigError


def test_poisson_arrivals_have_the_rate_and_the_spread_of_independent_callers() -> None:
    times = list(poisson(200, 100, seed=3))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert statistics.mean(gaps) == pytest.approx(1 / 200, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(1 / 200, rel=0.03)
    per_second = list(Counter(int(at) for at in times).values())
    assert statistics.variance(per_second) == pytest.approx(200, rel=0.35)
    assert max(times) < 100


def test_a_seed_gives_the_same_arrivals_again() -> None:
    assert list(poisson(50, 10, seed=1)) == list(poisson(50, 10, seed=1))
    assert list(poisson(50, 10, seed=1)) != list(poisson(50, 10, seed=2))


STAMPED = "TIMESTAMP,x\n2023-11-16 18:15:46.6805900,1\n2023-11-16 18:15:47.1805900,2\n2023-11-16 18:15:50.6805900,3\n"


@pytest.mark.parametrize("lines", [STAMPED, "5\n5.5\n9\n"])
def test_recorded_arrivals_are_seconds_or_timestamps(tmp_path: Path, lines: str) -> None:
    (tmp_path / "trace.csv").write_text(lines)
    assert recorded(tmp_path / "trace.csv") == pytest.approx([0, 0.5, 4])


NONSENSE = {
    "": "got 0 rows",
    "t\n1\n": "got 1 rows",
    "3\n1\n2\n": "ascending",
    "1\n2\nthree\n": "'three'",
    "1\n2\nnan\n": "'nan'",
    "1\ninf\n": "'inf'",
}


@pytest.mark.parametrize(("lines", "said"), NONSENSE.items())
def test_a_trace_that_makes_no_sense_is_refused(tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "trace.csv").write_text(lines)
    with pytest.raises(ConfigError, match=said):
        recorded(tmp_path / "trace.csv")


def test_a_trace_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--arrivals"):
        recorded(tmp_path / "none.csv")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'1\n"' + b"2" * 2_000_000])
def test_a_trace_that_is_no_csv_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trace.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=r"--arrivals .*: expected a CSV in UTF-8"):
        recorded(tmp_path / "trace.csv")


def test_scaling_keeps_the_bursts() -> None:
    times = [0.0, 1, 1.1, 1.2, 10]
    assert list(scaled(times, None, 5)) == times[:4]
    assert list(scaled(times, 4, 100)) == pytest.approx([at / 10 for at in times])


def test_drawn_lengths_have_the_percentiles_of_the_table() -> None:
    chance = random.Random(0)
    drawn = sorted(NAMED["intents"].draw(chance) + 2 for _ in range(20_000))
    for percent in (5, 25, 50, 75, 95):
        assert drawn[len(drawn) * percent // 100] == pytest.approx(INTENTS[percent], abs=1)
    assert (drawn[0], drawn[-1] <= INTENTS[100]) == (3, True)


@pytest.mark.parametrize("name", ["intents", "short", "long", "mixed"])
def test_every_text_is_another(name: str) -> None:
    source = Texts(NAMED[name])
    texts = [source.take()[0] for _ in range(5000)]
    assert len(set(texts)) == len(texts)


def test_one_word_texts_become_longer_when_there_are_no_more() -> None:
    source = Texts(between(1, 1))
    taken = [source.take() for _ in range(2 * len(WORDS))]
    assert len({text for text, _ in taken}) == len(taken)
    assert all(tokens == len(text.split()) + 2 for text, tokens in taken)


def test_a_share_of_the_texts_comes_again_where_that_is_wanted() -> None:
    source = Texts(NAMED["short"], repeat_share=0.5)
    texts = [source.take()[0] for _ in range(2000)]
    assert len(set(texts)) == pytest.approx(1000, abs=80)


def test_a_word_is_a_token() -> None:
    """Else `tokens` would be a guess; of the model that ships with Sonde."""
    tokenizer = Tokenizer.from_file(str(locate("all-MiniLM-L6-v2").path / "tokenizer.json"))
    tokenizer.no_padding()
    assert [word for word in WORDS if len(tokenizer.encode(word).ids) != 3] == []
    assert len(set(WORDS)) == len(WORDS)


def test_a_mix_has_its_shares_and_sizes() -> None:
    made = list(
        itertools.islice(Requests("m", Texts(NAMED["short"]), parse_mix("single:0.9,bulk:0.1", 1, 8), seed=1), 2000)
    )
    kinds = Counter(request.kind for request in made)
    assert kinds["bulk"] == pytest.approx(200, abs=45)
    bulk = next(request for request in made if request.kind == "bulk")
    single = next(request for request in made if request.kind == "single")
    assert (bulk.inputs, bulk.tokens, len(orjson.loads(bulk.body)["input"])) == (8, 8 * 12, 8)
    assert (single.inputs, single.tokens, type(orjson.loads(single.body)["input"])) == (1, 12, str)


def test_a_mix_may_name_numbers_of_texts() -> None:
    assert parse_mix("1:0.7, 256:0.3", 1, 32) == [MixPart("batch 1", 0.7, 1), MixPart("batch 256", 0.3, 256)]


@pytest.mark.parametrize(
    "mix", ["single", "single:x", "many:0.5", "0:1", "single:0", "single:-1", "single:nan,bulk:0.1", "single:inf"]
)
def test_a_mix_that_makes_no_sense_is_refused(mix: str) -> None:
    with pytest.raises(ConfigError, match="--mix"):
        parse_mix(mix, 1, 32)


def test_the_encoding_is_sent_where_it_is_asked_for() -> None:
    request = next(Requests("m", Texts(NAMED["short"]), parse_mix(None, 1, 32), encoding_format="base64"))
    assert orjson.loads(request.body)["encoding_format"] == "base64"
