"""Text models of a front: tokenised here, computed in the engine process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.base import ModelMetadata
from models.errors import SondeError
from models.preemption import NO_PREEMPTION, Preemption
from models.source import ModelSource
from models.text.tokenization import TextProcessor
from models.text.tokens import Tokens
from service.config import Settings
from service.engine.frames import OpenConfigured, Opened, OpenVersion
from service.engine.request import Request
from service.errors import Unavailable
from service.metrics import Metrics
from service.serving.engine_link import EngineLink, MakeOpen
from service.serving.text_sources import Opened as OpenedModel
from service.serving.token_frames import submission


class RemoteModel:
    """A model of the engine process as its front knows it."""

    def __init__(self, opened: Opened) -> None:
        self.metadata: ModelMetadata = opened.metadata
        self.text = TextProcessor.from_json(opened.tokenizer, opened.metadata.max_tokens)
        self._memory_bytes = opened.memory_bytes

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Raise RuntimeError: the engine process computes."""
        raise RuntimeError(f"{self.metadata.name} is computed in the engine process")

    def memory_bytes(self) -> int:
        """Bytes that it held on the device when it was opened."""
        return self._memory_bytes


class RemoteEngine:
    """The engine of one model in the engine process."""

    def __init__(self, link: EngineLink, label: str, width: int) -> None:
        self.width = width
        self._link = link
        self._label = label

    @property
    def failure(self) -> Exception | None:
        """Why the engine process cannot be reached; None where it can."""
        return self._link.lost

    @property
    def waiting(self) -> tuple[int, int]:
        """The requests of this front without an answer, of all models; their tokens are not counted."""
        return self._link.waiting, 0

    @property
    def tokens_per_s(self) -> float:
        """The engine's speed at its last answer; 0 before."""
        return self._link.tokens_per_s.get(self._label, 0.0)

    def submit(
        self,
        items: Sequence[Tokens],
        *,
        client: str = "",
        deadline: float | None = None,
        patience_s: float | None = None,
        bulk: bool = False,
    ) -> Request:
        """Send items to the engine. Raises Unavailable while there is none."""
        if self._link.lost is not None:
            raise Unavailable(str(self._link.lost), retry_after_s=2)
        request = Request(items, self.width, client=client, deadline=deadline, patience_s=patience_s, bulk=bulk)
        self._link.submit(submission(self._label, request, items, patience_s), request)
        return request

    def cancel(self, request: Request, error: SondeError) -> int:
        """End a request here and in the engine. Returns 0: only the engine knows what was computed."""
        request.fail(error)
        self._link.cancel(request)
        return 0

    def close(self) -> None:
        """Let the engine unload the model, unless another front has it."""
        self._link.release(self._label)


class RemoteTextSource:
    """Opens models in the engine process."""

    lost = "the engine restarts"

    def __init__(self, settings: Settings, link: EngineLink, metrics: Metrics) -> None:
        self._settings = settings
        self._link = link
        self._metrics = metrics

    def measure(self) -> None:
        """The engine measures."""

    def open_configured(self) -> Iterator[OpenedModel]:
        """Wait for the models of `--model`, which the engine loads."""
        for index in range(len(self._settings.model)):
            yield self._open(partial(OpenConfigured, index=index))

    def open_version(self, source: ModelSource) -> OpenedModel:
        """Let the engine load an encoder. Raises ModelError."""
        return self._open(
            partial(OpenVersion, name=source.name, path=str(source.path), origin=source.origin, digest=source.version)
        )

    def close(self) -> None:
        """End the waits of other threads."""
        self._link.close()

    def _open(self, make: MakeOpen) -> OpenedModel:
        opened = self._link.open(make)
        self._metrics.announce(opened.metadata.name)
        return RemoteModel(opened), RemoteEngine(self._link, opened.metadata.label, opened.metadata.width)
