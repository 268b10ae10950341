"""What a service loads before it is ready: nothing that serving the shipped encoder does without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real, pytest.mark.slow]

# Each costs from half a second to several; SymPy comes with the parts of PyTorch that describe operators.
HEAVY = ("sentence_transformers", "transformers", "sklearn", "scipy", "pandas", "matplotlib", "datasets", "pyarrow",
         "peft", "accelerate", "cleanlab", "sympy", "httpx", "sqlalchemy",
         "torch._dynamo", "torch._inductor")  # fmt: skip
SERVE = f"""
import sys
from pathlib import Path
from service.api.app import create_app
from service.api.server import Server
from service.auth import Keyring
from service.config import Settings
from service.serve import make_banner
from service.serving.model_manager import ModelManager
from service.metrics import Metrics

settings, metrics = Settings.read({{"home": Path(sys.argv[1])}}), Metrics()
manager = ModelManager(settings, metrics)
app = create_app(settings, manager, Keyring(settings.keys_file), metrics)
Server(app, settings, manager, make_banner(settings, Keyring(settings.keys_file)).show).config.load()
manager.open()
assert manager.problem is None
manager.close()
print(*(name for name in {HEAVY!r} if name in sys.modules))
"""


def test_a_service_is_ready_without_heavy_libraries(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SERVE, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == []
