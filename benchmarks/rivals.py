"""ONNX Runtime and OpenVINO as rivals of the forward pass, in a virtual environment of their own.

python -m benchmarks.rivals [DIR] makes the environment over the one that runs it. Then
`.venv-rivals/bin/python -m benchmarks.forward --backends packed-float32,onnxruntime-float32` measures them in turn.
Each batch is padded to its longest text, as these libraries serve it.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import environment
from models.loader import load
from models.runtime.placement import place
from models.source import locate
from models.text.tokenization import Tokens

VENV = Path(".venv-rivals")
PINS = Path(__file__).with_name("rivals.txt")
NAMES = ("onnxruntime-float32", "onnxruntime-int8", "openvino-float32", "openvino-bfloat16")
_BATCH_TEXTS = 32
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_OPSET = 17
# Token ids, mask and types int64 [texts, longest] → token vectors float32 [texts, longest, d].
Run = Callable[[dict[str, NDArray[np.int64]]], NDArray[np.float32]]


def install(directory: Path) -> None:
    """Make the environment over this one from the pins, unless it is there."""
    environment.make(directory, PINS, holds="lib/python*/site-packages/openvino", over_this=True)


def rival(name: str, model: str) -> Callable[[list[str]], NDArray[np.float32]]:
    """Texts to mean vectors float32 [n, d] by one of NAMES. SystemExit where its library is missing."""
    library, _, dtype = name.partition("-")
    tokenizer = load(locate(model), place("cpu", "float32")).text
    with tempfile.TemporaryDirectory() as directory:
        exported = Path(directory) / "model.onnx"
        _export(locate(model).path, exported)
        run = {"onnxruntime": _onnxruntime, "openvino": _openvino}[library](exported, dtype)

    def encode(texts: list[str]) -> NDArray[np.float32]:
        items = tokenizer.encode(texts)
        parts = [items[start : start + _BATCH_TEXTS] for start in range(0, len(items), _BATCH_TEXTS)]
        return np.concatenate([_mean(run, part) for part in parts])

    return encode


def _mean(run: Run, batch: list[Tokens]) -> NDArray[np.float32]:
    lengths = np.array([item.count for item in batch])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    ids = np.zeros_like(mask)
    ids[mask == 1] = np.concatenate([item.ids for item in batch])
    rows = run({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)})
    means: NDArray[np.float32] = np.einsum("tld,tl->td", rows, mask.astype(np.float32)) / lengths[:, None]
    return means


def _export(path: Path, file: Path) -> None:
    from transformers import AutoModel

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(path, attn_implementation="eager").eval()

        def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
            # Given with four dimensions, the mask is taken as it is; transformers' own would not export.
            added = (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
            rows: Tensor = self.model(input_ids=ids, attention_mask=added, token_type_ids=types).last_hidden_state
            return rows

    example = torch.ones(2, 8, dtype=torch.int64)
    axes = {name: {0: "texts", 1: "longest"} for name in (*_INPUTS, "rows")}
    with warnings.catch_warnings(action="ignore"), torch.no_grad():  # the exporter that needs no further packages
        torch.onnx.export(
            Rows(),
            (example, example, example),
            str(file),
            input_names=list(_INPUTS),
            output_names=["rows"],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )


def _onnxruntime(file: Path, dtype: str) -> Run:
    library = _library("onnxruntime")
    if dtype == "int8":
        quantization = _library("onnxruntime.quantization")
        quantized = file.with_name("int8.onnx")
        quantization.quantize_dynamic(str(file), str(quantized), weight_type=quantization.QuantType.QInt8)
        file = quantized
    options = library.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = library.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]


def _openvino(file: Path, dtype: str) -> Run:
    precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = _library("openvino").Core().compile_model(str(file), "CPU", settings)
    return lambda inputs: compiled(inputs)[0]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SystemExit(f"{name} is missing: make {VENV} with 'python -m benchmarks.rivals' and run there") from error


if __name__ == "__main__":
    install(Path(sys.argv[1]) if len(sys.argv) > 1 else VENV)
