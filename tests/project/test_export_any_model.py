"""The example that serves a module of its own: exported, served and called by real processes."""

from __future__ import annotations

import pytest

from examples.export_any_model import main

pytestmark = [pytest.mark.real, pytest.mark.slow]


def test_a_module_is_exported_served_and_called(capfd: pytest.CaptureFixture[str]) -> None:
    main()
    said = capfd.readouterr().out
    assert "contract: {'inputs': [{'name': 'x', 'dtype': 'float32', 'shape': ['batch', 16]}]" in said
    assert "'name': 'scores', 'datatype': 'FP32', 'shape': [2, 4]" in said
    assert "15 numbers: 422 x: expected float32 [batch, 16], got [1, 15]: dimension 1 is 15, expected 16" in said
