"""Whether a model's files hold all of its weights: transformers draws those that are missing at random."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from models.errors import ModelSourceError
from models.source import ModelSource

_MOST_NAMED = 5
# Transformers builds this layer into encoders of which many were saved without it. Pooling does not read it.
_UNREAD = "pooler."


def require_encoder_weights(network: Any, path: Path, source: ModelSource) -> None:
    """Raise ModelSourceError unless the files in `path` hold the weights of a loaded encoder.

    Where a weight has another name than in the network, transformers looks all up again, on the meta device, which
    reads none: sentence-transformers does not say which ones were missing. That takes half as long as to load a small
    network.
    """
    with source.loading("a transformer"):
        if network.state_dict().keys() <= _stored_names(path / "model.safetensors"):
            return
        _, found = type(network).from_pretrained(
            path,
            config=network.config,
            device_map="meta",
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    require_weights((key for key in found["missing_keys"] if not key.startswith(_UNREAD)), source.name)


def _stored_names(weights: Path) -> set[str]:
    """Names of the weights in a file; empty where there is none, as with weights in several files."""
    if not weights.is_file():
        return set()
    with safe_open(weights, framework="pt") as stored:
        return set(stored.keys())


def require_weights(missing: Iterable[str], name: str) -> None:
    """Raise ModelSourceError that names missing weights, if there are any."""
    keys = sorted(missing)
    if keys:
        more = f" and {len(keys) - _MOST_NAMED} more" if len(keys) > _MOST_NAMED else ""
        raise ModelSourceError(
            f"{name}: expected all weights in its .safetensors files, {', '.join(keys[:_MOST_NAMED])}{more} are "
            "missing; copy or convert the model again",
            param="model",
        )
