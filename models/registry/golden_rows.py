"""Golden rows: a comparison of a model's outputs after training with its outputs now."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.errors import ArtifactError
from models.linalg import normalize
from models.registry.artifact import Manifest

Rows = NDArray[np.floating]

# Training computes in float32; a device that serves in a reduced precision may differ by this much.
_REDUCED_PRECISION = 0.03


def compare(manifest: Manifest, got: Rows, dtype: str) -> None:
    """Raise ArtifactError unless `got` matches the golden rows; embeddings as directions."""
    golden = manifest.golden
    expected = _to_matrix(golden.rows)
    if manifest.task == "embedding":
        expected = normalize(expected)
    if expected.shape != got.shape:
        raise ArtifactError(f"golden inputs: expected shape {list(expected.shape)}, got {list(got.shape)}")
    allowed = golden.tolerance if dtype == "float32" else max(golden.tolerance, _REDUCED_PRECISION)
    difference = float(np.abs(expected - got).max(initial=0.0))
    if not difference <= allowed:  # so that NaN is refused, too
        raise ArtifactError(
            f"golden inputs: differs by {difference:.3g} from what it gave when it was trained, {allowed:.3g} are "
            f"allowed"
        )


def _to_matrix(rows: Sequence[Sequence[float]]) -> Rows:
    if len({len(row) for row in rows}) > 1:
        raise ArtifactError("golden rows: expected rows of one length")
    return np.array(rows, dtype=np.float64)
