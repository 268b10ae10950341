"""No report contradicts itself: statuses agree with the ranges that messages name, and advice with advice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from models.training.checks.comparison import Predictions, check_trivial
from models.training.checks.data import check_data
from models.training.checks.false_alarms import check_false_alarms, check_input_false_alarms
from models.training.checks.forecast_network import check_forecasts
from models.training.checks.forward import check_forward
from models.training.checks.gradient import GradientMonitor
from models.training.checks.loss import check_loss, check_overfit, check_slope
from models.training.checks.outcome import check_outcome, check_rank
from models.training.checks.sensor_data import check_table
from models.training.data.segments import divide_segments, to_segments
from models.training.data.table import Table
from models.training.report import Finding, Report
from models.training.report_markdown import to_markdown
from tests.support.check_rows import embed, healthy, parts, relabelled

pytestmark = pytest.mark.slow

_NUMBER = r"(-?[\d.]+(?:e[+-]?\d+)?%?)"
# How messages name a range, and the sides that it bounds: the lowest and the highest value that is fine.
_RANGES = (
    (rf"limit(?: is)? {_NUMBER}", (None, 1)),
    (rf"expected (?:at least|more than) {_NUMBER}", (1, None)),
    (rf"expected {_NUMBER} or more", (1, None)),
    (rf"(?:expected|allows) {_NUMBER} to {_NUMBER}", (1, 2)),
    (rf"{_NUMBER} to {_NUMBER} is (?:fine|healthy)", (1, 2)),
)
_SEEDS = range(12)


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    text = text.rstrip(".")
    return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)


def _bounds(message: str) -> Iterator[tuple[float, float]]:
    for pattern, (low, high) in _RANGES:
        for found in re.finditer(pattern, message):
            least = _number(found[low]) if low else None
            most = _number(found[high]) if high else None
            yield -np.inf if least is None else least, np.inf if most is None else most


def contradictions(report: Report) -> list[str]:
    """What a reader would stumble over."""
    found = [fault for finding in report.findings for fault in _of_finding(finding)]
    remedies = " ".join(finding.remedy for finding in report.problems())
    if re.search(r"[Ll]ower the learning rate", remedies) and "Raise the learning rate." in remedies:
        found.append("one check asks for a lower learning rate, another for a higher one")
    leads = {finding.check: finding.status for finding in report.findings}
    if leads.get("against_trivial") == "ok" and "instead of a model" in remedies:
        found.append("the model leads the trivial baseline, and a check asks to drop it")
    if bool(report.problems()) != ("need a look" in report.summary() or "failed." in report.summary()):
        found.append(f"the summary {report.summary()!r} hides or invents a problem")
    return found


def _of_finding(finding: Finding) -> Iterator[str]:
    passed = finding.status in ("ok", "skipped")
    if passed and finding.remedy:
        yield f"{finding.check} is fine and asks to do something"
    if not passed and not finding.remedy:
        yield f"{finding.check} is not fine and says nothing to do"
    if finding.status == "skipped" or not isinstance(finding.value, float):
        return
    value = finding.value
    for low, high in _bounds(finding.message):
        nearest = min(abs(low), abs(high))
        margin = max(0.02 * nearest, 5e-4 if nearest >= 0.01 else 0.0)  # messages are rounded
        if passed and not low - margin <= value <= high + margin:
            yield f"{finding.check} is fine at {value}, outside of its own range: {finding.message}"
        if not passed and low + margin < value < high - margin:
            yield f"{finding.check} is not fine at {value}, inside of its own range: {finding.message}"


def _classification(seed: int) -> Iterator[Finding]:
    random = np.random.default_rng(seed)
    labels = list("abcdefgh")[: int(random.integers(2, 9))]
    truth = [*random.choice(labels, int(random.integers(8, 400))).tolist(), "rare", "rare"]
    right = random.random()
    ours, trivial = (
        [one if random.random() < share else str(random.choice(labels)) for one in truth] for share in (right, 0.4)
    )
    confidence, x = random.random(len(truth)), random.normal(size=(len(truth), 8))
    x *= 10.0 ** random.integers(-9, 1) if seed % 3 else 1.0
    yield from check_outcome(
        truth, ours, confidence=confidence, scores=confidence, trivial=trivial, embeddings=x, embeddings_before=x,
        resamples=20,
    )  # fmt: skip
    yield from check_rank(np.ones((20, 8)) + 10.0**-seed * random.normal(size=(20, 8)))


def _texts(seed: int) -> Iterator[Finding]:
    train, held_out = parts(healthy(seed=seed))
    if seed % 2:
        train = relabelled(train, range(0, len(train), seed + 2))
    copies = train.take([*range(len(train)), *range(3 * seed)]) if seed % 3 == 0 else train
    yield from check_data(
        copies,
        held_out,
        embed=embed,
        truncated=lambda texts: [float(at % (seed + 1) == 0) for at in range(len(texts))],
        unknown=lambda texts: [0.01 * seed] * len(texts),
    )


def _training(seed: int) -> Iterator[Finding]:
    torch.manual_seed(seed)
    model, rate = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), 10.0 ** (seed / 2 - 6)
    x, y = torch.randn(24, 6) * 10.0 ** (seed % 4), torch.arange(24) % 3

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(model(x), y)

    yield from check_forward(
        lambda: model(x), rows=24, width=3, module=model, padded=lambda: model(x) * (1 + rate / 100)
    )
    yield from check_loss(loss, model.named_parameters(), classes=3, outputs=model(x), targets=y)
    yield check_overfit(model, lambda copy: nn.functional.cross_entropy(copy(x), y), steps=5 * seed + 1)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=rate), []
    monitor = GradientMonitor(model, optimizer)
    for _ in range(10):
        optimizer.zero_grad()
        value = loss()
        torch.autograd.backward([value])
        losses.append(float(value.detach()))
        with monitor.step():
            optimizer.step()
    yield from monitor.findings()
    yield check_slope(losses)


def _sensors(seed: int) -> Iterator[Finding]:
    random = np.random.default_rng(seed)
    rows = 150 * (seed + 1)
    x = random.normal(5, 1, size=(rows, 3))
    x[: rows * seed // 15] = x[0]
    x[-rows // 5 :] += 0.7 * seed
    x[random.random(x.shape) < 0.01 * seed] = np.nan
    times = np.cumsum(60.0 + 10 * seed * (random.random(rows) < 0.08))
    table = Table(tuple("abc"), x, np.arange(2, rows + 2), times=times)
    runs, repairs = to_segments(table, "series")
    train, held = divide_segments(runs, 1, 0.2)
    yield from check_table(train, held, repairs)
    p_values, anomalous = random.random(rows) ** (1 + seed / 4), random.random(rows) < 0.1
    yield from check_false_alarms(p_values, 4, 500)
    yield from check_input_false_alarms(p_values[:80], 40 + seed)
    ours, limits = (
        Predictions(anomalous * gain + random.normal(size=rows), random.random(rows) < 0.1) for gain in (3, 1)
    )
    yield from check_trivial(ours, limits, anomalous, 4, seed=seed)
    errors = random.random((2, 60))
    yield from check_forecasts(errors[0], {"last value": errors[1]}, 0.6 + seed / 30, 4, seed=seed)


@pytest.mark.parametrize("of", [_classification, _texts, _training, _sensors])
def test_no_report_contradicts_itself(of: Callable[[int], Iterator[Finding]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.training.checks.comparison._RESAMPLES", 20)
    reports = [Report(of(seed)) for seed in _SEEDS]
    assert {status for report in reports for status in (one.status for one in report.findings)} >= {"ok", "warn"}
    assert [fault for report in reports for fault in contradictions(report)] == []
    for report in reports:
        assert "broken by" not in to_markdown(report)


def _finding(status: str, value: float, message: str, remedy: str = "") -> Finding:
    return Finding("gradient", "update_ratio", status, value, None, message, remedy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "findings",
    [
        [_finding("ok", 3e-5, "One step is 3e-05; 1e-4 to 1e-2 is healthy.")],
        [_finding("warn", 0.01, "1% are cut; the limit is 5%.", "Split them.")],
        [_finding("ok", 0.0, "F1 is 0.00; expected at least 0.40.")],
        [_finding("ok", 0.0, "All is well.", "Do this.")],
        [
            _finding("warn", 1.0, "x", "Raise the learning rate."),
            _finding("warn", 1.0, "y", "Lower the learning rate."),
        ],
    ],
)
def test_contradictions_are_found(findings: Iterable[Finding]) -> None:
    assert contradictions(Report(findings))
