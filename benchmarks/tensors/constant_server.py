"""Servers that compute nothing: the most that uvicorn and grpc.aio leave to any server in Python.

python -m benchmarks.tensors.constant_server HTTP_PORT RPC_PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import grpc.aio
import orjson
import uvicorn

from benchmarks.tensors.network import CLASSES
from service.inference_messages import SERVICE, message

_SCORES = [0.5] * CLASSES
_OUTPUT = {"name": "scores", "datatype": "FP32", "shape": [1, CLASSES]}
_BODY = orjson.dumps({"model_name": "net", "outputs": [{**_OUTPUT, "data": _SCORES}]})
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]
_MESSAGE: bytes = message("ModelInferResponse")(
    model_name="net", outputs=[_OUTPUT], raw_output_contents=[bytes(4 * CLASSES)]
).SerializeToString()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, and answer with the same bytes always."""
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


async def _answer(request: bytes, call: Any) -> bytes:
    return _MESSAGE


async def _serve(http_port: int, rpc_port: int) -> None:
    rpc = grpc.aio.server()
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(_answer)}
    rpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    rpc.add_insecure_port(f"127.0.0.1:{rpc_port}")
    await rpc.start()
    await uvicorn.Server(uvicorn.Config(app, port=http_port, ws="none", lifespan="off", access_log=False)).serve()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
