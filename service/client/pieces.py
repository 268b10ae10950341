"""Readings of any number, scored in several requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.client.answers import Scores
from service.client.client import Client

# Rows and values of one request, well below a service's default limits: as JSON a value has up to 26 bytes.
_MAX_ROWS = 10_000
_MAX_VALUES = 200_000


def score_in_pieces(
    client: Client,
    model: str,
    signature: Mapping[str, Any],
    rows: Sequence[Sequence[float | None]],
    *,
    alpha: float,
    columns: Sequence[str] | None = None,
    timestamps: Sequence[str | float] | None = None,
) -> Iterator[Scores]:
    """Scores with contributions, by a model with this signature. Raises ClientError.

    A series continues from the state of the piece before.
    """
    stream = client.stream(model, alpha=alpha, contributions=True)
    width = len(signature["inputs"][0]["columns"])
    step = rows_per_request(width, int(signature.get("window") or 1))
    for at in range(0, len(rows), step):
        part = rows[at : at + step]
        if signature["kind"] == "series":
            times = None if timestamps is None else timestamps[at : at + step]
            yield stream.score(part, columns=columns, timestamps=times)
        else:
            yield client.anomaly(model=model, records=part, columns=columns, alpha=alpha, contributions=True)


def rows_per_request(columns: int, window: int) -> int:
    """Rows of one request; a series must begin with at least a window."""
    return max(min(_MAX_ROWS, _MAX_VALUES // columns), window)
