"""How many tokens a model can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# These count positions from padding_idx + 1, so that many of their position embeddings are never used.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xlm-roberta-xl"}
_FALLBACK = 512


def longest_input(config: Mapping[str, Any], stated: int | None) -> int:
    """The most tokens of one input, special ones included: what the model states, never more than its positions."""
    positions = int(config.get("max_position_embeddings") or 0)
    if config.get("model_type") in _OFFSET_POSITIONS and positions:
        positions -= int(config.get("pad_token_id") or 0) + 1
    known = [limit for limit in (stated, positions) if limit and limit > 0]
    return min(known, default=_FALLBACK)
