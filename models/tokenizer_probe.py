"""Whether a tokenizer of another's making ends, within a limit of time and memory, on texts made to be hard for it.

A tokenizer.json can hold regular expressions that backtrack for ever, or replacements that make a text a billion times
as long. Words may have no limit, and a template a million special tokens. `python -m models.tokenizer_probe FILE` reads
such texts in a process of its own, which the caller can kill.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from models.errors import ModelSourceError
from models.filesystem import sha256_of
from models.interpreter import RUN_MODULE

_TIMEOUT_S = 30.0
_MAX_MEMORY_BYTES = 8 << 30
_MAX_SPECIAL_TOKENS = 64
_MAX_WORD_CHARACTERS = 1000
# No normalizer makes a character this many tokens.
_MAX_TOKENS_PER_CHARACTER = 32
_REPEATS = 4096
_COMMON = "aA0 .,-_'\n\té漢"
_MAX_UNITS = 200
_HARMLESS = 0
# The SHA-256 of tokenizers that passed: training opens an encoder after each stage, with the same tokenizer.
_passed: set[str] = set()


def require_quick_tokenizer(root: Path) -> None:
    """Raise ModelSourceError for a tokenizer.json in a directory that hangs, explodes or fails.

    A file is probed once in a process.
    """
    for path in sorted(root.rglob("tokenizer.json")):
        digest = sha256_of(path)
        if digest in _passed:
            continue
        if reason := _probe(path):
            expected = f"a tokenizer that reads short texts within {_TIMEOUT_S:.0f} s"
            raise ModelSourceError(
                f"{root.name}/{path.relative_to(root)}: expected {expected}, {reason}", param="model"
            )
        _passed.add(digest)


def _probe(path: Path) -> str | None:
    """Why a tokenizer is refused, from a process of its own; None if it is not."""
    try:
        done = subprocess.run(  # noqa: S603  # a command of ours, no shell
            [*RUN_MODULE, "models.tokenizer_probe", str(path)],
            env={"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "this one takes longer: its regular expressions or replacements never end"
    if done.returncode == _HARMLESS:
        return None
    return f"this one fails: {_last_line(done.stdout) or _last_line(done.stderr)}"


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:300]


def _units(tokenizer: dict[str, object]) -> Iterator[str]:
    """What probing texts repeat: common characters, and those of the tokenizer's own patterns."""
    yield from _COMMON
    for pattern in _patterns([tokenizer.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")]):
        yield from dict.fromkeys(pattern)
        yield pattern
        yield from re.findall(r"\w+", pattern)


def _patterns(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key in ("Regex", "String") and isinstance(value, str))
    if isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _patterns(inner)


def _find_fault(path: Path) -> str | None:
    """What is wrong with a tokenizer; does not return if it hangs."""
    from tokenizers import Tokenizer

    settings = json.loads(path.read_text(encoding="utf-8"))
    most = (settings.get("model") or {}).get("max_input_chars_per_word") or 0
    if most > _MAX_WORD_CHARACTERS:
        return f"max_input_chars_per_word is {most:,}, {_MAX_WORD_CHARACTERS:,} are allowed"
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    special = max(tokenizer.num_special_tokens_to_add(is_pair) for is_pair in (False, True))
    if special > _MAX_SPECIAL_TOKENS:
        return f"a text gets {special:,} special tokens, {_MAX_SPECIAL_TOKENS} are allowed"
    for unit in islice(filter(None, dict.fromkeys(_units(settings))), _MAX_UNITS):
        text = (unit * (_REPEATS // len(unit) + 1))[:_REPEATS] + "!"
        count = len(tokenizer.encode(text, add_special_tokens=False).ids)
        if count > _MAX_TOKENS_PER_CHARACTER * len(text):
            return f"{len(text):,} characters become {count:,} tokens"
    return None


def main() -> int:
    """Probe the tokenizer that the command line names; print its fault."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    try:
        fault = _find_fault(Path(sys.argv[1]))
    except BaseException as error:  # a panic of the Rust library is no Exception
        fault = str(error) or type(error).__name__
    print(fault or "")
    return 1 if fault else _HARMLESS


if __name__ == "__main__":
    sys.exit(main())
