"""Find defects in photographs of parts, by photographs of good ones or by a detector that was trained on them.

The figures of docs/guides/images.md come from the magnetic tiles of Huang, Qiu and Yuan (2020), by `--tiles`.

sonde up --model image-default                                      # in one terminal
python -m examples.inspect_tiles --good good --judge new --maps maps  # in another; folders of images
python -m examples.inspect_tiles --model ft:image-default:local:tiles --judge new  # by a trained detector
"""

from __future__ import annotations

import argparse
import os
from base64 import b64decode
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# Images of a request: the reference goes along with each, and a body has a limit.
_AT_ONCE = 50
_TIMEOUT_S = 300.0
Answer = dict[str, Any]


def judge(
    url: str, good: list[Path], images: list[Path], *, model: str, detector: str, alpha: float, maps: bool
) -> list[Answer]:
    """The answer for each image, in order; without good images, by a trained detector."""
    fields = {"model": model, "alpha": str(alpha), "maps": str(maps).lower()}
    if good:
        fields["detector"] = detector
    found: list[Answer] = []
    with httpx.Client(base_url=url, timeout=_TIMEOUT_S) as client:
        for start in range(0, len(images), _AT_ONCE):
            part = images[start : start + _AT_ONCE]
            files = [*_files("reference", good), *_files("images", part)]
            response = client.post("/v1/anomaly/score", data=fields, files=files)
            if response.is_error:
                raise SystemExit(response.json()["error"]["message"])
            found += [{"path": path, **one} for path, one in zip(part, response.json()["data"], strict=True)]
    return found


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, in the order of their names. Exits where there are none."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise SystemExit(f"{folder}: expected a folder with images ({' '.join(sorted(_SUFFIXES))}), found none")
    return found


def split_tiles(data: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Good tiles as reference, good tiles to judge (every fifth), and all tiles with defects."""
    good = images_in(data / "MT_Free")
    kinds = sorted(path for path in data.iterdir() if path.is_dir() and path.name != "MT_Free")
    defects = [path for kind in kinds for path in images_in(kind) if path.suffix == ".jpg"]
    return [path for at, path in enumerate(good) if at % 5], good[::5], defects


def save_maps(answers: Iterable[Answer], folder: Path) -> None:
    """Write the map of each image that was judged."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in answers:
        content = one["anomaly_map"].partition(",")[2]
        (folder / f"{one['path'].stem}.map.png").write_bytes(b64decode(content))


def _files(field: str, paths: list[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    return [(field, (path.name, path.read_bytes())) for path in paths]


def _scores(answers: list[Answer]) -> NDArray[np.float64]:
    return np.array([one["score"] for one in answers])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=os.environ.get("SONDE_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--model", default="image-default")
    parser.add_argument("--detector", choices=["padim", "patchcore"], default="padim")
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--good", type=Path, help="folder of good images; leave it out for a trained model")
    parser.add_argument("--judge", type=Path, help="folder of images to judge")
    parser.add_argument("--maps", type=Path, help="folder for the maps")
    parser.add_argument("--tiles", type=Path, help="the magnetic tiles, instead of --good and --judge")
    chosen = parser.parse_args()
    if chosen.tiles is not None:
        good, kept, defects = split_tiles(chosen.tiles)
    elif chosen.judge is not None:
        good, kept, defects = [] if chosen.good is None else images_in(chosen.good), [], images_in(chosen.judge)
    else:
        parser.error("give --judge, or --tiles")
    try:
        answers = judge(
            chosen.url,
            good,
            [*kept, *defects],
            model=chosen.model,
            detector=chosen.detector,
            alpha=chosen.alpha,
            maps=chosen.maps is not None,
        )
    except httpx.ConnectError:
        raise SystemExit(f"nothing answers at {chosen.url}: start 'sonde up --model image-default'") from None
    for one in answers:
        verdict = "anomaly" if one["is_anomaly"] else "normal"
        print(f"{verdict:8} p = {one['p_value']:.3f}  score {one['score']:8.2f}  {one['path'].name}")
    if kept:
        truth = np.repeat([0, 1], [len(kept), len(defects)])
        false_alarms = np.mean([one["is_anomaly"] for one in answers[: len(kept)]])
        auroc = roc_auc_score(truth, _scores(answers))
        print(f"image AUROC {auroc:.3f}, false alarms {false_alarms:.3f} at alpha {chosen.alpha:g}")
    if chosen.maps is not None:
        save_maps(answers, chosen.maps)


if __name__ == "__main__":
    main()
