"""What all forks share: what programs of ours and the tests import, and what each would measure."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import pkgutil
import weakref
from pathlib import Path

_NOT_IMPORTED = "service.rpc"  # gRPC does not survive a fork
# What training and the tests import where they need it, and pytest in each process of tests.
_LIBRARIES = (
    "cleanlab.filter",
    "huggingface_hub.inference._client",
    "hypothesis.extra.numpy",
    "matplotlib.figure",
    "openai.resources",
    "scipy.signal",
    "schemathesis.pytest.plugin",
    "scipy.stats",
    "sentence_transformers",
    "sklearn.feature_extraction.text",
)


def import_shared(*, training: bool) -> None:
    """Import what programs of ours import, and exempt it from garbage collection and from what is done at the end.

    PyTorch's finalizers take out of its tables what they hold, which takes 40 ms and reads most of the memory.
    """
    gc.disable()
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read at import, before which programs of ours set it
    for package in ("models", "service"):
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not found.name.startswith(_NOT_IMPORTED):
                importlib.import_module(found.name)
    for library in _LIBRARIES:
        importlib.import_module(library)
    gc.freeze()
    gc.enable()
    vars(weakref.finalize)["_registry"].clear()
    _autotune(training)
    _share_certificates()
    _use_huge_pages()


def _autotune(training: bool) -> None:
    """Measure for all forks what each would measure: 0.2 to 0.5 s of a service, 0.5 to 2 s of a training process."""
    importlib.import_module("models.runtime.product_autotune").autotune_products()
    if training:
        importlib.import_module("models.training.tuning.step_autotune").autotune_steps()


def _share_certificates() -> None:
    """Read certificates once for all forks: each new client of httpx does, and each `httpx.get`, which takes 30 ms."""
    transports = vars(importlib.import_module("httpx._transports.default"))
    transports["create_ssl_context"] = functools.cache(transports["create_ssl_context"])
    transports["create_ssl_context"](verify=True, cert=None, trust_env=True)


def _use_huge_pages() -> None:
    """Move this process's memory into huge pages: a fork copies an entry for each, instead of 512.

    Linux 6.1 and later can; earlier ones refuse.
    """
    areas = list[tuple[int, int]]()
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, access, _, _, file, *_ = line.split()
        start, end = (int(number, 16) for number in place.split("-"))
        if access == "rw-p" and file == "0":
            areas.append((start, end - start))
    importlib.import_module("models.runtime.huge_pages").move_to_huge_pages(areas)
