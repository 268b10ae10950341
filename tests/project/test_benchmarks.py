"""The benchmarks' own arithmetic: each way of multiplying multiplies, and the tables say what was kept."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks import forward, gpu, int8, results, rivals, roofline, serving, tables
from benchmarks.loads import GEMM_FLOP, ROWS
from benchmarks.plot import bars
from benchmarks.processes import Server
from models.source import locate
from service.bench.client import Target
from tests.fakes.model import FakeModel
from tests.fakes.openai_server import FakeServer, listening

SERVING: dict[str, Any] = {
    "command": "python -m benchmarks.serving",
    "date": "2026-01-01 00:00 UTC",
    "machine": {},
    "about": {"sonde_flags": []},
    "rounds": [
        {
            "limit": {"gemm": {"gflops": 100.0}, "long-32": {"inputs_per_s": 50.0}},
            "sonde": {
                "long-32": {"inputs_per_s": rate, "tokens_per_s": 120 * rate},
                "idle": {"p50_ms": 2.0},
                "process": {"ready_s": 3.0},
            },
            "plain": {"long-32": {"inputs_per_s": 20.0}, "idle": {"p50_ms": 8.0}, "process": {"ready_s": 12.0}},
        }
        for rate in (30.0, 48.0, 40.0)
    ],
}


@pytest.mark.parametrize("name", roofline.CPU_WAYS)
def test_every_way_multiplies(name: str) -> None:
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(32, 64).clamp(-6, 6), torch.randn(48, 64) / 20, torch.randn(48)
    if (why := roofline.refusal(roofline.CPU_WAYS[name], "cpu")) is not None:
        pytest.skip(why)
    got = roofline.CPU_WAYS[name](rows, weight, bias)()
    assert isinstance(got, torch.Tensor)
    if name == "int8 _int_mm":  # whole numbers, of rows times 20 and weights over their scale
        scales = weight.abs().amax(dim=1) / 127
        got = got * 0.05 * scales + bias
    wanted = functional.linear(rows, weight, bias)
    assert torch.nn.functional.cosine_similarity(got.float().flatten(), wanted.flatten(), dim=0) > 0.999


def test_a_way_that_the_machine_does_not_have_is_told() -> None:
    def impossible(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> roofline.Work:
        raise RuntimeError("no such thing\nat all")

    assert roofline.refusal(impossible, "cpu") == "no such thing"
    assert roofline.refusal(roofline.linear(torch.float32), "cpu") is None


def test_a_rate_is_operations_by_seconds() -> None:
    shape, rows = (384, 384), 512
    rate = roofline.gflops(roofline.linear(torch.float32), rows, shape, "cpu", 0.01)
    assert 0.01 < rate < 100_000


def test_the_cost_of_a_token_is_that_of_the_model() -> None:
    config = json.loads((locate("all-MiniLM-L6-v2").path / "config.json").read_text(encoding="utf-8"))
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    assert layers * 2 * (4 * width * width + 2 * width * inner) == GEMM_FLOP
    assert sum(wide * out for wide, out in roofline.SHAPES) * 2 * layers == GEMM_FLOP


def test_the_serving_table_has_medians_ratios_and_shares() -> None:
    lines = tables.serving(SERVING)
    assert "| 120 tokens, 32 a request, 4 clients, texts/s | 40 | 20 | 2.00 |" in lines
    assert "| 12 tokens, one at a time, p50 ms | 2 | 8 | 0.25 |" in lines
    assert "| start to ready, s | 3 | 12 | 0.25 |" in lines
    share = 100 * 40 * 120 * GEMM_FLOP / 1e9 / 100
    assert f"| 120 tokens, 32 a request, 4 clients, texts/s | 50 | 80 % | {share:.0f} % |" in lines


def test_a_round_that_somebody_missed_leaves_a_gap() -> None:
    content = {
        **SERVING,
        "rounds": [{"sonde": {"idle": {"p50_ms": 2.0}}}, {"plain": {"long-32": {"inputs_per_s": 20.0}}}],
    }
    assert "| 120 tokens, 32 a request, 4 clients, texts/s |  | 20 |  |" in tables.serving(content)
    assert math.isnan(tables.median(content["rounds"], "nobody", "idle"))


def test_the_default_is_compared_with_the_flags_of_the_same_rounds() -> None:
    def figures(**rates: float) -> dict[str, object]:
        return {way: {"long-8": {"inputs_per_s": rate}} for way, rate in rates.items()}

    rounds = [
        {"avx2": figures(default=90.0, float32=100.0)},
        {"avx2": figures(default=50.0, runners=40.0)},
        {"native": figures(default=30.0, float32=20.0)},
    ]
    lines = tables.flags({"rounds": rounds})
    assert lines[0] == "| instructions | load | default | default : float32 | default : runners |"
    assert "| avx2 | 120 tokens, 8 a request, 4 clients, texts/s | 70 | 0.90 | 1.25 |" in lines
    assert "| native | 120 tokens, 8 a request, 4 clients, texts/s | 30 | 1.50 |  |" in lines


def test_ways_to_calibrate_are_side_by_side() -> None:
    keys = [
        f"{way} {key}" for way in ("temperature", "vector", "dirichlet") for key in ("nll", "ece", "accuracy", "won")
    ]
    content = {"rounds": [{"a, 4 labels": {key: number / 10 for number, key in enumerate(keys)}}]}
    row = "| a, 4 labels | 0.000, 0.100, 0.200 | 0.400, 0.500, 0.600 | 0.800, 0.900, 1.000 | 70% | 110% |"
    assert row in tables.scaling(content)


@pytest.mark.slow
def test_the_plot_has_a_bar_a_server_and_the_limit() -> None:
    drawn = ET.fromstring(bars(tables.serving_medians(SERVING), tables.titles()))
    ids = {found.attrib["id"]: found for found in drawn.iter() if "id" in found.attrib}
    widths = []
    for name in ("sonde", "plain"):
        places = [float(x) for x in re.findall(r"[ML] ([\d.]+)", ids[f"bar long-32 {name}"][0].attrib["d"])]
        widths.append(max(places) - min(places))
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert [name for name in ids if name.startswith("limit ")] == ["limit long-32"]


def test_rounds_are_kept_appended_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, place in {
        "KEPT": tmp_path / "results",
        "PAGE": tmp_path / "RESULTS.md",
        "PLOT": tmp_path / "serving.svg",
    }.items():
        monkeypatch.setattr(results, name, place)
    for number in range(2):
        rounds = results.Rounds("serving", {"sonde_flags": ["--threads", "1"]}, append=True)
        assert rounds.begin() == number
        rounds.add("sonde", {"idle": {"p50_ms": 2.0 + number}})
        rounds.finish(write=True)
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "2 rounds" in page
    assert "| 12 tokens, one at a time, p50 ms | 2.5 |" in page
    assert "sonde flags: --threads 1" in page
    assert (tmp_path / "serving.svg").is_file()
    with pytest.raises(SystemExit, match="other settings"):
        results.Rounds("serving", {"sonde_flags": []}, append=True)


def test_batches_keep_every_text_within_the_budget() -> None:
    items = FakeModel().text.encode(["my card is lost " * count for count in (1, 2, 3, 4, 5, 6, 7)])
    batches = list(forward.batches(items, 30))
    assert [item for batch in batches for item in batch] == items
    assert all(sum(item.count for item in batch) <= 30 or len(batch) == 1 for batch in batches)
    assert len(batches) < len(items)


def test_backends_are_compared_with_the_limit_of_their_precision() -> None:
    assert forward.precision_of("packed-bfloat16", "cpu") == "bf16"
    assert forward.precision_of("packed-float32", "cpu") == "fp32"
    assert forward.precision_of("onnxruntime-int8", "cpu") == "int8"
    assert forward.precision_of("packed-auto", "cpu") in {"fp32", "bf16"}
    assert {"packed-auto", "packed-float32"} <= set(forward.default_backends("cpu"))


@pytest.mark.slow
def test_a_backend_keeps_a_process_of_its_own() -> None:
    with forward.own_process(2) as process:
        pids = [process.submit(os.getpid).result() for _ in range(2)]
        assert process.submit(torch.get_num_threads).result() == 2
    assert pids[0] == pids[1] != os.getpid()


@pytest.mark.slow
@pytest.mark.real
def test_a_round_of_a_backend_has_all_lengths_and_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "COUNTS", {"short": 8, "long": 2, "mixed": 4})
    seen = forward.measure("packed-float32", "cpu")
    rates = {lengths: seen[lengths]["tokens_per_s"] / seen[lengths]["texts_per_s"] for lengths in ("short", "long")}
    assert rates["short"] < 20 < 100 < rates["long"]
    assert seen["mixed"]["texts_per_s"] > 0 < seen["single"]["ms"]


def test_rivals_that_need_other_libraries_run_only_where_they_are_named() -> None:
    assert set(rivals.NAMES) <= set(forward.backends("cpu"))
    assert not set(rivals.NAMES) & set(forward.default_backends("cpu"))


def test_pairs_are_graded_by_intent_and_domain(tmp_path: Path) -> None:
    (tmp_path / "clinc150").mkdir()
    rows = [
        ["where is my card", "lost_card"],
        ["card gone", "lost_card"],
        ["pay my bill", "pay_bill"],
        ["tell a joke", "joke"],
    ]
    (tmp_path / "clinc150" / "data_full_train_val.json").write_text(json.dumps({"val": rows}))
    (tmp_path / "clinc150" / "domains.json").write_text(
        json.dumps({"banking": ["lost_card", "pay_bill"], "fun": ["joke"]})
    )
    texts, grades = int8.similarity_set(tmp_path, 4)
    at = {text: place for place, text in enumerate(texts)}
    graded = {(a, b): int(grades[at[a], at[b]]) for a in at for b in at}
    assert graded["where is my card", "card gone"] == 2
    assert graded["pay my bill", "card gone"] == graded["card gone", "pay my bill"] == 1
    assert graded["tell a joke", "pay my bill"] == 0


def test_agreement_is_best_where_cosines_follow_the_grades() -> None:
    angles = np.array([0.0, 0.1, 0.6, 2.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    distance = np.abs(angles[:, None] - angles)
    assert int8.agreement(rows, (-100 * distance).astype(np.int64)) == pytest.approx(100)
    assert int8.agreement(rows, (100 * distance).astype(np.int64)) == pytest.approx(-100)


@pytest.mark.slow
def test_a_row_is_measured_on_a_server() -> None:
    fake = FakeServer(lambda number: (0.02, 200))
    with listening(fake) as url:
        seen = serving.measure(Server(Target.of(url), url, 0, 0.0), ROWS["long-32"], seed=1, warmup_s=0.1, seconds=0.4)
    assert seen["inputs_per_s"] == pytest.approx(seen["tokens_per_s"] / 120)
    assert 0 < seen["inputs_per_s"] <= 4 * 32 / 0.02
    assert seen["p50_ms"] >= 20


@pytest.mark.slow
def test_a_row_with_failures_is_no_result() -> None:
    with listening(FakeServer(lambda number: (0.02, 500))) as url, pytest.raises(SystemExit, match="500"):
        serving.measure(Server(Target.of(url), url, 0, 0.0), ROWS["idle"], seed=1, warmup_s=0, seconds=0.1)


@pytest.mark.slow
@pytest.mark.real
def test_the_gpu_benchmark_computes_on_a_cpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu._TEXTS, "cpu", {"short": 8, "256 tokens": 2})
    seen = gpu.compared(forward.in_process("cpu", "float32"), gpu.encode("cpu"), "cpu")
    assert seen["sonde : encode, short"] == pytest.approx(
        seen["sonde, short, tokens/s"] / seen["encode, short, tokens/s"]
    )
    assert 0 < seen["sonde's share of it at 256 tokens"] < 2
