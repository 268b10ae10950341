"""An example of each body, as the OpenAPI document and its page show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from models.images.example_image import PIXEL
from models.metadata import ModelMetadata

# Names that stand for an encoder, a trained model and a forecaster, until such a model is in service.
_ENCODER, _TRAINED, _FORECASTER = "all-MiniLM-L6-v2", "ft:all-MiniLM-L6-v2:local:intents", "ft:sensors:local:load"
_TEXTS = ["Where is my card?", "I want my money back."]
_EMBED = {"model": _ENCODER, "input": _TEXTS}
_COHERE_EMBED = {"model": _ENCODER, "texts": _TEXTS, "input_type": "search_document", "embedding_types": ["float"]}
_RANK = {"model": _ENCODER, "query": "my card is gone", "documents": _TEXTS, "top_n": 1}

EXAMPLES: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/v1/embeddings"): _EMBED,
    ("post", "/openai/v1/embeddings"): _EMBED,
    ("post", "/openai/deployments/{deployment}/embeddings"): {"input": _TEXTS},
    ("post", "/v1/classify"): {"model": _ENCODER, "input": _TEXTS, "labels": ["card", "refund"]},
    ("post", "/v1/anomaly/score"): {"model": _ENCODER, "input": "hello", "reference": _TEXTS},
    ("post", "/v1/forecast"): {"model": _FORECASTER, "series": [[1.0], [2.0], [3.0]], "horizon": 2},
    ("post", "/v1/detect"): {"images": [PIXEL], "threshold": 0.3},
    ("post", "/v1/ocr"): {"images": [PIXEL], "lines": False},
    ("post", "/v1/preprocess"): {"images": [PIXEL]},
    ("post", "/v1/rerank"): _RANK,
    ("post", "/v2/rerank"): _RANK,
    ("post", "/v1/tokenize"): {"model": _ENCODER, "input": _TEXTS},
    ("post", "/v1/detokenize"): {"model": _ENCODER, "tokens": [2026, 4003]},
    ("post", "/embed"): {"inputs": _TEXTS},
    ("post", "/models/{model}/pipeline/feature-extraction"): {"inputs": _TEXTS},
    ("post", "/predict"): {"inputs": _TEXTS[0]},
    ("post", "/rerank"): {"query": "my card is gone", "texts": _TEXTS},
    ("post", "/similarity"): {"inputs": {"source_sentence": "my card is gone", "sentences": _TEXTS}},
    ("post", "/tokenize"): {"inputs": _TEXTS},
    ("post", "/decode"): {"ids": [2026, 4003]},
    ("post", "/v1/embed"): _COHERE_EMBED,
    ("post", "/v2/embed"): _COHERE_EMBED,
    ("post", "/api/embed"): _EMBED,
    ("post", "/api/embeddings"): {"model": _ENCODER, "prompt": _TEXTS[0]},
    ("post", "/api/show"): {"model": _ENCODER},
    ("put", "/v1/models/{model}/owner"): {"owner": "key-0123456789ab"},
    ("put", "/v1/models/{model}/held_out"): {"file": "file-0123456789abcdef01234567"},
    ("post", "/v1/models/{model}/promote"): {"version": 2, "why": "better on our tickets"},
    ("post", "/v1/models/{model}/rollback"): {"why": "worse on our tickets"},
    ("post", "/v1/models/{model}/withdraw"): {"why": "not needed any more"},
    ("put", "/v1/aliases/{alias}"): {"target": _TRAINED},
    ("post", "/v1/feedback"): {"model": _TRAINED, "text": _TEXTS[0], "label": "refund", "correct_label": "card"},
    ("post", "/v1/files/{file_id}/check"): {"task": "classification"},
    ("post", "/v1/fine_tuning/jobs"): {
        "model": _ENCODER,
        "training_file": "file-0123456789abcdef01234567",
        "suffix": "intents",
        "method": {"type": "supervised", "supervised": {"task": "classification"}},
    },
}
PARAMETERS = {
    "model": _TRAINED,
    "deployment": _ENCODER,
    "alias": "support",
    "key": "key-0123456789ab",
    "file_id": "file-0123456789abcdef01234567",
    "fine_tuning_job_id": "ftjob-0123456789abcdef01234567",
    "plot": "training.svg",
}


def names_in_service(models: Iterable[ModelMetadata]) -> dict[str, str]:
    """For each name that stands for a model in the examples, one in service of its kind, where there is one."""
    found: dict[str, str] = {}
    for model in models:
        kind = {"embedding": _ENCODER, "forecast": _FORECASTER}.get(model.task)
        if model.name.startswith("ft:") and model.task == "classification":
            kind = _TRAINED
        if kind is not None:
            found.setdefault(kind, model.name)
    return found


def rename(example: Any, names: Mapping[str, str]) -> Any:
    """An example with other names of models."""
    if isinstance(example, dict):
        return {key: rename(value, names) for key, value in example.items()}
    return names.get(example, example) if isinstance(example, str) else example
