"""Models of images in service: where they are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from models.loader import load_images
from models.runtime.placement import place
from models.source import locate
from service.errors import ConfigError
from service.serving.engine_server import _require_texts
from tests.support.tiny_image_models import image_encoder


def test_fronts_serve_no_images(tmp_path: Path) -> None:
    """They send token ids alone to the engine."""
    model = load_images(locate(str(image_encoder(tmp_path))), place("cpu", "float32"))
    assert model is not None
    with pytest.raises(ConfigError, match="leave --fronts out"):
        _require_texts(model, cast(Any, None))
