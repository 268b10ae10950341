"""The training loop: it learns, repeats itself exactly, resumes, and stops on bad numbers and on SIGTERM."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.runtime.placement import place
from models.source import ModelSource, locate
from models.training.errors import CheckFailed, TrainingError
from models.training.report import Report
from models.training.tuning import checkpoint as checkpoints
from models.training.tuning import losses
from models.training.tuning.batch_plan import by_label, plan
from models.training.tuning.batches import Batch, Batches, loader_workers
from models.training.tuning.freezing import freeze_lower_layers
from models.training.tuning.optimizer import learning_rate
from models.training.tuning.progress import TrainingRun
from models.training.tuning.settings import TunerSettings
from models.training.tuning.stop_signal import TrainingStopped
from models.training.tuning.trainable_encoder import TrainableEncoder
from models.training.tuning.training_loop import TrainingLoop
from tests.support import tiny_models

pytestmark = pytest.mark.slow

CPU = place("cpu", "float32")
TEXTS = [f"{word} {number}" for word in ("card lost", "money back", "open account") for number in range(8)]
LABELS = [word for word in ("lost", "refund", "open") for _ in range(8)]
FAST = TunerSettings(epochs=4, batch_size=12, learning_rate=1e-3, seed=3, freeze_embeddings=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    return locate(str(tiny_models.encoder(tmp_path_factory.mktemp("model") / "tiny")))


class Run:
    """One tuning run on the rows above, and its events."""

    def __init__(
        self, source: ModelSource, directory: Path, settings: TunerSettings = FAST, report: Report | None = None
    ) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.encoder = TrainableEncoder(source, CPU, settings)
        targets = torch.tensor([sorted(set(LABELS)).index(label) for label in LABELS])
        batches = plan(by_label(LABELS, settings.batch_size), epochs=settings.epochs, seed=settings.seed)
        self.loss = losses.make("supervised_contrastive", "labelled", temperature=0.1)
        self.data = Batches([TEXTS], targets, batches, self.encoder.reader)
        self.tuner = TrainingLoop(
            self.encoder,
            self.compute,
            self.data,
            settings,
            CPU,
            directory=directory,
            events=self.hear,
            fingerprint="x",
            report=report,
        )
        self.stop_at = 0

    def compute(self, batch: Batch) -> Tensor:
        return self.loss(self.encoder.columns(batch), batch.targets)

    def hear(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)
        if self.stop_at and event["type"] == "metrics" and event["data"]["step"] == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def run(self, resume: Path | None = None) -> TrainingRun:
        return self.tuner.run(resume)

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.encoder.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], tolerance: float = 0.0) -> bool:
    return all(torch.allclose(one[name], other[name], rtol=0, atol=tolerance) for name in one)


def test_the_loss_falls_and_every_step_has_metrics(source: ModelSource, tmp_path: Path) -> None:
    run = Run(source, tmp_path)
    fitted = run.run()
    assert sum(fitted.losses[-3:]) < 0.9 * sum(fitted.losses[:3])
    metrics = [event["data"] for event in run.events if event["type"] == "metrics"]
    assert [data["step"] for data in metrics] == list(range(1, fitted.steps + 1))
    assert all(data["total_steps"] == fitted.steps and data["examples_per_s"] > 0 for data in metrics)
    assert metrics[-1]["eta_s"] == 0
    assert [data["loss"] for data in metrics] == list(fitted.losses)
    assert json.dumps(run.events)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(source: ModelSource, tmp_path: Path) -> None:
    one, two = Run(source, tmp_path / "1"), Run(source, tmp_path / "2")
    other = Run(
        source,
        tmp_path / "3",
        TunerSettings(epochs=4, batch_size=12, learning_rate=1e-3, seed=4, freeze_embeddings=False),
    )
    torch.manual_seed(1)
    one.run()
    torch.manual_seed(2)
    two.run()
    other.run()
    assert same(one.weights(), two.weights())
    assert not same(one.weights(), other.weights(), 1e-5)


def test_a_run_leaves_the_callers_generator_as_it_was(source: ModelSource, tmp_path: Path) -> None:
    run = Run(source, tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run.run()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "adafactor"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    source: ModelSource, tmp_path: Path, optimizer: Any
) -> None:
    settings = TunerSettings(
        epochs=3, batch_size=12, learning_rate=1e-3, seed=3, checkpoint_every=2, optimizer=optimizer
    )
    whole = Run(source, tmp_path / "whole", settings)
    whole.run()
    stopped = Run(source, tmp_path / "stopped", settings)
    stopped.stop_at = 3
    with pytest.raises(TrainingStopped):
        stopped.run()
    resumed = Run(source, tmp_path / "resumed", settings)
    fitted = resumed.run(tmp_path / "stopped")
    assert (fitted.resumed_at, fitted.resumed_at + fitted.steps) == (3, len(whole.data))
    assert same(whole.weights(), resumed.weights(), 1e-6)


def test_the_check_of_the_first_loss_leaves_a_resumed_run_as_it_is(source: ModelSource, tmp_path: Path) -> None:
    whole = Run(source, tmp_path / "whole")
    whole.run()
    stopped = Run(source, tmp_path / "stopped")
    stopped.stop_at = 3
    with pytest.raises(TrainingStopped):
        stopped.run()
    resumed = Run(source, tmp_path / "resumed", report=Report())
    resumed.run(tmp_path / "stopped")
    assert same(whole.weights(), resumed.weights(), 1e-6)


def test_a_resumed_run_skips_first_loss_checks_and_counts_all_tokens(source: ModelSource, tmp_path: Path) -> None:
    settings = TunerSettings(epochs=6, batch_size=12, learning_rate=2e-4, seed=3)
    whole = Run(source, tmp_path / "whole", settings).run()
    stopped = Run(source, tmp_path / "stopped", settings)
    stopped.stop_at = 3
    with pytest.raises(TrainingStopped):
        stopped.run()
    report = Report()
    fitted = Run(source, tmp_path / "resumed", settings, report).run(tmp_path / "stopped")
    assert fitted.steps > 4
    assert {"tiny_loss", "slope"}.isdisjoint(finding.check for finding in report.findings)
    assert fitted.tokens == whole.tokens


def test_sigterm_writes_a_checkpoint_and_asks_for_exit_143(source: ModelSource, tmp_path: Path) -> None:
    run = Run(source, tmp_path)
    run.stop_at = 2
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped) as stopped:
        run.run()
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    found = checkpoints.read(tmp_path)
    assert found is not None
    assert found.step == 2
    assert run.events[-1]["type"] == "checkpoint"
    assert run.events[-1]["step"] == 2
    assert {file.suffix for file in found.path.iterdir()} == {".safetensors", ".json"}


def test_checkpoints_come_every_so_many_steps_and_the_two_newest_stay(source: ModelSource, tmp_path: Path) -> None:
    run = Run(source, tmp_path, TunerSettings(epochs=4, batch_size=12, checkpoint_every=1))
    fitted = run.run()
    written = [event["step"] for event in run.events if event["type"] == "checkpoint"]
    assert written == list(range(1, fitted.steps + 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:08d}" for step in written[-2:]]


def test_a_checkpoint_of_another_run_is_ignored_with_a_warning(source: ModelSource, tmp_path: Path) -> None:
    Run(source, tmp_path / "1", TunerSettings(epochs=1, batch_size=12, checkpoint_every=1)).run()
    other = Run(source, tmp_path / "2", TunerSettings(epochs=1, batch_size=12, checkpoint_every=1, learning_rate=1e-3))
    assert other.run(tmp_path / "1").resumed_at == 0
    assert other.events[0]["level"] == "warn"
    assert "no checkpoint of this run" in other.events[0]["message"]


def test_a_half_written_checkpoint_does_not_count(source: ModelSource, tmp_path: Path) -> None:
    Run(source, tmp_path, TunerSettings(epochs=4, batch_size=12, checkpoint_every=1)).run()
    newest = max(tmp_path.iterdir())
    (newest / "state.json").unlink()
    found = checkpoints.read(tmp_path)
    assert found is not None
    assert found.path < newest


def test_a_checkpoint_of_other_weights_is_refused(source: ModelSource, tmp_path: Path) -> None:
    run = Run(source, tmp_path)
    written = checkpoints.write(tmp_path, 1, "x", nn.Linear(2, 2), torch.optim.SGD(nn.Linear(2, 2).parameters()))
    with pytest.raises(ValueError, match="other weights"):
        checkpoints.restore(written, run.encoder, run.tuner._optimizer)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(source: ModelSource, tmp_path: Path, bad: float) -> None:
    run = Run(source, tmp_path)
    whole = run.loss
    run.loss = lambda columns, targets: whole(columns, targets) * bad
    with pytest.raises(TrainingError) as error:
        run.run()
    assert (error.value.code, error.value.param) == (
        "loss_not_finite",
        "method.supervised.hyperparameters.learning_rate",
    )


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_update(source: ModelSource, tmp_path: Path) -> None:
    run = Run(source, tmp_path)
    whole = run.loss
    # The square root's slope at 0 is infinite, its value is 0.
    run.loss = lambda columns, targets: whole(columns, targets) + (columns[0] * 0.0).abs().sum().sqrt()
    before = run.weights()
    with pytest.raises(TrainingError) as error:
        run.run()
    assert error.value.code == "gradient_not_finite"
    assert same(before, run.weights())


def test_a_learning_rate_a_thousand_times_too_high_is_noticed(source: ModelSource, tmp_path: Path) -> None:
    settings = TunerSettings(epochs=12, batch_size=12, learning_rate=2.0, warmup=0.0)
    with pytest.raises(CheckFailed) as error:
        Run(source, tmp_path, settings, Report()).run()
    assert error.value.code in ("update_ratio", "exploding_gradient", "slope")


def test_a_healthy_run_passes_all_checks(source: ModelSource, tmp_path: Path) -> None:
    report = Report()
    Run(source, tmp_path, TunerSettings(epochs=12, batch_size=12, learning_rate=2e-4), report).run()
    assert [finding for finding in report.findings if finding.status != "ok"] == []
    assert {finding.stage for finding in report.findings} == {"loss", "gradient"}


def test_a_loss_cut_off_from_the_model_is_stopped_before_the_first_step(source: ModelSource, tmp_path: Path) -> None:
    run = Run(source, tmp_path, report=Report())
    whole = run.loss
    run.loss = lambda columns, targets: whole([column.detach() for column in columns], targets)
    with pytest.raises(CheckFailed) as error:
        run.run()
    assert error.value.code == "connected"


def test_frozen_weights_stay_and_all_others_move(source: ModelSource, tmp_path: Path) -> None:
    run = Run(
        source,
        tmp_path,
        TunerSettings(epochs=2, batch_size=12, learning_rate=1e-3, freeze_embeddings=True, weight_decay=0.5),
    )
    before = run.weights()
    frozen = {name for name, parameter in run.encoder.named_parameters() if not parameter.requires_grad}
    run.run()
    moved = {name for name, tensor in run.weights().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[-2] for name in frozen} == {"word_embeddings", "dense"}
    assert all("pooler" in name or "word_embeddings" in name for name in frozen)
    assert moved.isdisjoint(frozen)
    # The key's bias shifts all scores of a query alike, which softmax does not see; its gradient is rounding.
    assert {name for name in before if name not in frozen and "key.bias" not in name} <= moved


def test_only_the_upper_layers_train_where_the_lower_ones_are_frozen(source: ModelSource, tmp_path: Path) -> None:
    run = Run(source, tmp_path, replace(FAST, epochs=1, frozen_layers=0.5))
    before = run.weights()
    run.run()
    moved = {name for name, tensor in run.weights().items() if not torch.equal(tensor, before[name])}
    layers = int(run.encoder.pipeline[0].config.num_hidden_layers)
    assert layers >= 2
    assert moved
    assert {int(name.split(".layer.")[1].split(".")[0]) for name in moved} == set(range(layers // 2, layers))


def test_at_least_one_layer_trains(source: ModelSource) -> None:
    encoder = TrainableEncoder(source, CPU, replace(FAST, frozen_layers=1.0))
    assert any(parameter.requires_grad for parameter in encoder.parameters())


def test_layers_cannot_be_frozen_in_a_model_that_has_no_list_of_them() -> None:
    network: Any = nn.Linear(2, 2)
    network.config = SimpleNamespace(num_hidden_layers=3)
    with pytest.raises(TrainingError, match="no list of 3 layers") as error:
        freeze_lower_layers(network, 0.5)
    assert (error.value.code, error.value.param) == ("no_layers", "method.supervised.hyperparameters.mode")


def test_a_model_that_is_frozen_whole_is_refused(source: ModelSource, tmp_path: Path) -> None:
    encoder = TrainableEncoder(source, CPU, FAST).requires_grad_(False)
    data = Batches([TEXTS], None, [[0, 1]], encoder.reader)
    with pytest.raises(TrainingError, match="frozen") as error:
        TrainingLoop(
            encoder, lambda batch: torch.zeros(()), data, FAST, CPU, directory=tmp_path, events=lambda event: None
        )
    assert error.value.param == "method.supervised.hyperparameters.mode"


def test_a_plan_without_batches_is_refused(source: ModelSource, tmp_path: Path) -> None:
    encoder = TrainableEncoder(source, CPU, FAST)
    with pytest.raises(TrainingError, match="no batch"):
        TrainingLoop(
            encoder,
            lambda batch: torch.zeros(()),
            Batches([TEXTS], None, [], encoder.reader),
            FAST,
            CPU,
            directory=tmp_path,
            events=lambda event: None,
        )


def test_the_learning_rate_follows_the_schedule() -> None:
    settings = TunerSettings(learning_rate=1.0, warmup=0.2)
    rates = [learning_rate(settings, step, 10) for step in range(1, 11)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    assert learning_rate(TunerSettings(learning_rate=1.0, warmup=0, schedule="constant"), 10, 10) == 1.0
    cosine = [
        learning_rate(TunerSettings(learning_rate=1.0, warmup=0, schedule="cosine"), step, 10) for step in (1, 6, 10)
    ]
    assert cosine == pytest.approx([1.0, 0.5, 0.0245], abs=1e-3)


def test_loader_processes_run_only_beside_a_gpu() -> None:
    assert [
        loader_workers(torch.device("cpu"), 64),
        loader_workers(torch.device("cuda"), 2),
        loader_workers(torch.device("cuda"), 64),
    ] == [0, 0, 4]
