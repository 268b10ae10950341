"""A model's configuration, read without the slow import of sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ModelSourceError, Unsupported
from models.filesystem import read_json

_PLAIN_POOLING = ("mean", "cls", "lasttoken")
# sentence-transformers once called the transformer's settings after its architecture.
_SETTINGS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
# Tokenizer options that change no token of a text.
_WITHOUT_EFFECT = {
    "padding", "padding_side", "pad_to_multiple_of", "return_tensors", "return_attention_mask", "return_token_type_ids",
    "return_length", "truncation", "verbose", "logits_to_keep",
}  # fmt: skip
_NO_LIMIT = 1_000_000  # a tokenizer without a limit states a huge one


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A Transformer + Pooling (+ Normalize) model: `pooling` is mean, cls or lasttoken."""

    config: dict[str, Any]
    pooling: str
    normalizes: bool
    max_tokens: int
    prompts: dict[str, str]
    default_prompt: str | None
    input_limits: dict[str, int]


def transformer_path(path: Path) -> Path:
    """The directory of the transformer's files in a model directory."""
    modules = read_json(path / "modules.json", list)
    return path / str(modules[0].get("path", "")) if modules else path


def read_settings(root: Path) -> dict[str, Any]:
    """The settings of a sentence-transformers transformer; empty without any.

    Raises ModelSourceError for settings that read a text in a way of their own.
    """
    found = (read_json(root / f"sentence_{kind}_config.json", dict) for kind in _SETTINGS)
    settings: dict[str, Any] = next(filter(None, found), {})
    unknown = sorted(set(_tokenizer_options(settings)) - _WITHOUT_EFFECT - {"max_length"})
    if unknown:
        raise _unsupported(root, "processing_kwargs that set max_length alone", ", ".join(unknown))
    if "message" in settings.get("modality_config", {}):
        raise _unsupported(root, "texts as they are", "a chat template around them (modality_config)")
    return settings


def stated_limit(settings: Mapping[str, Any], of_tokenizer: int | None) -> int | None:
    """The most tokens of an input by the settings, else by its tokenizer; None where neither says."""
    stated = _tokenizer_options(settings).get("max_length") or settings.get("max_seq_length") or of_tokenizer
    return int(stated) if stated and stated < _NO_LIMIT else None


def input_limits(settings: Mapping[str, Any]) -> dict[str, int]:
    """The most tokens of queries and of documents, where the settings say so."""
    stated = {role: settings.get(f"{role}_length") for role in ("query", "document")}
    return {role: int(limit) for role, limit in stated.items() if limit}


def _tokenizer_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options that sentence-transformers passes to the tokenizer."""
    options = settings.get("processing_kwargs") or {}
    return {**options.get("text", {}), **options.get("common", {})}


def _unsupported(root: Path, expected: str, got: str) -> ModelSourceError:
    return ModelSourceError(f"{root.name}: expected {expected}, got {got}", param="model")


def read_pipeline(path: Path) -> Pipeline:
    """Read a model directory. Raises Unsupported if it needs sentence-transformers itself."""
    kinds = [
        (str(module["type"]).rsplit(".", 1)[-1], str(module.get("path", "")))
        for module in read_json(path / "modules.json", list)
    ]
    names = [kind for kind, _ in kinds]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise Unsupported(f"its modules are {', '.join(names) or 'not stated'}")
    root = path / kinds[0][1]
    settings = read_settings(root)
    tokenizer = read_json(root / "tokenizer_config.json", dict)
    if settings.get("do_lower_case"):
        raise Unsupported("it lower-cases outside its tokenizer")
    config = read_json(root / "config.json", dict)
    about = read_json(path / "config_sentence_transformers.json", dict)
    return Pipeline(
        config=config,
        pooling=_pooling(read_json(path / kinds[1][1] / "config.json", dict)),
        normalizes=len(kinds) == 3,
        max_tokens=longest_input(config, stated_limit(settings, tokenizer.get("model_max_length"))),
        input_limits=input_limits(settings),
        prompts={name: prompt or "" for name, prompt in about.get("prompts", {}).items()},
        default_prompt=about.get("default_prompt_name"),
    )


def _pooling(config: dict[str, Any]) -> str:
    """The one pooling mode, in the old spelling (a flag each) or the new one."""
    if config.get("include_prompt", True) is False:
        raise Unsupported("its pooling leaves the prompt out")
    mode = config.get("pooling_mode")
    if mode is None:
        flags = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
        on = [name for name, value in config.items() if name.startswith("pooling_mode_") and value]
        mode = next((short for short, long in flags.items() if on == [f"pooling_mode_{long}"]), on)
    if mode not in _PLAIN_POOLING:
        raise Unsupported(f"its pooling is {mode}")
    return str(mode)


# These count positions from padding_idx + 1; the position embeddings before are never used.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xlm-roberta-xl"}
_MPNETS_PADDING = 1  # regardless of its configuration
_FALLBACK = 512


def longest_input(config: Mapping[str, Any], stated: int | None) -> int:
    """The most tokens of an input with special ones: as stated, at most the positions."""
    positions = int(config.get("max_position_embeddings") or 0)
    if positions:
        positions -= first_position(config)
    known = [limit for limit in (stated, positions) if limit and limit > 0]
    return min(known, default=_FALLBACK)


def first_position(config: Mapping[str, Any]) -> int:
    """The position of a text's first token; padding tokens have the one before, if any."""
    kind = config.get("model_type")
    if kind not in _OFFSET_POSITIONS:
        return 0
    return 1 + (_MPNETS_PADDING if kind == "mpnet" else int(config.get("pad_token_id") or 0))
