"""The first request: is there a server of the kind that is to be measured?"""

from __future__ import annotations

import orjson

from service.bench.client import Connection, Target
from service.bench.requests import Request
from service.errors import TargetError

_SHOWN = 300


async def probe(target: Target, request: Request, timeout_s: float) -> None:
    """Send one request and look at its answer. Raises TargetError unless it is 200 with one embedding for each text."""
    connection = Connection(target, keep_bodies=True)
    answer = await connection.post(request.body, timeout_s)
    connection.close()
    shown = answer.body[:_SHOWN].decode(errors="replace")
    if not answer.status.isdigit():
        raise TargetError(f"{target.url} did not answer a first request: {answer.status}; is the server up, are --url and --path right?")
    if answer.status != "200":
        raise TargetError(f"{target.url} answered a first request with {answer.status}, expected 200: {shown}")
    found = embeddings(answer.body)
    if found != request.inputs:
        raise TargetError(f"{target.url} sent {found} embeddings for {request.inputs} texts, as {shown!r}")


def embeddings(body: bytes) -> int:
    """How many embeddings an OpenAI answer holds; 0 where it is none."""
    try:
        data = orjson.loads(body)["data"]
        return sum(bool(row["embedding"]) for row in data)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 0
