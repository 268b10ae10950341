"""Defects on the magnetic tiles of Huang, Qiu and Yuan (2020), by both detectors and image-default.

python -m benchmarks.defects --tiles FOLDER [--alpha 0.05]

Good tiles but every fifth are the reference. The others and all tiles with defects are judged.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from examples.inspect_tiles import split_tiles
from models.images.detectors.padim import fit_padim
from models.images.detectors.patch_core import fit_patch_core
from models.images.patches import PatchEncoder, PatchModel
from models.images.reader import ImageLimits
from models.loader import load_images
from models.runtime.placement import place
from models.source import locate

_BATCH = 4
_FITS = {"padim": fit_padim, "patchcore": fit_patch_core}


def main() -> None:
    """Print a line for each detector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, required=True)
    parser.add_argument("--alpha", type=float, default=0.05)
    chosen = parser.parse_args()
    good, kept, defects = split_tiles(chosen.tiles)
    model = PatchModel(cast(PatchEncoder, load_images(locate("image-default"), place("cpu", "auto"))))
    began = time.perf_counter()
    patches = _patches(model, [*good, *kept, *defects])
    encoder_ms = 1000 * (time.perf_counter() - began) / len(patches)
    reference, judged = patches[: len(good)], patches[len(good) :]
    truth = np.repeat([0, 1], [len(kept), len(defects)])
    print(f"{len(good)} good tiles as reference; {len(kept)} good and {len(defects)} with defects to judge")
    for name, fit in _FITS.items():
        detector = fit(reference)
        began = time.perf_counter()
        scored = [detector.score(one[None]) for one in judged]
        ms = 1000 * (time.perf_counter() - began) / len(judged)
        scores = np.array([float(one.scores[0]) for one in scored])
        alarms = np.mean([float(one.p_values[0]) <= chosen.alpha for one in scored[: len(kept)]])
        print(
            f"{name:9} image AUROC {roc_auc_score(truth, scores):.3f}, false alarms {alarms:.3f} at {chosen.alpha:g}, "
            f"{detector.size_bytes / 1e6:.1f} MB, {ms:.1f} ms an image beside {encoder_ms:.1f} of decoding and encoder"
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
