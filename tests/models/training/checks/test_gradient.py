"""The gradient checks find weights that do not learn as they should, and pass healthy ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from models.training.checks.gradient import GradientMonitor
from models.training.report import Finding
from tests.support.check_rows import troubles

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 3


class Network(nn.Module):
    """An encoder, an unused layer like BERT's pooler, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.pooler = nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(x))
        return out


def watched(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    loss: Callable[[], Tensor] | None = None,
    expected: tuple[str, ...] = (),
    steps: int = 5,
    meanwhile: Callable[[], object] = lambda: None,
) -> dict[str, Finding]:
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-3)
    monitor = GradientMonitor(model, optimizer, steps=steps, expected=expected)
    for _ in range(steps + 2):
        optimizer.zero_grad()
        torch.autograd.backward([loss() if loss else cross_entropy(model(X), Y)])
        with monitor.step():
            optimizer.step()
            meanwhile()
    assert not monitor.active
    return troubles(monitor.findings())


@pytest.mark.parametrize("learning_rate", [1e-3, 1e-4])
def test_a_healthy_model_raises_nothing(learning_rate: float) -> None:
    model = Network()
    assert watched(model, torch.optim.AdamW(model.parameters(), lr=learning_rate)) == {}


def test_a_frozen_encoder_with_a_head_raises_nothing() -> None:
    model = Network()
    model.requires_grad_(requires_grad=False)
    model.head.requires_grad_()
    assert watched(model, torch.optim.AdamW(model.head.parameters(), lr=1e-3)) == {}


def test_a_head_that_starts_at_zero_raises_nothing() -> None:
    model = Network()
    nn.init.zeros_(model.head.weight)
    model.requires_grad_(requires_grad=False)
    model.head.requires_grad_()
    assert watched(model, torch.optim.AdamW(model.head.parameters(), lr=1e-3)) == {}


def test_weights_the_optimizer_does_not_know_are_named() -> None:
    model = Network()
    found = watched(model, torch.optim.AdamW([*model.encoder.parameters(), *model.pooler.parameters()], lr=1e-3))
    assert set(found) == {"not_in_optimizer"}
    assert found["not_in_optimizer"].status == "fail"
    assert "head.weight, head.bias" in found["not_in_optimizer"].message


def test_a_layer_frozen_by_mistake_is_named() -> None:
    model = Network()
    model.get_submodule("encoder.2").requires_grad_(requires_grad=False)
    assert watched(model)["frozen_by_mistake"].status == "warn"
    found = watched(model, torch.optim.AdamW(model.parameters(), lr=1e-3), expected=("encoder.*", "head.*"))
    assert found["frozen_by_mistake"].status == "fail"
    assert "encoder.2.weight" in found["frozen_by_mistake"].message


def test_nothing_to_train_is_found() -> None:
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.requires_grad_(requires_grad=False)
    assert troubles(GradientMonitor(model, optimizer).findings())["trainable"].status == "fail"


def test_a_frozen_weight_that_moves_is_named() -> None:
    model = Network()
    model.get_submodule("encoder.0").requires_grad_(requires_grad=False)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-3)
    found = watched(model, optimizer, meanwhile=lambda: model.get_parameter("encoder.0.weight").data.mul_(0.99))
    assert set(found) == {"frozen_moved"}
    assert found["frozen_moved"].message == "1 parameter is frozen but changed: encoder.0.weight."


def test_a_detached_encoder_has_no_gradient() -> None:
    model = Network()
    found = watched(model, loss=lambda: cross_entropy(model.head(model.encoder(X).detach()), Y))
    assert found["missing_gradient"].status == "warn"
    assert "encoder.0.weight" in found["missing_gradient"].message


def test_a_dead_layer_has_a_gradient_of_zero() -> None:
    model = Network()
    nn.init.constant_(model.get_parameter("encoder.2.bias"), -1000.0)
    found = watched(model, torch.optim.SGD(model.parameters(), lr=1e-2))
    assert found["zero_gradient"].status == "warn"
    assert "encoder.0.weight" in found["zero_gradient"].message


def test_nan_in_one_gradient_is_named() -> None:
    model = Network()
    model.get_parameter("encoder.2.weight").register_hook(lambda grad: grad * torch.nan)  # type: ignore[no-untyped-call]
    found = watched(model)
    assert found["nan_gradient"].status == "fail"
    assert "encoder.2.weight" in found["nan_gradient"].message


@pytest.mark.parametrize(("scale", "status"), [(1e5, "warn"), (1e9, "fail")])
def test_exploding_gradients_are_found(scale: float, status: str) -> None:
    model = Network()
    found = watched(
        model, torch.optim.AdamW(model.parameters(), lr=1e-3), loss=lambda: cross_entropy(model(X), Y) * scale
    )
    assert found["exploding_gradient"].status == status


def test_a_learning_rate_a_thousand_times_too_high_is_found() -> None:
    model = Network()
    found = watched(model, torch.optim.AdamW(model.parameters(), lr=1.0))
    assert found["update_ratio"].status == "fail"
    assert found["update_ratio"].remedy == "Lower the learning rate."


def test_a_learning_rate_of_next_to_nothing_is_found() -> None:
    model = Network()
    found = watched(model, torch.optim.AdamW(model.parameters(), lr=1e-7))
    assert found["update_ratio"].status == "warn"
    assert found["update_ratio"].remedy == "Raise the learning rate, unless another check asks to lower it."


def test_weights_that_never_change_are_found() -> None:
    model = Network()
    assert watched(model, torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0))["unchanged"].status == "fail"
    still: dict[str, Any] = {"params": model.encoder.parameters(), "lr": 0.0}
    part = torch.optim.SGD([still, {"params": [*model.head.parameters(), *model.pooler.parameters()]}], lr=0.1)
    found = watched(model, part)["unchanged"]
    assert found.status == "warn"
    assert "encoder.0.weight" in found.message


def test_a_monitor_without_steps_warns() -> None:
    model = Network()
    assert set(troubles(GradientMonitor(model, torch.optim.SGD(model.parameters(), lr=0.1)).findings())) == {"watched"}
