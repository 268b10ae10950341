"""The machine's limits: matrix products of the model's shapes, and memory bandwidth.

python -m benchmarks.roofline [--threads N] [--device cuda] [--write]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import results

# all-MiniLM-L6-v2's four matrices of one layer, (in, out): Q, K and V together; after attention; feed-forward up and
# down.
SHAPES = ((384, 1152), (384, 384), (384, 1536), (1536, 384))
ROWS = (12, 64, 512, 2048)
_TIME_S = 0.12
_BANDWIDTH_BYTES = 2**28
Work = Callable[[], object]
Way = Callable[[Tensor, Tensor, Tensor], Work]


def linear(dtype: torch.dtype) -> Way:
    """`functional.linear`: MKL or oneDNN on a CPU, cuBLAS on a GPU, as PyTorch chooses."""

    def prepare(rows: Tensor, weight: Tensor, bias: Tensor) -> Work:
        cast = (rows.to(dtype), weight.to(dtype), bias.to(dtype))
        return lambda: functional.linear(*cast)

    return prepare


def onednn(dtype: torch.dtype) -> Way:
    """oneDNN with the weights reordered beforehand, as the inductor does for frozen models."""

    def prepare(rows: Tensor, weight: Tensor, bias: Tensor) -> Work:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), len(rows))
        given, added = rows.to(dtype), bias.to(dtype)
        return lambda: torch.ops.mkldnn._linear_pointwise(given, packed, added, "none", [], "")

    return prepare


def mkl(rows: Tensor, weight: Tensor, bias: Tensor) -> Work:
    """MKL with the weights packed beforehand for so many rows, float32."""
    packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, len(rows))
    return lambda: torch.ops.mkl._mkl_linear(rows, packed, weight, bias, len(rows))


def onednn_int8(rows: Tensor, weight: Tensor, bias: Tensor) -> Work:
    """oneDNN int8: rows uint8 with one scale, weights int8 with a scale per channel."""
    quantized, scales = _int8(weight)
    packed = torch.ops.onednn.qlinear_prepack(quantized, [len(rows), rows.shape[1]])
    given = (rows * 20 + 128).clamp(0, 255).to(torch.uint8)
    zeros = torch.zeros(len(weight), dtype=torch.int32)
    linear = torch.ops.onednn.qlinear_pointwise
    return lambda: linear(given, 0.05, 128, packed, scales, zeros, bias, 1.0, 0, torch.float32, "none", [], "")


def fbgemm_int8(rows: Tensor, weight: Tensor, bias: Tensor) -> Work:
    """FBGEMM's dynamic int8: float32 in and out, rows quantized within the call."""
    quantized, scales = _int8(weight)
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    with warnings.catch_warnings(action="ignore"):  # these tensors are to go one day; until then it is a way
        packed = torch.ops.quantized.linear_prepack(
            torch._make_per_channel_quantized_tensor(quantized, scales, zeros, 0), bias
        )
    return lambda: torch.ops.quantized.linear_dynamic(rows, packed, reduce_range=True)


def int_mm(rows: Tensor, weight: Tensor, bias: Tensor) -> Work:
    """`torch._int_mm`: int8 by int8 to int32, nothing around it."""
    given, quantized = (rows * 20).clamp(-128, 127).to(torch.int8), _int8(weight)[0].t()
    return lambda: torch._int_mm(given, quantized)


CPU_WAYS: dict[str, Way] = {
    "fp32 linear": linear(torch.float32),
    "fp32 MKL packed": mkl,
    "fp32 oneDNN packed": onednn(torch.float32),
    "bf16 linear": linear(torch.bfloat16),
    "bf16 oneDNN packed": onednn(torch.bfloat16),
    "int8 oneDNN": onednn_int8,
    "int8 FBGEMM dynamic": fbgemm_int8,
    "int8 _int_mm": int_mm,
}
GPU_WAYS: dict[str, Way] = {
    "fp32 linear": linear(torch.float32),
    "bf16 linear": linear(torch.bfloat16),
    "fp16 linear": linear(torch.float16),
    "int8 _int_mm": int_mm,
}


def refusal(way: Way, device: str) -> str | None:
    """Why this machine cannot compute this way; None where it can."""
    try:
        way(*_example(12, SHAPES[0], device))()
    except (RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return None


def seconds_of(work: Work, device: str, time_s: float = _TIME_S) -> float:
    """Seconds of one call: the lower quartile of at least three; other load only adds time."""
    work()
    taken: list[float] = []
    until = time.perf_counter() + time_s
    while len(taken) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.quantiles(taken, n=4)[0]


def gflops(way: Way, rows: int, shape: tuple[int, int], device: str, time_s: float = _TIME_S) -> float:
    """10^9 operations a second of one product, an addition and a multiplication being two."""
    wide, out = shape
    return 2e-9 * rows * wide * out / seconds_of(way(*_example(rows, shape, device)), device, time_s)


def layer_gflops(way: Way, rows: int, device: str, time_s: float = _TIME_S) -> float:
    """The same over the four products of a layer together."""
    work = sum(wide * out for wide, out in SHAPES)
    return work / sum(wide * out / gflops(way, rows, (wide, out), device, time_s) for wide, out in SHAPES)


def best_rate(precision: str, device: str = "cpu", rows: int = 512, time_s: float = _TIME_S) -> tuple[float, str]:
    """The machine's GFLOP/s at the model's shapes in a precision, and the fastest way."""
    ways = {name: way for name, way in _ways(device).items() if name.startswith(precision)}
    rates = {
        name: layer_gflops(way, rows, device, time_s) for name, way in ways.items() if refusal(way, device) is None
    }
    best = max(rates, key=lambda name: rates[name])
    return rates[best], best


def bandwidth_gb_s(device: str) -> float:
    """10^9 bytes a second, read and written, of a copy larger than the caches."""
    source = torch.zeros(_BANDWIDTH_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2e-9 * _BANDWIDTH_BYTES / seconds_of(lambda: target.copy_(source), device, 0.5)


def main() -> None:
    """Print the rate of each way at each number of rows, over a layer's four products."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    results.add_flags(parser)
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    collected = results.Rounds(
        "roofline", {"device": chosen.device, "threads": torch.get_num_threads()}, append=chosen.append
    )
    collected.begin()
    with torch.inference_mode():
        for name, way in _ways(chosen.device).items():
            if (why := refusal(way, chosen.device)) is not None:
                print(f"{name}: not on this machine: {why}")
                continue
            collected.add(name, {str(rows): layer_gflops(way, rows, chosen.device) for rows in ROWS})
        collected.add("memory", {"gb_s": bandwidth_gb_s(chosen.device)})
    collected.finish(write=chosen.write)


def _ways(device: str) -> dict[str, Way]:
    return GPU_WAYS if device == "cuda" else CPU_WAYS


def _example(rows: int, shape: tuple[int, int], device: str) -> tuple[Tensor, Tensor, Tensor]:
    wide, out = shape
    return (
        torch.randn(rows, wide, device=device),
        torch.randn(out, wide, device=device) / 20,
        torch.randn(out, device=device),
    )


def _int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight.abs().amax(dim=1).float() / 127
    return (weight / scales[:, None]).round().to(torch.int8), scales


if __name__ == "__main__":
    main()
