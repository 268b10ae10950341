"""Defects on the magnetic tiles of Huang, Qiu and Yuan (2020), by both detectors and image-default.

python -m benchmarks.defects --tiles FOLDER [--alpha 0.05]

Four fifths of the good tiles are the reference. The others and all tiles with defects are judged, each fifth in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from examples.inspect_tiles import images_in, split_tiles
from models.images.detectors.detector import CalibratedImageDetector, Patches
from models.images.detectors.padim import fit_padim
from models.images.detectors.patch_core import fit_patch_core
from models.images.patches import PatchEncoder, PatchModel
from models.images.reader import ImageLimits
from models.loader import load_images
from models.runtime.placement import place
from models.source import locate

_BATCH, _FOLDS = 4, 5
_FITS = {"padim": fit_padim, "patchcore": fit_patch_core}


def main() -> None:
    """Print a line for each detector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, required=True)
    parser.add_argument("--alpha", type=float, default=0.05)
    chosen = parser.parse_args()
    _, _, defects = split_tiles(chosen.tiles)
    good = images_in(chosen.tiles / "MT_Free")
    model = PatchModel(cast(PatchEncoder, load_images(locate("image-default"), place("cpu", "auto"))))
    began = time.perf_counter()
    patches = _patches(model, [*good, *defects])
    encoder_ms = 1000 * (time.perf_counter() - began) / len(patches)
    print(f"{len(good)} good tiles, {len(defects)} with defects; decoding and encoder {encoder_ms:.1f} ms an image")
    for name, fit in _FITS.items():
        print(f"{name:9} {_judge(fit, patches[: len(good)], patches[len(good) :], chosen.alpha)}")


def _judge(fit: Callable[[Patches], CalibratedImageDetector], good: Patches, defects: Patches, alpha: float) -> str:
    """What a detector finds, with each fifth of the good tiles left out in turn; the first one is the protocol's."""
    aurocs, alarms, took = [], [], []
    for fold in range(_FOLDS):
        kept = np.arange(len(good)) % _FOLDS == fold
        detector = fit(good[~kept])
        began = time.perf_counter()
        scored = [detector.score(one[None]) for one in (*good[kept], *defects)]
        took.append(1000 * (time.perf_counter() - began) / len(scored))
        scores = [float(one.scores[0]) for one in scored]
        aurocs.append(roc_auc_score(np.repeat([0, 1], [kept.sum(), len(defects)]), scores))
        alarms += [float(one.p_values[0]) <= alpha for one in scored[: kept.sum()]]
    return (
        f"image AUROC {aurocs[0]:.3f}, with the other fifths {min(aurocs):.3f} to {max(aurocs):.3f}; "
        f"{sum(alarms)} false alarms among {len(alarms)} ({np.mean(alarms):.3f} at {alpha:g}); "
        f"{detector.size_bytes / 1e6:.1f} MB, {np.median(took):.1f} ms an image beside the encoder"
    )


def _patches(model: PatchModel, files: Sequence[Path]) -> NDArray[np.float32]:
    """The patches [n, places, channels] of images."""
    limits = ImageLimits()
    rows: list[Any] = []
    for at in range(0, len(files), _BATCH):
        batch = [model.images.read(path.read_bytes(), limits, path.name) for path in files[at : at + _BATCH]]
        rows.append(model.unflatten(model.forward(batch)))
    return np.concatenate(rows)


if __name__ == "__main__":
    main()
