"""What the Open Inference Protocol says of a model: its metadata, and its configuration as Triton has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.programs.contract import Contract, TensorSpec
from service.api.schemas.open_inference import PRIORITY_LEVELS
from service.api.tensors.model import TensorModel
from service.datatypes import DATATYPES


def model_metadata(model: TensorModel[Any]) -> dict[str, Any]:
    """Names, datatypes and shapes of outputs and of the inputs that a request needs; -1 is a size that varies."""
    contract = model.contract

    def described(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        return [
            {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": _shape(spec, contract)}
            for spec in specs
            if not spec.optional
        ]

    return {
        "name": model.served.metadata.name,
        "versions": [model.served.metadata.version],
        "platform": model.platform,
        "inputs": described(contract.inputs),
        "outputs": described(contract.outputs),
    }


def model_config(model: TensorModel[Any]) -> dict[str, Any]:
    """The configuration that Triton's clients read. Where rows are independent, `dims` leave the batch out."""
    contract = model.contract
    most_rows = model.most_rows

    def configured(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        return [
            {
                "name": spec.name,
                "data_type": "TYPE_STRING" if spec.dtype == "bytes" else f"TYPE_{DATATYPES[spec.dtype]}",
                "dims": _shape(spec, contract)[1 if most_rows else 0 :],
                **({"optional": True} if spec.optional else {}),
            }
            for spec in specs
        ]

    config = {
        "name": model.served.metadata.name,
        "platform": model.platform,
        "backend": "sonde",
        "max_batch_size": most_rows,
        "input": configured(contract.inputs),
        "output": configured(contract.outputs),
    }
    batches = most_rows and not model.served.metadata.one_by_one
    levels = {"priority_levels": PRIORITY_LEVELS, "default_priority_level": 1}
    return config | ({"dynamic_batching": levels} if batches else {})


def _shape(spec: TensorSpec, contract: Contract) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in contract.shape_of(spec)]
