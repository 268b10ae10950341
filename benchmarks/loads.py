"""The loads that are compared, and what one token costs."""

from __future__ import annotations

from dataclasses import dataclass

# Operations of all-MiniLM-L6-v2's matrix products for one token, attention's own left out: two for each weight of six
# layers.
GEMM_FLOP = 2 * 6 * (384 * 1152 + 384 * 384 + 2 * 384 * 1536)


@dataclass(frozen=True, slots=True)
class Row:
    """A load: the lengths of its texts, texts per request, clients, and the figure to compare."""

    about: str
    lengths: str
    batch: int
    clients: int
    figure: str = "inputs_per_s"


ROWS = {
    "short-1": Row("12 tokens, 1 a request, 32 clients, texts/s", "short", 1, 32),
    "short-32": Row("12 tokens, 32 a request, 4 clients, texts/s", "short", 32, 4),
    "long-1": Row("120 tokens, 1 a request, 32 clients, texts/s", "long", 1, 32),
    "long-32": Row("120 tokens, 32 a request, 4 clients, texts/s", "long", 32, 4),
    "mixed-32": Row("5 to 250 tokens, 32 a request, 4 clients, texts/s", "mixed", 32, 4),
    "idle": Row("12 tokens, one at a time, p50 ms", "short", 1, 1, "p50_ms"),
}
# Loads on which the default is compared with flags set by hand.
FLAG_ROWS = {
    **{name: ROWS[name] for name in ("short-1", "short-32", "long-1")},
    "long-8": Row("120 tokens, 8 a request, 4 clients, texts/s", "long", 8, 4),
}
ALWAYS = {"ready_s": "start to ready, s", "peak_mb": "peak memory, MB"}
