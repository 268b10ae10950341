"""A service that is sent bad input, and what each request costs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from tests.support.processes import peak_mb, reset_peak, resident_mb

# Of processor time, because other tests use the machine, too.
MOST_S = 1.0
# A refused input may cost its body a few times over. A decoded one of 40,000 x 40,000 would take gigabytes.
MOST_PEAK_MB = 200.0
# Python and the C library keep some room for the next request.
MOST_KEPT_MB = 48.0
# A request's status, and what the answer says.
Answer = tuple[int, str]


@dataclass(frozen=True)
class Running:
    """A service and its process."""

    http: httpx.Client
    grpc_port: int
    pid: int

    @property
    def resident_mb(self) -> float:
        return resident_mb(self.pid)

    def fault(self, send: Callable[[], Answer], expected: str) -> str:
        """Describe what is wrong with the answer to a bad request; "" where it refuses and says `expected`.

        A refusal that takes too long or too much memory is wrong, too.
        """
        reset_peak(self.pid)
        peak, seconds = peak_mb(self.pid), self._cpu_s()
        status, said = send()
        seconds, more = self._cpu_s() - seconds, peak_mb(self.pid) - peak
        if 400 <= status < 500 and expected in said and seconds < MOST_S and more < MOST_PEAK_MB:
            return ""
        return f"{status} {said[:300]}, {seconds:.2f} s, {more:.0f} MB"

    def post(self, path: str, **body: Any) -> Answer:
        """The answer to a request over HTTP."""
        response = self.http.post(path, **body)
        return response.status_code, response.text

    def infer_rpc(self, **fields: Any) -> Answer:
        """The answer to a request over gRPC, with the HTTP status that means as much."""
        import grpc

        from service.inference_messages import SERVICE, message

        request = message("ModelInferRequest")(**fields)
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            try:
                channel.unary_unary(f"/{SERVICE}/ModelInfer")(request.SerializeToString(), timeout=60)
            except grpc.RpcError as error:
                return 422 if error.code() == grpc.StatusCode.INVALID_ARGUMENT else 500, error.details()
        return 200, ""

    def _cpu_s(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)
