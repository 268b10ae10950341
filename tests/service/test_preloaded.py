"""What processes are forked from has imported all that they need, and touched nothing that a fork must not copy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_TELL = """
import json, os, sys, threading
import service.preloaded
import torch
told = {
    "modules": list(sys.modules),
    "threads": threading.active_count(),
    "cuda": torch.cuda.is_initialized(),
    "files": [file for file in map("/proc/self/fd/{}".format, os.listdir("/proc/self/fd"))
              if file[-2:] not in {"/0", "/1", "/2"} and os.path.exists(file)],
    "versions read": [],
}
sys.addaudithook(lambda event, given: event == "open" and "METADATA" in str(given[0])
                 and told["versions read"].append(given[0]))
from service.api.app import create_app
from service.auth import Keyring
from service.cli import parser
from service.config import Settings
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
parser().parse_args(["serve"])
settings, metrics = Settings.read({"home": sys.argv[1]}), Metrics()
create_app(settings, ModelManager(settings, metrics, on_failure=print), Keyring(settings.keys_file), metrics)
print(json.dumps(told))
"""


def test_the_service_is_imported_and_nothing_is_started(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _TELL, str(tmp_path)]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    loaded = set(told["modules"])
    assert {"torch", "service.api.app", "service.serving.engine_server", "uvloop", "models.loader"} <= loaded
    assert "service.jobs.storage" in loaded, "a process alone imports it with the first call about jobs"
    assert not loaded & {"transformers", "sklearn", "pandas", "matplotlib", "grpc"}, "none of them serves texts"
    assert (told["threads"], told["cuda"], told["files"]) == (1, False, [])
    assert told["versions read"] == [], "a fork does not read the version again"
