"""The compiled files of tests, which all processes that run them share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from _pytest.assertion import rewrite


def compile_tests(config: pytest.Config) -> None:
    """Write pytest's bytecode of the files of tests that are asked for, where it is missing or old.

    In a fresh clone, each process of tests would otherwise compile all of them: 5 s of processor time each. Files that
    cannot be compiled are left to pytest, which reports them by name.
    """
    state = config.stash.get(rewrite.assertstate_key, None)  # None with --assert=plain
    if sys.dont_write_bytecode or state is None:
        return
    for source in _files(config):
        compiled = rewrite.get_cache_dir(source) / f"{source.stem}{rewrite.PYC_TAIL}"
        if rewrite._read_pyc(source, compiled) is not None:
            continue
        with suppress(OSError, SyntaxError, ValueError):
            source_hash, code = rewrite._rewrite_test(source, config)
            if rewrite.try_makedirs(compiled.parent):
                rewrite._write_pyc(state, code, source_hash, compiled)


def _files(config: pytest.Config) -> Iterator[Path]:
    for argument in config.args:
        path = config.invocation_params.dir / argument.partition("::")[0]
        yield from path.rglob("test_*.py") if path.is_dir() else [path]
