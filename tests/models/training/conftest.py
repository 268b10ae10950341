"""Encoders of jobs open sooner: other tests compile their layers and compare them with the general path.

To compile the layers of a tiny model takes longer than a job's other work on it, and so does the general encoder.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models import loader
from models.errors import Unsupported
from models.runtime.placement import Placement
from models.source import ModelSource
from models.text.encoder import Encoder
from models.text.packed.encoder import PackedEncoder, packed_or_general


@pytest.fixture(scope="module", autouse=True)
def uncompared_encoders(layers_in_python: None) -> Iterator[None]:
    def open_packed(source: ModelSource, placement: Placement, checking: object) -> PackedEncoder | Encoder:
        try:
            return PackedEncoder(source, placement)
        except Unsupported:
            return packed_or_general(source, placement)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "packed_or_general", open_packed)
        yield
