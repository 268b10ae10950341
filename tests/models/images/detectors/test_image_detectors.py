"""Image detectors: closed forms against the long way, and the promised share of false alarms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from models.images.detectors.detector import CalibratedImageDetector, Patches, image_scores
from models.images.detectors.padim import fit_padim
from models.images.detectors.patch_core import BANK, PatchCore, fit_patch_core

Fit = Callable[[Patches], CalibratedImageDetector]
FITS = pytest.mark.parametrize("fit", [fit_padim, fit_patch_core])


def normal(images: int, seed: int = 0, places: int = 9, channels: int = 6) -> Patches:
    chance = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((places, channels, channels))
    found = chance.standard_normal((images, places, 1, channels)) @ mixing
    return found[:, :, 0].astype(np.float32)


def with_defect(patches: Patches, place: int = 4) -> Patches:
    strange = patches.copy()
    strange[:, place] += 25
    return strange


@FITS
def test_a_defect_is_found_at_its_place(fit: Fit) -> None:
    detector = fit(normal(60))
    good, bad = detector.score(normal(20, seed=1)), detector.score(with_defect(normal(20, seed=1)))
    assert float(bad.scores.min()) > float(good.scores.max())
    assert (bad.places.argmax(dim=1) == 4).all()
    assert (bad.p_values == bad.p_values.min()).all()


@FITS
def test_the_share_of_false_alarms_is_alpha(fit: Fit) -> None:
    p_values = [fit(normal(99, seed=2 * n)).score(normal(200, seed=2 * n + 1)).p_values for n in range(8)]
    assert 0.07 <= float((torch.cat(p_values) <= 0.1).double().mean()) <= 0.13


def test_leaving_out_is_what_fitting_without_gives() -> None:
    patches = normal(40)
    calibration = fit_padim(patches).calibration
    expected = [fit_padim(np.delete(patches, at, axis=0)).score(patches[at : at + 1]).scores[0] for at in range(40)]
    torch.testing.assert_close(calibration, torch.stack(expected), rtol=0.02, atol=0)


def test_patches_of_the_left_out_image_are_no_neighbours() -> None:
    """Otherwise an image would find itself, at no distance."""
    detector = fit_patch_core(normal(10))
    assert float(detector.calibration.min()) > 0.1
    assert float(image_scores(detector.detector.places(normal(10))).max()) == pytest.approx(0, abs=1e-2)


def test_the_bank_is_bounded_and_repeatable() -> None:
    first, second = (fit_patch_core(normal(200)).detector for _ in range(2))
    assert isinstance(first, PatchCore)
    assert isinstance(second, PatchCore)
    assert first.bank.shape == (BANK, 6)
    assert torch.equal(first.bank, second.bank)


@FITS
def test_channels_without_spread_and_few_images_give_finite_scores(fit: Fit) -> None:
    patches = normal(3)
    patches[..., 0] = 1
    detector = fit(patches)
    assert torch.isfinite(detector.calibration).all()
    assert torch.isfinite(detector.score(normal(2, seed=1)).scores).all()


@FITS
def test_one_image_is_refused(fit: Fit) -> None:
    with pytest.raises(ValueError, match="expected at least"):
        fit(normal(1))
