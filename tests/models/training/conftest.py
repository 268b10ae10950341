"""Encoders whose layers run in Python: to compile those of a tiny model takes longer than a job's other work on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.text.packed import torchscript


@pytest.fixture(scope="module", autouse=True)
def layers_in_python() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchscript, "script", lambda code: code)
        yield
