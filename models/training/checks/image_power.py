"""Outcome check of an image detector's power: which defect would it see?"""

from __future__ import annotations

from collections.abc import Mapping

from models.training.checks.wording import warn_if
from models.training.images.defects import FOUND, KINDS, Defect, DefectKind
from models.training.report import Finding

_NAMES: dict[DefectKind, str] = {"spot": "a darker or brighter spot", "scratch": "a scratch"}


def check_image_power(shares: Mapping[Defect, float], alpha: float, side: int) -> Finding:
    """Say which size of each defect is found, by the share of copies that are; `side` is that of images, in pixels."""
    if not shares:
        message = f"Too few good images calibrate for any alarm at alpha {alpha}, so no defect is found."
        return Finding.of("outcome", "power", "skipped", None, FOUND, message)
    smallest = smallest_found(shares)
    seen = [f"{_NAMES[kind]} of {size:.0%} of the image's side" for kind, size in smallest.items() if size is not None]
    blind = [_NAMES[kind] for kind, size in smallest.items() if size is None]
    message = f"Found {FOUND:.0%} of the time at alpha {alpha}: {'; '.join(seen) or 'nothing'}."
    if blind:
        most = max(defect.size for defect in shares)
        message += f" Not found up to {most:.0%} of the side: {'; '.join(blind)}."
    message += f" Defects were drawn into held-out images of {side} pixels, as the encoder reads them."
    remedy = "Take sharper pictures from nearer by, cut them into parts, or add good images from the same camera."
    return Finding.of("outcome", "power", warn_if(blind), len(seen) / len(smallest), 1.0, message, remedy)


def power_metrics(shares: Mapping[Defect, float]) -> dict[str, float]:
    """The share of kinds that are found, and the smallest size of each; nothing where nothing was measured."""
    smallest = smallest_found(shares)
    seen = {f"smallest_{kind}": size for kind, size in smallest.items() if size is not None}
    return {"power": len(seen) / len(smallest), **seen} if shares else {}


def smallest_found(shares: Mapping[Defect, float]) -> dict[DefectKind, float | None]:
    """The size of each kind from which on all sizes are found; None where the largest is not."""
    found: dict[DefectKind, float | None] = {}
    for kind in KINDS:
        found[kind] = None
        for defect in sorted((one for one in shares if one.kind == kind), key=lambda one: -one.size):
            if shares[defect] < FOUND:
                break
            found[kind] = defect.size
    return found
