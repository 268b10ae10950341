"""Requests a second of 16 numbers through a small network: Sonde, MLServer and LitServe.

python -m benchmarks.tensors [--rounds 3] [--seconds 2] [--clients 32] [--servers sonde,constant,mlserver,litserve]

All servers run at the same time and are measured in turn, so that each has both cores of the machine beside the load
generator. MLServer and LitServe come into environments of their own the first time. MLServer is measured as it starts
by default, without its pool of workers, and with batches; LitServe without batches and with them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial

import orjson

from benchmarks.tensors.network import COLUMNS
from benchmarks.tensors.servers import MODEL, Endpoint, constant, install, litserve, mlserver, sonde
from service.bench.client import AnyTarget, Target
from service.bench.load import closed_loop, drive
from service.bench.rpc_client import RpcTarget, encode_message
from service.bench.summary import Summary
from service.bench.tensor_workload import Encode, Tensor, TensorInput, TensorRequests, encode_json, encode_raw
from service.bench.workload import NAMED, Texts

_WARM_UP_S = 0.5
_BATCH = 32
SERVERS: dict[str, list[Callable[[], AbstractContextManager[list[Endpoint]]]]] = {
    "sonde": [sonde],
    "constant": [constant],
    "mlserver": [partial(mlserver, 1), partial(mlserver, 0), partial(mlserver, 0, _BATCH)],
    "litserve": [partial(litserve, 1, 0), partial(litserve, _BATCH, 0.002)],
}


def measure(endpoint: Endpoint, clients: int, seconds: float) -> Summary:
    """Closed load on an endpoint. SystemExit where an answer is an error."""
    row = TensorInput("x", "FP32", (1, COLUMNS))
    encode, target = _ways(endpoint)
    requests = TensorRequests([row], Texts(NAMED["short"]), encode)
    whole = _WARM_UP_S + seconds
    summary = Summary.of(
        drive(closed_loop(target, requests, clients=clients, seconds=whole)),
        warmup_s=_WARM_UP_S,
        until_s=whole,
        slo_ms=100,
    )
    if summary.failed or summary.latency_ms is None:
        raise SystemExit(f"{endpoint.name}: {summary.statuses}")
    return summary


def _ways(endpoint: Endpoint) -> tuple[Encode, AnyTarget]:
    """How to write a request for an endpoint, and where it goes."""
    if endpoint.kind == "grpc":
        return partial(encode_message, MODEL), RpcTarget.of(endpoint.url, None)
    path = "/predict" if endpoint.kind == "list" else f"/v2/models/{MODEL}/infer"
    encode: Encode = {"json": encode_json, "raw": encode_raw, "list": _encode_list}[endpoint.kind]
    return encode, Target.of(endpoint.url, path, sends_embeddings=False)


def _encode_list(tensors: Sequence[Tensor]) -> tuple[bytes, bytes]:
    [(_, values, _)] = tensors
    return orjson.dumps({"input": values}, option=orjson.OPT_SERIALIZE_NUMPY), b""


def main() -> None:
    """Print a line for each way, with the medians of its rounds, and Sonde's lead over the fastest other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--servers", default=",".join(SERVERS))
    chosen = parser.parse_args()
    names = chosen.servers.split(",")
    install([name for name in names if name in {"mlserver", "litserve"}])
    with ExitStack() as stack:
        made = [make for name in names for make in SERVERS[name]]
        endpoints = [endpoint for make in made for endpoint in stack.enter_context(make())]
        rounds = [[measure(one, chosen.clients, chosen.seconds) for one in endpoints] for _ in range(chosen.rounds)]
    _print(endpoints, rounds)


def _print(endpoints: Sequence[Endpoint], rounds: Sequence[Sequence[Summary]]) -> None:
    rates = {
        endpoint.name: statistics.median(seen[at].requests_per_s for seen in rounds)
        for at, endpoint in enumerate(endpoints)
    }
    others = [rate for name, rate in rates.items() if not name.startswith(("sonde", "a constant"))]
    for at, (name, rate) in enumerate(rates.items()):
        latencies = [seen[at].latency_ms for seen in rounds]
        p50 = statistics.median(one.p50 for one in latencies if one is not None)
        generator = max(seen[at].generator_cores for seen in rounds)
        lead = f", {rate / max(others):.2f} times the fastest other" if others and name.startswith("sonde") else ""
        print(f"{name:40} {rate:7.0f} requests/s, p50 {p50:5.1f} ms, generator {generator:.2f} cores{lead}")


if __name__ == "__main__":
    main()
