"""A network as matrix products in float64: the same function, built again after training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.sensors.detectors.autoencoders import ConvAutoencoder, RecordAutoencoder
from models.sensors.detectors.folded_network import as_products
from models.sensors.detectors.network import NetworkDetector
from models.sensors.detectors.prediction_error import PredictionErrorDetector

pytestmark = pytest.mark.slow

# More columns than units that are looked at together: 40 * 32 > 512.
CASES = [
    (RecordAutoencoder, (3,)),
    (ConvAutoencoder, (3, 32)),
    (ConvAutoencoder, (40, 32)),
    (PredictionErrorDetector, (3, 16)),
]


def made(kind: type[NetworkDetector], columns: int) -> NetworkDetector:
    """A network with weights that are not all small."""
    detector = kind(columns)
    with torch.no_grad():
        for number, parameter in enumerate(detector.parameters()):
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return detector


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_products_are_the_same_function(kind: type[NetworkDetector], shape: tuple[int, ...]) -> None:
    detector = made(kind, shape[0])
    x = torch.randn(300, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected = detector.network.double()(x)
        if isinstance(detector, ConvAutoencoder):
            expected = expected[:, :, -8:]
        torch.testing.assert_close(
            detector.exact(x), expected.flatten(1), rtol=1e-5, atol=1e-5 * float(expected.abs().max())
        )


def test_layers_without_a_gelu_are_one_product() -> None:
    network = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(9, 4), nn.Linear(4, 5))
    with torch.no_grad():
        products = as_products(network, (2, 4))
    assert [type(layer) for layer in products] == [nn.Flatten, nn.Linear]
    x = torch.randn(6, 2, 4)
    torch.testing.assert_close(products(x.double()).float(), network(x))


@pytest.mark.parametrize("kind", [RecordAutoencoder, ConvAutoencoder, PredictionErrorDetector])
def test_what_was_learned_anew_judges(kind: type[NetworkDetector]) -> None:
    runs = [torch.randn(120, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    again = kind(3).fit(runs[:1]).fit(runs[1:])
    loaded = kind(3)
    loaded.load_state_dict(again.state_dict())
    assert torch.equal(again.score_run(runs[0]), loaded.score_run(runs[0]))
    assert not [name for name in again.state_dict() if "judge" in name], "it is made anew from what is saved"
