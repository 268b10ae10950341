"""The names of devices and precisions that a setting takes."""

from __future__ import annotations

from typing import Literal

DeviceName = Literal["auto", "cuda", "mps", "cpu"]
DtypeName = Literal["auto", "bfloat16", "float32", "int8"]
