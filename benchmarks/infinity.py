"""Infinity in a virtual environment of its own, because it needs older libraries.

python -m benchmarks.infinity [DIR]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks import environment

VENV = Path(".venv-infinity")
PINS = Path(__file__).with_name("infinity.txt")
_TOLD = ("infinity-emb", "torch", "transformers", "sentence-transformers", "fastapi", "uvicorn", "numpy")


def install(directory: Path) -> None:
    """Make the environment from the pins, unless it is there."""
    environment.make(directory, PINS, holds="bin/infinity_emb")


def installed(directory: Path) -> list[str]:
    """The main versions, as `name==version`. SystemExit without the environment."""
    pip = directory / "bin" / "python"
    if not pip.exists():
        raise SystemExit(
            f"{directory} is not there: make it with 'python -m benchmarks.infinity', or leave Infinity out with "
            f"--servers"
        )
    frozen = subprocess.run([str(pip), "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    names = {line.partition("==")[0].lower().replace("_", "-"): line for line in frozen.splitlines()}
    return [names[name] for name in _TOLD if name in names]


def default_flags() -> list[str]:
    """PyTorch in bfloat16 where the hardware has it, else float32; batches of 32 texts."""
    from models.runtime.placement import place

    placement = place("auto", "auto")
    return [
        "--engine",
        "torch",
        "--device",
        placement.device.type,
        "--dtype",
        placement.dtype_name,
        "--batch-size",
        "32",
    ]


if __name__ == "__main__":
    install(Path(sys.argv[1]) if len(sys.argv) > 1 else VENV)
