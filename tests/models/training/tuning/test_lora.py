"""LoRA: only the adapters train, merging changes nothing, and what is saved is what was trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AlbertConfig, AlbertModel, GPT2Config, GPT2Model

from models.errors import ModelError, ModelSourceError
from models.loader import load
from models.runtime.placement import place
from models.source import ModelSource, locate
from models.text.packed.encoder import PackedEncoder
from models.training.embeddings import Embedder
from models.training.errors import TrainingDataError, TrainingError
from models.training.hyperparameter_parser import parse
from models.training.hyperparameters import Head
from models.training.report import Report
from models.training.tuning.freezing import freeze_lower_layers
from models.training.tuning.labelled_tuning import LabelledTuning, default_settings
from models.training.tuning.lora import add_lora, merge, targets
from models.training.tuning.settings import Mode, TunerSettings, merge_settings
from models.training.tuning.trainable_encoder import TrainableEncoder
from models.training.tuning.training_heads import build_head
from models.training.tuning.tunable_encoder import require_same
from tests.support import tiny_models

pytestmark = pytest.mark.slow

CPU = place("cpu", "float32")
TEXTS = [f"{word} {number}" for word in ("card lost", "money back") for number in range(6)]
LABELS = ["lost"] * 6 + ["refund"] * 6
Tune = Callable[[LabelledTuning], Path]


def tuning(
    source: ModelSource, settings: TunerSettings, directory: Path, report: Report | None = None
) -> LabelledTuning:
    return LabelledTuning(source, CPU, TEXTS, LABELS, settings, lambda event: None, directory, report=report)


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_every_architecture_has_layers_for_adapters_and_no_head_gets_one(
    tmp_path: Path, architecture: tiny_models.Architecture
) -> None:
    encoder = TrainableEncoder(
        locate(str(tiny_models.encoder(tmp_path / "tiny", architecture))), CPU, TunerSettings(mode="lora", lora_rank=4)
    )
    trained = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert not any("pooler" in name for name in trained)


def test_adapters_can_be_limited_to_attention(tmp_path: Path) -> None:
    network = (
        TrainableEncoder(locate(str(tiny_models.encoder(tmp_path / "tiny"))), CPU, TunerSettings()).pipeline[0].model
    )
    assert {name.rsplit(".", 1)[-1] for name in targets(network, "attention")} == {"query", "key", "value"}
    assert len(targets(network, "all")) == 2 * 6
    with pytest.raises(ModelError, match="no linear layers"):
        add_lora(nn.ReLU(), rank=2, alpha=2, dropout=0, layers="all")


def test_merging_leaves_the_outputs_and_the_kind_of_model(tmp_path: Path) -> None:
    source = locate(str(tiny_models.encoder(tmp_path / "tiny")))
    encoder = TrainableEncoder(source, CPU, TunerSettings(mode="lora", lora_rank=4)).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    before = encoder._probe()
    plain = TrainableEncoder(source, CPU, TunerSettings()).eval()
    assert np.abs(before - plain._probe()).max() > 0.01
    merge(encoder.pipeline[0].model)
    assert np.allclose(before, encoder._probe(), atol=1e-5)
    assert type(encoder.pipeline[0].model) is type(plain.pipeline[0].model)
    assert encoder.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("tune", [LabelledTuning.contrastive, LabelledTuning.under_head])
def test_a_tuned_encoder_is_served_by_the_packed_forward_pass(tmp_path: Path, mode: Mode, tune: Tune) -> None:
    source = locate(str(tiny_models.encoder(tmp_path / "tiny", normalize=True)))
    settings = TunerSettings(mode=mode, epochs=6, batch_size=6, learning_rate=3e-3, lora_rank=4)
    path = tune(tuning(source, settings, tmp_path / "out"))
    assert path == tmp_path / "out" / "encoder"
    assert not [file for file in path.rglob("*") if file.suffix in (".bin", ".pkl", ".pt", ".py")]
    model = load(locate(f"tuned={path}"), CPU)
    assert isinstance(model, PackedEncoder)
    assert apart(Embedder(model)(TEXTS)) > apart(Embedder(load(source, CPU))(TEXTS))


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_an_encoder_tuned_under_a_linear_head_tells_labels_apart_too(tmp_path: Path, mode: Mode) -> None:
    source = locate(str(tiny_models.encoder(tmp_path / "tiny", normalize=True)))
    rows = {}
    for head in ("cosine", "linear"):
        settings = TunerSettings(mode=mode, head=head, epochs=6, batch_size=6, learning_rate=3e-3, lora_rank=4)
        path = tuning(source, settings, tmp_path / head).under_head()
        rows[head] = Embedder(load(locate(f"tuned={path}"), CPU))(TEXTS)
    assert apart(rows["linear"]) > apart(Embedder(load(source, CPU))(TEXTS))
    assert np.abs(rows["linear"] - rows["cosine"]).max() > 1e-4


@pytest.mark.parametrize(
    ("given", "head"), [({}, "cosine"), ({"head": "auto"}, "cosine"), ({"head": "linear"}, "linear")]
)
def test_the_head_that_a_job_asks_for_is_the_one_it_learns_under(given: dict[str, str], head: str) -> None:
    asked = parse("classification", {"mode": "full", **given})
    assert merge_settings(default_settings("full", 100), asked, seed=1).head == head


def test_a_linear_head_is_an_affine_map_that_begins_where_the_cosines_do() -> None:
    means = functional.normalize(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), dim=-1)
    x = functional.normalize(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]), dim=-1)
    affine = build_head("linear", means, 0.1)
    torch.testing.assert_close(affine(x), build_head("cosine", means, 0.1)(x))
    assert isinstance(affine, nn.Linear)
    with torch.no_grad():
        affine.bias.copy_(torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(affine(2 * x), 2 * x @ affine.weight.T + affine.bias)


@pytest.mark.parametrize("head", ["cosine", "linear"])
def test_a_head_that_starts_at_its_means_is_not_suspected_of_a_leak(tmp_path: Path, head: Head) -> None:
    source = locate(str(tiny_models.encoder(tmp_path / "tiny", normalize=True)))
    report = Report()
    settings = TunerSettings(epochs=1, max_steps=1, temperature=0.05, head=head)
    tuning(source, settings, tmp_path / "out", report=report).under_head()
    assert "connected" in {finding.check for finding in report.findings}
    assert "tiny_loss" not in {finding.check for finding in report.findings}


def apart(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """How much nearer texts of one label are than texts of two."""
    cosines = x @ x.T
    return float(cosines[:6, :6].mean() + cosines[6:, 6:].mean() - 2 * cosines[:6, 6:].mean())


def test_a_saved_model_with_other_vectors_is_refused() -> None:
    rows = np.eye(3, dtype=np.float32)
    require_same(rows, rows, CPU)
    with pytest.raises(TrainingError, match=r"least cosine 0\.00000") as error:
        require_same(rows, rows[[1, 2, 0]], CPU)
    assert error.value.code == "saved_model_differs"
    with pytest.raises(TrainingError, match="nan"):
        require_same(rows, rows * np.float32("nan"), CPU)


@pytest.mark.parametrize("tune", [LabelledTuning.contrastive, LabelledTuning.under_head])
def test_one_label_is_refused(tmp_path: Path, tune: Tune) -> None:
    source = locate(str(tiny_models.encoder(tmp_path / "tiny")))
    with pytest.raises(TrainingDataError, match="two labels"):
        tune(replace(tuning(source, TunerSettings(), tmp_path), labels=["a"] * 12))


def test_one_text_a_label_is_refused_where_positives_are_needed(tmp_path: Path) -> None:
    source = locate(str(tiny_models.encoder(tmp_path / "tiny")))
    with pytest.raises(TrainingDataError, match="two texts"):
        replace(tuning(source, TunerSettings(), tmp_path), texts=["a", "b"], labels=["a", "b"]).contrastive()


def test_an_unreadable_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError):
        TrainableEncoder(locate(str(broken(tmp_path))), CPU, TunerSettings())


def broken(tmp_path: Path) -> Path:
    """A directory whose weights cannot be read."""
    path = tiny_models.encoder(tmp_path / "tiny")
    (path / "model.safetensors").write_bytes(b"nothing")
    return path


def test_gpt2_gets_adapters_and_merging_them_changes_nothing() -> None:
    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2, attn_pdrop=0, embd_pdrop=0)
    network = GPT2Model(config).eval()
    assert {name.rsplit(".", 1)[-1] for name in targets(network, "attention")} == {"c_attn"}
    add_lora(network, rank=2, alpha=4.0, dropout=0.0)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * 4, "A and B of attention, its output and two linear layers, in two layers"
    with torch.no_grad():
        for parameter in trained:
            parameter.normal_(0, 0.1)
    ids = torch.arange(12)[None]
    before = network(input_ids=ids).last_hidden_state
    merge(network)
    assert not any("lora" in name for name, _ in network.named_parameters())
    torch.testing.assert_close(network(input_ids=ids).last_hidden_state, before, atol=1e-5, rtol=1e-4)


def test_albert_trains_the_layer_that_all_its_layers_are() -> None:
    config = AlbertConfig(
        vocab_size=50,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
    )
    network = AlbertModel(config)
    freeze_lower_layers(network, 0.5)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(name.startswith("encoder.albert_layer_groups.0.") for name in trained)
