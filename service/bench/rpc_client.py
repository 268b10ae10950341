"""Calls of the Open Inference Protocol over gRPC, from the extra `sonde[grpc]`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.bench.client import CONNECTION, TIMEOUT, BenchResponse, split_url
from service.bench.tensor_workload import Tensor
from service.errors import ConfigError, TargetError

try:
    import grpc
    import grpc.aio

    from service.inference_messages import SERVICE, message
except ImportError as error:
    raise ConfigError("--protocol v2-grpc needs gRPC: pip install 'sonde[grpc]'", param="protocol") from error

_MESSAGES = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_METADATA_S = 30.0


@dataclass(frozen=True, slots=True)
class RpcTarget:
    """The server, its address, and the metadata of each call."""

    address: str
    tls: bool
    metadata: tuple[tuple[str, str], ...]
    url: str

    @classmethod
    def of(cls, url: str, key: str | None) -> RpcTarget:
        """Parse a URL, whose port is that of gRPC. Raises ConfigError."""
        parts, name, port = split_url(url)
        tls = parts.scheme == "https"
        metadata = (("authorization", f"Bearer {key}"),) if key else ()
        return cls(f"{name}:{port or (443 if tls else 80)}", tls, metadata, url)

    def connect(self, *, keep_bodies: bool = False) -> RpcConnection:
        """A connection of its own."""
        return RpcConnection(self)

    def count_answers(self, body: bytes) -> int | None:
        """None: the status says whether there is an answer."""
        return None

    async def model_metadata(self, model: str) -> dict[str, Any]:
        """A model's inputs. Raises TargetError."""
        async with self.channel() as channel:
            ask = channel.unary_unary(
                f"/{SERVICE}/ModelMetadata",
                request_serializer=message("ModelMetadataRequest").SerializeToString,
                response_deserializer=message("ModelMetadataResponse").FromString,
            )
            try:
                answer = await ask(
                    message("ModelMetadataRequest")(name=model), timeout=_METADATA_S, metadata=self.metadata
                )
            except grpc.aio.AioRpcError as error:
                raise TargetError(
                    f"{self.url} did not describe {model!r}: {error.code().name}, {error.details()}"
                ) from error
        return {
            "inputs": [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in answer.inputs]
        }

    def channel(self) -> Any:
        """A channel that shares its connection with no other."""
        options = (*_MESSAGES, ("grpc.use_local_subchannel_pool", 1))
        if self.tls:
            return grpc.aio.secure_channel(self.address, grpc.ssl_channel_credentials(), options)
        return grpc.aio.insecure_channel(self.address, options)


class RpcConnection:
    """Sends one call at a time. Bodies are encoded messages already, and answers are left as they come."""

    def __init__(self, target: RpcTarget) -> None:
        self._channel = target.channel()
        self._metadata = target.metadata
        self._call = self._channel.unary_unary(f"/{SERVICE}/ModelInfer")

    async def post(self, body: bytes, timeout_s: float, headers: bytes = b"") -> BenchResponse:
        """Send a body and wait for the complete answer."""
        try:
            answer = await self._call(body, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            kinds = {grpc.StatusCode.DEADLINE_EXCEEDED: TIMEOUT, grpc.StatusCode.UNAVAILABLE: CONNECTION}
            status = kinds.get(error.code(), error.code().name.lower())
            return BenchResponse(status, time.perf_counter(), (error.details() or "").encode())
        return BenchResponse("200", time.perf_counter(), answer)

    def close(self) -> None:
        """Close the connection."""
        self._closing = asyncio.ensure_future(self._channel.close())


def encode_message(model: str, tensors: Sequence[Tensor]) -> tuple[bytes, bytes]:
    """A ModelInferRequest with raw values."""
    request = message("ModelInferRequest")(
        model_name=model, inputs=[one.about for one, _, _ in tensors], raw_input_contents=[raw for _, _, raw in tensors]
    )
    return request.SerializeToString(), b""
