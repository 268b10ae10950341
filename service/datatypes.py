"""The Open Inference Protocol's names of dtypes."""

from __future__ import annotations

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
    "bytes": "BYTES",
}
DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
# JSON has no numbers of these.
BINARY_ALONE = {"float16", "bfloat16"}
