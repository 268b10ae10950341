"""Errors as gRPC's statuses, by the HTTP statuses that they have."""

from __future__ import annotations

import grpc

from models.errors import SondeError
from service.api.error_responses import status_of

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
# Bytes of a message. It travels in headers, which clients limit to 8 KiB, and a byte beyond ASCII takes three there.
_LONGEST = 2000
INTERNAL = "an internal error; the request id is in x-request-id"


def status_and_message(error: SondeError) -> tuple[int, grpc.StatusCode, str]:
    """The HTTP status, gRPC's status and the message of an error. Faults of ours tell callers nothing else."""
    status = status_of(error)
    code = _CODES.get(status or 500)
    if status is None or code is None:
        return 500, grpc.StatusCode.INTERNAL, INTERNAL if status is None else _cut(error.message)
    return status, code, _cut(error.message)


def _cut(message: str) -> str:
    return message[:_LONGEST].encode()[:_LONGEST].decode(errors="ignore")
