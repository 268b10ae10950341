"""A model's device and precision, each with the reason."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import torch

from models.errors import ModelError
from models.runtime.device_names import DeviceName, DtypeName
from models.runtime.fbgemm import FBGEMM, has_fbgemm
from models.runtime.product_autotune import ProductAutotune, autotune_products

_DTYPES: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32, "int8": torch.float32}


@dataclass(frozen=True, slots=True)
class Placement:
    """A device and a dtype, chosen once at load, with the reason.

    With `int8`, linear layers multiply integers and `dtype` applies to the rest. `auto_dtype` says that the dtype was
    not asked for.
    """

    device: torch.device
    dtype: torch.dtype
    reason: str
    int8: bool = False
    auto_dtype: bool = False

    @property
    def dtype_name(self) -> str:
        return "int8" if self.int8 else str(self.dtype).removeprefix("torch.")

    @property
    def reference(self) -> Placement:
        """The placement whose results this one must reproduce: without int8, and in a dtype that was asked for."""
        return replace(self, int8=False, dtype=torch.float32 if self.auto_dtype else self.dtype)

    def in_float32(self, why: str) -> Placement:
        """The same in float32, with the reason."""
        return replace(self, dtype=torch.float32, reason=f"{self.reason}; float32 since {why}", auto_dtype=False)

    def memory_bytes(self) -> int:
        """Bytes that tensors of all models hold on the device."""
        return allocated_bytes(self.device)


def allocated_bytes(device: torch.device) -> int:
    """Bytes that tensors hold on a device; 0 where it shares the process's memory."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.current_allocated_memory())
    return 0


class ChosenDevice(NamedTuple):
    """A device, and why it was chosen."""

    device: torch.device
    reason: str


def place(device: DeviceName = "auto", dtype: DtypeName = "auto") -> Placement:
    """Choose a device and a dtype, or check requested ones.

    Raises ModelError when this machine lacks the requested device or does not support int8.
    """
    return place_on(choose_device(device), dtype)


def place_on(chosen: ChosenDevice, dtype: DtypeName) -> Placement:
    """Choose a dtype for a device, or check a requested one. Raises ModelError where int8 is not supported."""
    device, why_device = chosen
    if dtype == "int8":
        _require_int8(device)
    precision, why_dtype = _choose_dtype(device, dtype)
    return Placement(device, precision, f"{why_device}; {why_dtype}", int8=dtype == "int8", auto_dtype=dtype == "auto")


def place_sensor(device: DeviceName = "auto") -> Placement:
    """Choose a device with float64 for sensor training; Apple's GPU has none."""
    chosen, why = choose_device(device)
    if chosen.type == "mps":
        return Placement(torch.device("cpu"), torch.float64, "Apple's GPU has no float64")
    return Placement(chosen, torch.float64, f"{why}; float64 as readings are")


@cache
def has_amx() -> bool:
    """Whether the processor has AMX for bfloat16."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


@cache
def has_bfloat16_products() -> bool:
    """Whether oneDNN multiplies bfloat16 on this processor; with AVX2 alone PyTorch does it many times slower."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001  # no public name


def _require_int8(device: torch.device) -> None:
    if device.type != "cpu":
        raise ModelError(
            f"int8 is for CPUs, and models compute on {device}: set the device to cpu, or another dtype", param="dtype"
        )
    if not has_fbgemm():
        raise ModelError(
            f"int8 needs {FBGEMM}, which PyTorch does not have on {platform.machine()}: set another dtype",
            param="dtype",
        )


def choose_device(asked: DeviceName) -> ChosenDevice:
    """Choose a device, or check a requested one. Raises ModelError when this machine lacks it."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked != "auto":
        if not present[asked]:
            visible = ", ".join(name for name, is_present in present.items() if is_present)
            raise ModelError(f"device {asked!r} was asked for, but PyTorch sees only: {visible}", param="device")
        return ChosenDevice(torch.device(asked), f"device {asked} as asked")
    if present["cuda"]:
        return ChosenDevice(torch.device("cuda"), "a CUDA device is present")
    if present["mps"]:
        return ChosenDevice(torch.device("mps"), "no CUDA device, Apple's GPU is present")
    return ChosenDevice(torch.device("cpu"), "no CUDA device and no Apple GPU is visible to PyTorch")


def _choose_dtype(device: torch.device, asked: DtypeName) -> tuple[torch.dtype, str]:
    if asked != "auto":
        return _DTYPES[asked], f"{asked} as asked"
    fast, where = _multiplies_bfloat16(device)
    return (torch.bfloat16, f"bfloat16 since {where}") if fast else (torch.float32, f"float32 since {where}")


def _multiplies_bfloat16(device: torch.device) -> tuple[bool, str]:
    """Whether the hardware is faster in bfloat16, with the reason."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return fast, f"the GPU {'multiplies' if fast else 'does not multiply'} it"
    if device.type == "mps":
        return False, "bfloat16 is not faster on Apple's GPU"
    tuned = autotune_products()
    return tuned.prefers_bfloat16, _describe(tuned)


def _describe(tuned: ProductAutotune) -> str:
    """Why bfloat16 is preferred, or float32."""
    gain = tuned.bfloat16_gain
    if gain == 0:
        return "PyTorch multiplies bfloat16 slowly or not at all on this processor"
    if tuned.prefers_bfloat16:
        return f"it multiplies {gain:.1f} times as fast as float32 here"
    if gain >= 1:
        return f"bfloat16 multiplies only {gain:.2f} times as fast here"
    return f"it multiplies {1 / gain:.1f} times as fast as bfloat16 here"
