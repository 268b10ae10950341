"""A temperature makes probabilities honest."""

from __future__ import annotations

import pytest
import torch

from models.training.heads.temperature import fit_temperature
from models.training.metrics import calibration_error


def drawn(temperature: float, *, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a model whose confidence is off by `temperature`, and labels drawn by its honest probabilities."""
    generator = torch.Generator().manual_seed(8)
    honest = 2 * torch.randn(count, 5, generator=generator)
    labels = torch.multinomial(honest.softmax(dim=-1), 1, generator=generator).flatten()
    return honest * temperature, labels


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0, 10.0])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.06)


def error_of(logits: torch.Tensor, labels: torch.Tensor) -> float:
    confidence, predicted = logits.softmax(-1).max(-1)
    return calibration_error(confidence.numpy(), (predicted == labels).numpy())


def test_a_fitted_temperature_makes_probabilities_honest() -> None:
    logits, labels = drawn(4.0)
    assert error_of(logits, labels) > 0.15
    assert error_of(logits / fit_temperature(logits, labels), labels) < 0.03


def test_data_without_a_mistake_gives_a_temperature_within_bounds() -> None:
    assert 0.019 < fit_temperature(torch.eye(4) * 3, torch.arange(4)) < 0.03


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \[3, 2\] and \[2\]"):
        fit_temperature(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
