"""`sonde` on a pseudo-terminal, as a person sees it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading

from tests.support.server import wait_until

CTRL_C = b"\x03"


class Terminal:
    """`sonde` on a pseudo-terminal, as a person sees it."""

    def __init__(self, *words: str, environment: dict[str, str] | None = None) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.on_terminal", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        os.close(theirs)
        self.raw = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def plain(self) -> str:
        """All that was written, without colours and erased lines."""
        return re.sub(r"\x1b\[[0-9;]*[mK]", "", self.raw).replace("\r", "")

    def wait_for(self, text: str, timeout_s: float = 180) -> None:
        """Wait until a text has been written."""
        try:
            wait_until(lambda: text in self.plain or self.process.poll() is not None, timeout_s)
        finally:
            assert text in self.plain, self.plain

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._ours, keys)

    def close(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        self._reader.join(5)
        os.close(self._ours)

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._ours, 65536)
            except OSError:  # all who could write have ended
                return
            self.raw += part.decode(errors="replace")
