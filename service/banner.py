"""What `sonde serve` prints for a person once it is ready."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.images.example_image import PIXEL
from models.metadata import ModelMetadata
from service.console_log import BOLD, GREEN, paint
from service.printable import printable

# Scripts read the address behind these words, up to the next space.
READY = "Sonde is ready on"
_MOST_MODELS = 8
_EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "embedding": ("/v1/embeddings", {"input": "hello"}),
    "classification": ("/v1/classify", {"input": "hello"}),
    "anomaly": ("/v1/anomaly/score", {"input": "hello"}),
    "forecast": ("/v1/forecast", {"series": [[0.0]]}),
    "rerank": ("/v2/rerank", {"query": "hello", "documents": ["good day", "good night"]}),
}
_IMAGE_EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "embedding": ("/v1/embeddings", {"modality": "image", "input": PIXEL}),
    "classification": ("/v1/classify", {"images": PIXEL}),
    "detection": ("/v1/detect", {"images": PIXEL}),
    "ocr": ("/v1/ocr", {"images": PIXEL}),
}


@dataclass(frozen=True, slots=True)
class Banner:
    """`home` is the flag of `sonde keys`, empty for the default; `keys` says whether callers need a key."""

    keys: bool
    home: str = ""
    colours: bool = False

    def text(self, url: str, models: Sequence[ModelMetadata]) -> str:
        """The address, the models, a command that works as it is printed, and how to stop."""
        ready = f"{READY} {url} (console: {url}/console, docs: {url}/docs)"
        lines = [f"  serves  {_describe_model(model)}" for model in models[:_MOST_MODELS]]
        if more := len(models[_MOST_MODELS:]):
            lines.append(f"  and {more} more: GET {url}/v1/models")
        if self.keys:
            lines.append(f"  key     export SONDE_API_KEY=… (make one: sonde keys create --scope infer{self.home})")
        lines += [f"  try     {self._command(url, models[0])}", "  stop    Ctrl-C"]
        first = paint(ready, f"{BOLD};{GREEN}") if self.colours else printable(ready)
        return "\n".join([first, *map(printable, lines)])

    def show(self, url: str, models: Sequence[ModelMetadata]) -> None:
        """Print the text at once, so that no other process writes between its lines."""
        print(self.text(url, models), flush=True)

    def _command(self, url: str, model: ModelMetadata) -> str:
        key = ' -H "authorization: Bearer $SONDE_API_KEY"' if self.keys else ""
        if model.tensors is not None:
            return f"curl {url}/v2/models/{model.name}{key}"
        reads_texts = model.image is None or model.max_tokens > 0
        path, body = (_EXAMPLES if reads_texts else _IMAGE_EXAMPLES)[model.task]
        data = shlex.quote(json.dumps({"model": model.name, **body}))
        return f"curl {url}{path}{key} -H 'content-type: application/json' -d {data}"


def _describe_model(model: ModelMetadata) -> str:
    return f"{model.name}  {model.task}  {model.device}  {model.dtype}"
