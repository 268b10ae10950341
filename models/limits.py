"""How many tokens a model can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# These count positions from padding_idx + 1, so that many of their position embeddings are never used.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xlm-roberta-xl"}
_MPNETS_PADDING = 1  # whatever its configuration says
_FALLBACK = 512


def longest_input(config: Mapping[str, Any], stated: int | None) -> int:
    """The most tokens of one input, special ones included: what the model states, never more than its positions."""
    positions = int(config.get("max_position_embeddings") or 0)
    if positions:
        positions -= first_position(config)
    known = [limit for limit in (stated, positions) if limit and limit > 0]
    return min(known, default=_FALLBACK)


def first_position(config: Mapping[str, Any]) -> int:
    """The position of a text's first token. Where it is not 0, the one before it is that of padding tokens, wherever they stand."""
    kind = config.get("model_type")
    if kind not in _OFFSET_POSITIONS:
        return 0
    return 1 + (_MPNETS_PADDING if kind == "mpnet" else int(config.get("pad_token_id") or 0))
