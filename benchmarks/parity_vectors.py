"""Write models/text/packed/parity.json: vectors of the general path in float32.

python -m benchmarks.parity_vectors
"""

from __future__ import annotations

import json
from pathlib import Path

from models.runtime.placement import place
from models.source import DEFAULT_MODEL, locate
from models.text.encoder import Encoder
from models.text.packed.encoder import compute_probes


def main() -> None:
    """Compute and write."""
    source = locate(DEFAULT_MODEL)
    model = Encoder(source, place("cpu", "float32"))
    vectors = compute_probes(model)
    rounded = [[round(float(number), 6) for number in vector] for vector in vectors]
    Path("models/text/packed/parity.json").write_text(json.dumps({source.version: rounded}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
