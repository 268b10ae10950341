"""What tests of models of images share."""

from __future__ import annotations

import pytest

from models.images.resizing import Scaling


@pytest.fixture
def scaled_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images as transformers' processors give them, bit for bit: random networks magnify one level of 256."""
    monkeypatch.setattr(Scaling, "of", lambda processor: None)
