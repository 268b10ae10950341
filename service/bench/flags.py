"""The flags of `sonde bench`, apart from their use, so that the command line starts fast."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.bench.workload import NAMED

_EPILOG = """examples:
  sonde bench                                        32 clients, one text each, for 10 s against http://127.0.0.1:8000
  sonde bench --rate 200 --slo-ms 50                 200 requests a second at random times, without waiting for answers
  sonde bench --arrivals trace.csv --rate 50         recorded arrivals, scaled to 50 a second
  sonde bench --long --batch 32 --clients 4          bulk
  sonde bench --mix single:0.9,bulk:0.1 --rate 100   both
  sonde bench --protocol v2 --model net --batch 8    tensors of the Open Inference Protocol
  sonde bench --url http://127.0.0.1:7997 --path /embeddings --model NAME --html report.html
"""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add all flags of `sonde bench`."""
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = _EPILOG
    target = command.add_argument_group("where")
    target.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default %(default)s)")
    target.add_argument(
        "--protocol",
        choices=("openai", "v2", "v2-grpc"),
        default="openai",
        help="OpenAI's embeddings, or the Open Inference Protocol over HTTP or gRPC, whose port --url has then "
        "(default %(default)s)",
    )
    target.add_argument("--path", default="/v1/embeddings", help="its route for embeddings (default %(default)s)")
    target.add_argument("--model", default="all-MiniLM-L6-v2", help="the model's name there (default %(default)s)")
    target.add_argument("--key", help="an API key, sent as a bearer token")
    _add_load_flags(command.add_argument_group("how much"))
    _add_text_flags(command.add_argument_group("what"))
    shown = command.add_argument_group("reports beside the table")
    shown.add_argument("--json", type=Path, metavar="FILE", help="everything measured")
    shown.add_argument("--html", type=Path, metavar="FILE", help="a page with plots")
    shown.add_argument(
        "--ceiling", action="store_true", help="measure the generator itself, against a server that does nothing"
    )


def _add_load_flags(load: Any) -> None:
    load.add_argument(
        "--clients", type=_count, help="closed loop: number of clients; each waits for its answer (default 32)"
    )
    load.add_argument("--rate", type=_positive, help="open loop: requests a second, at Poisson times")
    load.add_argument(
        "--arrivals", type=Path, metavar="FILE", help="open loop: times from a CSV's first column; --rate scales them"
    )
    load.add_argument("--seconds", type=_positive, default=10.0, help="seconds to measure (default %(default)g)")
    load.add_argument(
        "--warmup-s",
        type=_from_zero,
        default=2.0,
        help="seconds of the same load before, not counted (default %(default)g)",
    )
    load.add_argument(
        "--connections", type=_count, default=256, help="open loop: limit of connections (default %(default)s)"
    )
    load.add_argument(
        "--timeout-s", type=_positive, default=60.0, help="a request fails after this time (default %(default)g)"
    )
    load.add_argument(
        "--slo-ms", type=_positive, default=100.0, help="goodput counts answers within it (default %(default)g)"
    )


def _add_text_flags(what: Any) -> None:
    length = what.add_mutually_exclusive_group()
    length.add_argument(
        "--lengths", choices=list(NAMED), help="lengths of the texts (default intents: those of questions to chatbots)"
    )
    length.add_argument("--short", dest="lengths", action="store_const", const="short", help="12 tokens each")
    length.add_argument("--long", dest="lengths", action="store_const", const="long", help="120 tokens each")
    length.add_argument("--words", metavar="N[-M]", help="N words each, of one token of BERT's English vocabulary")
    what.add_argument("--batch", type=_count, default=1, help="texts or rows in a request (default %(default)s)")
    what.add_argument(
        "--shape",
        action="append",
        type=_shape,
        metavar="NAME:N,…",
        help="of the Open Inference Protocol: an input's sizes, where others than the batch vary",
    )
    what.add_argument(
        "--tensors", choices=("raw", "json"), default="raw", help="its values over HTTP (default %(default)s)"
    )
    what.add_argument("--mix", help="parts by share of the requests, such as single:0.9,bulk:0.1 or 1:0.5,8:0.5")
    what.add_argument("--bulk", type=_count, default=32, help="texts in a bulk request of --mix (default %(default)s)")
    what.add_argument(
        "--repeat-share", type=_share, default=0.0, help="share of texts that repeat earlier ones (default %(default)g)"
    )
    what.add_argument(
        "--encoding-format",
        choices=("float", "base64"),
        help="the request's encoding_format (default: none, which means float)",
    )
    what.add_argument("--seed", type=int, default=0, help="seed of texts and arrivals (default %(default)s)")


def changed(parsed: argparse.Namespace) -> list[str]:
    """The names of the flags whose values are not their defaults."""
    command = argparse.ArgumentParser()
    add_flags(command)
    return [name for name, default in vars(command.parse_args([])).items() if getattr(parsed, name) != default]


def _positive(value: str) -> float:
    return _number(value, lambda number: 0 < number < math.inf, "a number above 0")


def _from_zero(value: str) -> float:
    return _number(value, lambda number: 0 <= number < math.inf, "0 or more")


def _count(value: str) -> int:
    return int(_number(value, lambda number: number >= 1 and number.is_integer(), "a whole number of 1 or more"))


def _shape(value: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = value.partition(":")
    try:
        return name, tuple(_count(size) for size in sizes.split(","))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"expected NAME:N,N as in x:1,16, got {value!r}") from error


def _share(value: str) -> float:
    return _number(value, lambda number: 0 <= number <= 1, "0 to 1")


def _number(value: str, fits: Callable[[float], bool], expected: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan  # fits nowhere
    if not fits(number):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {value!r}")
    return number
