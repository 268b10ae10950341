"""What a request costs a server: the longest silence of `/health/live`, and the peak of its memory.

watch = LoopWatch(served.url, served.process.pid)
cost = watch.measure("POST", "/v1/embeddings", body)
assert cost.held_s < 0.25 and cost.peak_bytes < watch.peak_limit_bytes
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

_POLL_S = 0.01
_TIMEOUT_S = 60.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cost:
    """The status and the start of the answer; the longest wait for `/health/live`; peak memory; the server's CPU time.

    The status is 0 where the server closed the connection before the whole body was sent.
    """

    status: int
    answer: str
    silence_s: float
    peak_bytes: int
    cpu_s: float

    @property
    def held_s(self) -> float:
        """The most that the server can have held its event loop: on a busy machine, it waits for a processor, too."""
        return min(self.silence_s, self.cpu_s)


class LoopWatch:
    """Sends requests to a server on Linux, and polls its liveness every 10 ms meanwhile."""

    def __init__(self, url: str, pid: int, *, headers: dict[str, str] | None = None) -> None:
        place = urlsplit(url)
        self._host, self._port = str(place.hostname), place.port
        self._pid = pid
        self._headers = headers or {}
        self.idle_bytes = self._memory("VmRSS")

    @property
    def peak_limit_bytes(self) -> int:
        """1.5 times the idle memory, and 256 MB."""
        return int(1.5 * self.idle_bytes) + 256_000_000

    def measure(self, method: str, path: str, body: bytes, kind: str = "application/json") -> Cost:
        """Send a request; its answer and its cost."""
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")  # VmHWM starts anew
        began = self._cpu_s()
        (status, answer), silence_s = self.watch(lambda: self._send(method, path, body, kind))
        return Cost(status, answer, silence_s, self._memory("VmHWM"), self._cpu_s() - began)

    def watch(self, work: Callable[[], T]) -> tuple[T, float]:
        """Do work; its result, and the longest wait for an answer meanwhile, in seconds."""
        longest, done = [0.0], threading.Event()
        poller = threading.Thread(target=self._poll, args=(longest, done), name="poll-live")
        poller.start()
        try:
            result = work()
        finally:
            done.set()
            poller.join()
        return result, longest[0]

    def _poll(self, longest: list[float], done: threading.Event) -> None:
        connection = http.client.HTTPConnection(self._host, self._port or 80, timeout=_TIMEOUT_S)
        while not done.wait(_POLL_S):
            began = time.monotonic()
            connection.request("GET", "/health/live")
            answer = connection.getresponse()
            answer.read()
            longest[0] = max(longest[0], time.monotonic() - began)
            if answer.status != 200:
                raise AssertionError(f"/health/live answers {answer.status}")
        connection.close()

    def _send(self, method: str, path: str, body: bytes, kind: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self._host, self._port or 80, timeout=_TIMEOUT_S)
        try:
            connection.request(method, path, body, {"content-type": kind, **self._headers})
            answer = connection.getresponse()
            start = answer.read(2000).decode(errors="replace")
            while answer.read(1 << 20):
                pass
        except (BrokenPipeError, ConnectionResetError) as error:
            return 0, type(error).__name__
        else:
            return answer.status, start
        finally:
            connection.close()

    def _memory(self, name: str) -> int:
        """A line of the kernel's status of the server, in bytes."""
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100
