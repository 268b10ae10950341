"""`sonde bench`: from parsed flags to a run and its reports."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from service.bench import arrivals
from service.bench.client import AnyTarget, Target, probe
from service.bench.flags import changed
from service.bench.generator_ceiling import ceiling, trivial_server
from service.bench.load import Run, closed_loop, drive, open_loop
from service.bench.report import as_json, page, record, table, warnings, write
from service.bench.summary import Summary
from service.bench.tensor_workload import Encode, TensorRequests, encode_json, encode_raw, inputs_of
from service.bench.workload import NAMED, Lengths, PreparedRequest, Requests, Texts, between, parse_mix
from service.errors import ConfigError, TargetError

# The flags that --ceiling supports. Its server answers all requests with the same number of embeddings.
_CEILING_FLAGS = {"ceiling", "clients", "seconds", "model", "lengths", "words", "batch", "repeat_share", "seed"}
# Flags that only one kind of protocol has.
_TENSOR_FLAGS, _TEXT_FLAGS = {"shape", "tensors"}, {"path", "mix", "bulk", "encoding_format"}
# The title names a longer share of the run without a request at the end of a recorded load.
_MAX_QUIET = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """One run with its title and its summary."""

    title: str
    summary: Summary
    run: Run


def bench(parsed: argparse.Namespace) -> int:
    """Measure and report; 0 if any answer is good, else 1. Raises ConfigError, TargetError."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    if parsed.ceiling:
        print(_ceiling(parsed, _requests(parsed)))
        return 0
    measured = drive(_measure(parsed))
    print("\n".join([table(measured.title, measured.summary), *warnings(measured.summary)]))
    recorded = record(_settings(parsed), started, measured.summary, measured.run)
    if parsed.json:
        write(parsed.json, as_json(recorded), "--json")
    if parsed.html:
        write(parsed.html, page(measured.title, recorded, measured.run).encode(), "--html")
    return 0 if measured.summary.requests_per_s else 1


async def _measure(parsed: argparse.Namespace) -> Measured:
    target, requests, about = await _opened(parsed)
    times = _arrivals(parsed)
    await probe(target, next(requests), parsed.timeout_s)
    whole = parsed.warmup_s + parsed.seconds
    if times is None:
        clients = parsed.clients or 32
        load = f"closed loop, {clients} clients"
        done = await closed_loop(target, requests, clients=clients, seconds=whole, timeout_s=parsed.timeout_s)
    else:
        load = _open_load(parsed, times, whole)
        done = await open_loop(target, requests, times, connections=parsed.connections, timeout_s=parsed.timeout_s)
    summary = Summary.of(done, warmup_s=parsed.warmup_s, until_s=whole, slo_ms=parsed.slo_ms)
    return Measured(f"{target.url}: {load}, {about}", summary, done)


async def _opened(parsed: argparse.Namespace) -> tuple[AnyTarget, Iterator[PreparedRequest], str]:
    """The target, its requests, and what they are. Raises ConfigError, TargetError."""
    if parsed.protocol == "openai":
        _refuse(parsed, _TENSOR_FLAGS, "--protocol v2")
        return Target.of(parsed.url, parsed.path, parsed.key), _requests(parsed), _describe_texts(parsed)
    _refuse(parsed, _TEXT_FLAGS, "--protocol openai")
    target, metadata, encode = await (_opened_rpc if parsed.protocol == "v2-grpc" else _opened_http)(parsed)
    inputs = inputs_of(metadata, parsed.batch, dict(parsed.shape or ()))
    made = TensorRequests(inputs, Texts(_lengths(parsed), parsed.seed, parsed.repeat_share), encode, seed=parsed.seed)
    shown = ", ".join(f"{one.name} {one.datatype} {list(one.shape)}" for one in inputs)
    return target, made, f"{parsed.protocol}, {parsed.tensors} values: {shown}"


async def _opened_http(parsed: argparse.Namespace) -> tuple[AnyTarget, Mapping[str, Any], Encode]:
    model = f"/v2/models/{quote(parsed.model)}"
    target = Target.of(parsed.url, f"{model}/infer", parsed.key, sends_embeddings=False)
    headers = {"authorization": f"Bearer {parsed.key}"} if parsed.key else {}
    url = parsed.url.rstrip("/") + model
    try:
        async with httpx.AsyncClient(headers=headers, timeout=parsed.timeout_s) as client:
            answer = await client.get(url)
    except httpx.HTTPError as error:
        raise TargetError(f"{url} did not answer: {error}; is the server up, is --url right?") from error
    if answer.status_code != 200:
        raise TargetError(f"{url} answered with {answer.status_code}, expected 200: {answer.text[:300]}")
    return target, answer.json(), encode_json if parsed.tensors == "json" else encode_raw


async def _opened_rpc(parsed: argparse.Namespace) -> tuple[AnyTarget, Mapping[str, Any], Encode]:
    from service.bench.rpc_client import RpcTarget, encode_message  # gRPC is an extra

    if parsed.tensors == "json":
        raise ConfigError("--tensors: gRPC has no JSON: expected raw")
    target = RpcTarget.of(parsed.url, parsed.key)
    return target, await target.model_metadata(parsed.model), partial(encode_message, parsed.model)


def _refuse(parsed: argparse.Namespace, flags: Collection[str], other: str) -> None:
    """Raise ConfigError for a flag that only another protocol has."""
    given = [f"--{name.replace('_', '-')}" for name in changed(parsed) if name in flags]
    if given:
        raise ConfigError(f"--protocol {parsed.protocol} has no {', '.join(given)}: leave it out, or use {other}")


def _open_load(parsed: argparse.Namespace, times: list[float], whole: float) -> str:
    if not parsed.arrivals:
        return f"open loop, {parsed.rate:g} requests/s at random"
    quiet = whole - times[-1]
    ends = f", none in the last {quiet:.1f} s" if quiet > _MAX_QUIET * whole else ""
    return f"open loop, {len(times) / whole:.1f} requests/s recorded{ends}"


def _arrivals(parsed: argparse.Namespace) -> list[float] | None:
    """Arrival times, warm-up included; None for a closed loop. Raises ConfigError."""
    whole = parsed.warmup_s + parsed.seconds
    if parsed.clients and (parsed.rate or parsed.arrivals):
        raise ConfigError("--clients is closed load, --rate and --arrivals are open: expected one kind, got both")
    if parsed.arrivals:
        times = list(arrivals.scaled(arrivals.recorded(parsed.arrivals), parsed.rate, whole))
    elif parsed.rate:
        times = list(arrivals.poisson(parsed.rate, whole, parsed.seed))
    else:
        return None
    if not any(at >= parsed.warmup_s for at in times):
        raise ConfigError(f"no request is due between {parsed.warmup_s:g} and {whole:g} s: raise --rate or --seconds")
    return times


def _ceiling(parsed: argparse.Namespace, requests: Requests) -> str:
    ignored = [f"--{name.replace('_', '-')}" for name in changed(parsed) if name not in _CEILING_FLAGS]
    if ignored:
        raise ConfigError(
            f"--ceiling is closed load on a server of its own, with a table alone: leave out {', '.join(ignored)}"
        )
    with trivial_server(parsed.batch) as url:
        summary = drive(ceiling(url, requests, clients=parsed.clients or 32, seconds=parsed.seconds))
    return table(
        f"a server that does nothing: closed loop, {parsed.clients or 32} clients, {_describe_texts(parsed)}", summary
    )


def _requests(parsed: argparse.Namespace) -> Requests:
    texts = Texts(_lengths(parsed), parsed.seed, parsed.repeat_share)
    mix = parse_mix(parsed.mix, parsed.batch, parsed.bulk)
    return Requests(parsed.model, texts, mix, seed=parsed.seed, encoding_format=parsed.encoding_format)


def _lengths(parsed: argparse.Namespace) -> Lengths:
    if parsed.words is None:
        return NAMED[parsed.lengths or "intents"]
    low, _, high = parsed.words.partition("-")
    try:
        lowest, highest = int(low), int(high or low)
    except ValueError as error:
        raise ConfigError(f"--words: expected a number or two as in 5-250, got {parsed.words!r}") from error
    if not 1 <= lowest <= highest:
        raise ConfigError(f"--words: expected one word or more, the smaller number first, got {parsed.words!r}")
    return between(lowest, highest)


def _describe_texts(parsed: argparse.Namespace) -> str:
    carried = parsed.mix or f"{parsed.batch} a request"
    return f"texts of {_lengths(parsed).name}, {carried}"


def _settings(parsed: argparse.Namespace) -> dict[str, Any]:
    """The flags of the run, without the key."""
    left_out = {"run", "flags", "key"}
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(parsed).items()
        if name not in left_out
    }
