"""`sonde bench`: flags to a run and its reports."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.bench import arrivals
from service.bench.ceiling import ceiling, trivial_server
from service.bench.client import Target
from service.bench.lengths import NAMED, Lengths, between
from service.bench.loops import Run, closed_loop, drive, open_loop
from service.bench.measure import Summary
from service.bench.page import page
from service.bench.probe import probe
from service.bench.record import as_json, record, write
from service.bench.requests import Requests, parse_mix
from service.bench.table import table
from service.bench.texts import Texts
from service.errors import ConfigError

_EPILOG = """examples:
  sonde bench                                        32 clients, one text each, for 10 s against http://127.0.0.1:8000
  sonde bench --rate 200 --slo-ms 50                 200 requests a second at random times, whatever is answered
  sonde bench --arrivals trace.csv --rate 50         recorded arrivals, scaled to 50 a second
  sonde bench --long --batch 32 --clients 4          bulk
  sonde bench --mix single:0.9,bulk:0.1 --rate 100   both
  sonde bench --url http://127.0.0.1:7997 --path /embeddings --model NAME --html report.html
"""


def add_flags(command: argparse.ArgumentParser) -> None:
    """All flags of `sonde bench`."""
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = _EPILOG
    target = command.add_argument_group("where")
    target.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default %(default)s)")
    target.add_argument("--path", default="/v1/embeddings", help="its route for embeddings (default %(default)s)")
    target.add_argument("--model", default="all-MiniLM-L6-v2", help="the model's name there (default %(default)s)")
    target.add_argument("--key", help="an API key, sent as a bearer token")
    load = command.add_argument_group("how much")
    load.add_argument("--clients", type=_count, help="closed loop: so many clients, each waiting for its answer (default 32)")
    load.add_argument("--rate", type=_positive, help="open loop: requests a second, at random (Poisson) times")
    load.add_argument("--arrivals", type=Path, metavar="FILE", help="open loop: times from a CSV's first column; --rate scales them")
    load.add_argument("--seconds", type=_positive, default=10.0, help="how long to measure (default %(default)g)")
    load.add_argument("--warmup-s", type=_from_zero, default=2.0, help="the same load before, not counted (default %(default)g)")
    load.add_argument("--connections", type=_count, default=256, help="open loop: most connections at once (default %(default)s)")
    load.add_argument("--timeout-s", type=_positive, default=60.0, help="a request that takes longer has failed (default %(default)g)")
    load.add_argument("--slo-ms", type=_positive, default=100.0, help="goodput counts answers within it (default %(default)g)")
    _add_text_flags(command.add_argument_group("what"))
    shown = command.add_argument_group("reports beside the table")
    shown.add_argument("--json", type=Path, metavar="FILE", help="everything measured")
    shown.add_argument("--html", type=Path, metavar="FILE", help="a page with plots")
    shown.add_argument("--ceiling", action="store_true", help="measure the generator itself, against a server that does nothing")


def _add_text_flags(what: Any) -> None:
    length = what.add_mutually_exclusive_group()
    length.add_argument("--lengths", choices=list(NAMED), help="how long texts are (default intents: as what is asked of chatbots)")
    length.add_argument("--short", dest="lengths", action="store_const", const="short", help="12 tokens each")
    length.add_argument("--long", dest="lengths", action="store_const", const="long", help="120 tokens each")
    length.add_argument("--words", metavar="N[-M]", help="so many words each, of one token of BERT's English ones")
    what.add_argument("--batch", type=_count, default=1, help="texts in a request (default %(default)s)")
    what.add_argument("--mix", help="parts by share of the requests, such as single:0.9,bulk:0.1 or 1:0.5,8:0.5")
    what.add_argument("--bulk", type=_count, default=32, help="texts in a bulk request of --mix (default %(default)s)")
    what.add_argument("--repeat-share", type=_share, default=0.0, help="share of texts that were sent before (default %(default)g)")
    what.add_argument("--encoding-format", choices=("float", "base64"), help="sent along (default: not sent, which means float)")
    what.add_argument("--seed", type=int, default=0, help="of texts and arrivals (default %(default)s)")


@dataclass(frozen=True, slots=True)
class Measured:
    """One run, what it says, and what it is called."""

    title: str
    summary: Summary
    run: Run


def bench(parsed: argparse.Namespace) -> int:
    """Put load on a server that speaks OpenAI's embeddings, and measure it."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    requests = _requests(parsed)
    if parsed.ceiling:
        print(_ceiling(parsed, requests))
        return 0
    measured = drive(_measure(parsed, requests))
    print(table(measured.title, measured.summary))
    recorded = record(_settings(parsed), started, measured.summary, measured.run)
    if parsed.json:
        write(parsed.json, as_json(recorded), "--json")
    if parsed.html:
        write(parsed.html, page(measured.title, recorded, measured.run).encode(), "--html")
    return 0 if measured.summary.latency_ms is not None else 1


async def _measure(parsed: argparse.Namespace, requests: Requests) -> Measured:
    target = Target.of(parsed.url, parsed.path, parsed.key)
    times = _arrivals(parsed)
    await probe(target, next(requests), parsed.timeout_s)
    whole = parsed.warmup_s + parsed.seconds
    if times is None:
        clients = parsed.clients or 32
        load = f"closed loop, {clients} clients"
        done = await closed_loop(target, requests, clients=clients, seconds=whole, timeout_s=parsed.timeout_s)
    else:
        load = f"open loop, {len(times) / whole:.1f} requests/s {'recorded' if parsed.arrivals else 'at random'}"
        done = await open_loop(target, requests, times, connections=parsed.connections, timeout_s=parsed.timeout_s)
    summary = Summary.of(done, warmup_s=parsed.warmup_s, until_s=whole, slo_ms=parsed.slo_ms)
    return Measured(f"{target.url}: {load}, {_what(parsed)}", summary, done)


def _arrivals(parsed: argparse.Namespace) -> list[float] | None:
    """When to send, warm-up included; None for a closed loop. Raises ConfigError."""
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
    with trivial_server(parsed.batch) as url:
        summary = drive(ceiling(url, requests, clients=parsed.clients or 32, seconds=parsed.seconds))
    return table(f"a server that does nothing: closed loop, {parsed.clients or 32} clients, {_what(parsed)}", summary)


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


def _what(parsed: argparse.Namespace) -> str:
    carried = parsed.mix or f"{parsed.batch} a request"
    return f"texts of {_lengths(parsed).name}, {carried}"


def _settings(parsed: argparse.Namespace) -> dict[str, Any]:
    """What was asked for; never the key."""
    left_out = {"run", "flags", "key"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(parsed).items() if name not in left_out}


def _positive(value: str) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {value!r}")
    return number


def _from_zero(value: str) -> float:
    return 0.0 if float(value) == 0 else _positive(value)


def _count(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value!r}")
    return number


def _share(value: str) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected 0 to 1, got {value!r}")
    return number
