"""The loss checks find losses that measure nothing, and pass healthy ones."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from models.training.checks.loss import check_loss, check_loss_inputs, check_overfit, check_slope
from models.training.report import Finding
from tests.support.check_rows import troubles

N, WIDTH, CLASSES = 24, 16, 5
GENERATOR = torch.Generator().manual_seed(0)
X = nn.functional.normalize(torch.randn(N, WIDTH, generator=GENERATOR), dim=1)
Y = torch.arange(N) % CLASSES


def head(width: int = WIDTH, out: int = CLASSES) -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, out))


def loss_of(model: nn.Module) -> Tensor:
    return cross_entropy(model(X), Y)


def train(model: nn.Module, learning_rate: float, steps: int = 24) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    losses = []
    for _ in range(steps):
        loss = loss_of(model)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()
    return losses


def check(model: nn.Module, loss: Tensor, classes: int | None = CLASSES) -> dict[str, Finding]:
    return troubles(check_loss(lambda: loss, model.named_parameters(), classes=classes))


def test_a_healthy_loss_raises_nothing() -> None:
    model = head()
    found = check_loss(lambda: loss_of(model), model.named_parameters(), classes=CLASSES, outputs=model(X), targets=Y)
    assert troubles(found) == {}
    assert check_overfit(model, loss_of, learning_rate=0.03).status == "ok"
    assert check_slope(train(model, 0.5)).status == "ok"


def test_looking_leaves_no_gradient_and_no_change_behind() -> None:
    model = head()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    assert troubles(check_loss(lambda: loss_of(model), model.named_parameters())) == {}
    check_overfit(model, loss_of, learning_rate=0.1)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_a_detached_graph_is_found() -> None:
    model = head()
    found = check(model, cross_entropy(model(X).detach(), Y))["connected"]
    assert (found.status, found.message) == ("fail", "The loss is cut off from every parameter.")
    other = head()
    assert check(model, loss_of(other))["connected"].message == "The loss reaches none of the trainable parameters."
    assert check_overfit(model, lambda copy: cross_entropy(copy(X).detach(), Y)).value == "detached"


def test_a_part_that_is_cut_off_is_named() -> None:
    model = nn.ModuleDict({"body": nn.Linear(WIDTH, 32), "pooler": nn.Linear(2, 2), "head": nn.Linear(32, CLASSES)})
    found = check(model, cross_entropy(model["head"](model["body"](X).detach()), Y))["connected"]
    assert found.status == "warn"
    assert "not body.weight, body.bias." in found.message


def test_everything_frozen_is_found() -> None:
    model = head().requires_grad_(requires_grad=False)
    assert check(model, loss_of(model))["connected"].message == "No parameter is trainable."
    assert check_overfit(model, loss_of).status == "fail"


@pytest.mark.filterwarnings("default:Using a target size")
def test_a_loss_that_broadcasts_is_found_by_its_shapes_and_by_torchs_own_word() -> None:
    model = head(out=1)
    scores = torch.rand(N, generator=GENERATOR)
    found = troubles(check_loss(lambda: mse_loss(model(X), scores), model.named_parameters()))
    assert found["loss_inputs"].status == "fail"
    assert "broadcasting" in found["loss_inputs"].message
    silent = check_loss_inputs(model(X), scores)
    assert (silent.status, silent.value, silent.threshold) == ("fail", "[24, 1] against [24]", "equal shapes")
    assert check_loss_inputs(model(X).squeeze(1), scores).status == "ok"


def test_a_loss_that_torch_refuses_is_a_finding_and_not_a_crash() -> None:
    model = head()
    found = troubles(
        check_loss(lambda: cross_entropy(model(X), Y[:5]), model.named_parameters(), outputs=model(X), targets=Y[:5])
    )
    assert found["loss_inputs"].status == "fail"
    assert (
        check_loss_inputs(model(X), Y + 1).message
        == "Targets: expected class numbers from 0 to 4, got torch.int64 from 1 to 5."
    )
    assert check_loss_inputs(model(X), Y.float(), "classes").status == "fail"
    assert check(model, cross_entropy(model(X), Y, reduction="none"))["loss_scalar"].status == "fail"


def test_other_warnings_of_a_loss_pass_on() -> None:
    model = head()

    def loud() -> Tensor:
        warnings.warn("mind this", UserWarning, stacklevel=1)
        return loss_of(model)

    with pytest.warns(UserWarning, match="mind this"):
        assert troubles(check_loss(loud, model.named_parameters())) == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_found(bad: float) -> None:
    model = head()
    assert check(model, loss_of(model) * bad)["loss_finite"].status == "fail"
    assert check_overfit(model, lambda copy: loss_of(copy) * bad).status == "fail"
    assert check_slope([1.0, 0.9, bad, 0.8]).message == "The loss is not finite from step 3 on."


def test_a_fresh_head_that_already_knows_is_suspicious() -> None:
    model = head()

    def knowing() -> Tensor:
        return cross_entropy(model(X) + 20 * nn.functional.one_hot(Y, CLASSES), Y)

    found = check(model, knowing())
    assert found["tiny_loss"].status == "warn"
    assert found["fresh_loss"].status == "fail"
    assert check(model, knowing(), None)["tiny_loss"].status == "warn"


def test_a_head_of_the_wrong_size_or_scale_is_found() -> None:
    model = head()
    assert check(model, loss_of(model) * 2)["fresh_loss"].status == "warn"
    assert check(model, cross_entropy(model(X) * 1000, Y))["fresh_loss"].status == "fail"
    assert "fresh_loss" not in troubles(
        check_loss(lambda: loss_of(model) * 9, model.named_parameters(), classes=CLASSES, fresh=False)
    )


def test_a_model_that_has_learnt_may_begin_with_a_tiny_loss() -> None:
    model = head()
    for fresh, expected in ((True, {"tiny_loss"}), (False, set())):
        assert (
            set(troubles(check_loss(lambda: loss_of(model) * 1e-3, model.named_parameters(), fresh=fresh))) == expected
        )


def test_one_batch_that_cannot_be_learned_by_heart_is_found() -> None:
    model = head()
    constant = check_overfit(model, lambda copy: cross_entropy(copy(torch.ones_like(X)), Y), learning_rate=0.03)
    assert constant.status == "fail"
    nn.init.constant_(model.get_submodule("0").get_parameter("bias"), -1000.0)
    assert check_overfit(model, loss_of, learning_rate=0.03).status == "fail"


def test_a_loss_with_a_floor_is_judged_above_it() -> None:
    model = head()
    assert check_overfit(model, lambda copy: loss_of(copy) + 5, learning_rate=0.03).status == "warn"
    assert check_overfit(model, lambda copy: loss_of(copy) + 5, learning_rate=0.03, floor=5.0).status == "ok"


def test_a_learning_rate_a_thousand_times_too_high_is_found() -> None:
    assert check_slope(train(head(), 0.5)).status == "ok"
    assert check_slope(train(head(), 500.0)).status == "fail"
    assert check_slope([1.6, 1.5, 1.7, 1.4, 1.8, 4.9, 5.1, 4.8]).status == "fail"


def test_a_loss_that_does_not_fall_warns() -> None:
    assert check_slope(train(head(), 0.0)).status == "warn"
    with pytest.raises(ValueError, match="at least 4"):
        check_slope([1.0, 0.5])


def test_a_first_batch_that_costs_nothing_is_no_leap_afterwards() -> None:
    assert check_slope([0.0, 0.2, 0.1, 0.15, 0.1, 0.12, 0.05, 0.0]).status == "ok"
