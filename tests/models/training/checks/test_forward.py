"""The forward checks find models that answer nonsense, and pass healthy ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.training.checks.forward import check_forward
from models.training.report import Finding
from tests.support.check_rows import troubles

ROWS, IN, OUT = 6, 8, 4
X = torch.randn(ROWS, IN, generator=torch.Generator().manual_seed(0))
LINES = [11, 12, 13, 14, 15, 16]


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(IN, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, OUT)
    )


def check(
    forward: Callable[[], Tensor], module: nn.Module | None = None, padded: Callable[[], Tensor] | None = None
) -> dict[str, Finding]:
    found = check_forward(forward, rows=ROWS, width=OUT, dtype=torch.float32, module=module, padded=padded, lines=LINES)
    return troubles(found)


def test_a_healthy_model_raises_nothing_and_keeps_its_mode() -> None:
    model = network().train()
    model[2].eval()
    assert check(lambda: model(X), model, lambda: model(X) + 1e-7) == {}
    assert [layer.training for layer in model] == [True, True, False, True, True, True]
    assert not any(layer._forward_hooks for layer in model.modules())


def test_the_wrong_shape_and_dtype_are_named() -> None:
    model = network()
    found = check(lambda: model(X).mean(dim=1))
    assert (found["shape"].status, found["shape"].value, found["shape"].threshold) == ("fail", "[6]", "[6, 4]")
    assert check(lambda: model(X)[:5])["shape"].status == "fail"
    assert check(lambda: model(X).double())["dtype"].status == "fail"
    assert check(lambda: model(X).argmax(dim=1, keepdim=True))["dtype"].status == "fail"


def test_nan_is_found_with_its_rows_and_the_first_layer_that_gave_it() -> None:
    model = network()
    poisoned = X.clone()
    poisoned[2] = torch.nan
    assert check(lambda: model(poisoned))["finite"].rows == (13,)
    with torch.no_grad():
        model.get_parameter("2.weight")[0, 0] = torch.inf
    found = check(lambda: model(X), model)
    assert found["finite"].status == "fail"
    assert found["dead_layers"].value == "2"


def test_a_dead_layer_is_named_and_its_constant_output_fails() -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("2.bias").fill_(-1000.0)
    found = check(lambda: model(X), model)
    assert (found["constant_output"].status, found["constant_output"].rows) == ("fail", tuple(LINES))
    assert found["dead_layers"].status == "warn"
    assert "3, 4" in found["dead_layers"].message


def test_outputs_of_zero_are_found() -> None:
    model = network()
    nn.init.zeros_(model.get_parameter("5.weight"))
    nn.init.zeros_(model.get_parameter("5.bias"))
    found = check(lambda: model(X))
    assert (found["all_zero"].status, found["all_zero"].rows) == ("fail", tuple(LINES))
    assert check(lambda: X[:, :OUT] * torch.tensor([1.0, 1, 0, 1, 1, 1])[:, None])["all_zero"].rows == (13,)


def test_padding_that_matters_is_found_with_its_rows() -> None:
    model = network()

    def careless() -> Tensor:
        out: Tensor = model(X).clone()
        out[4] *= 0.5
        return out

    found = check(lambda: model.eval()(X), padded=careless)
    assert (found["padding"].status, found["padding"].rows) == ("fail", (15,))
    assert check(lambda: model.eval()(X), padded=lambda: model(X)[:, :2])["padding"].status == "fail"


def test_layers_that_start_at_zero_on_purpose_are_left_out() -> None:
    model = nn.ModuleDict(
        {"base": nn.Linear(IN, OUT), "lora_A": nn.Linear(IN, 2), "lora_B": nn.Linear(2, OUT, bias=False)}
    )
    nn.init.zeros_(model.get_parameter("lora_B.weight"))
    assert check(lambda: model["base"](X) + model["lora_B"](model["lora_A"](X)), model) == {}


@pytest.mark.parametrize("rows", [1, 2])
def test_small_batches_can_be_checked(rows: int) -> None:
    model = network()
    assert troubles(check_forward(lambda: model(X[:rows]), rows=rows, module=model)) == {}
