"""Commands for shell scripts that this process starts in place of the shell: programs of ours are then forks."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_MAX_BYTES = 1 << 18
# `python -IS` starts in a hundredth of a second.
_CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    command = [*{command!r}, *sys.argv[1:]]
    socket.send_fds(server, [json.dumps([command, os.getcwd(), dict(os.environ)]).encode()], [0, 1, 2])
    sys.exit(int(server.recv(8)))
"""


@contextmanager
def shell_commands(directory: Path, commands: Mapping[str, Sequence[str]]) -> Iterator[Path]:
    """A directory for a shell's PATH, with scripts by their names that run commands in its place."""
    address = directory / "socket"
    with _Server(str(address), _Runner) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        for name, command in commands.items():
            script = directory / name
            script.write_text(_CLIENT.format(python=sys.executable, address=str(address), command=list(command)))
            script.chmod(0o755)
        yield directory
        server.shutdown()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """One thread a command."""


class _Runner(socketserver.BaseRequestHandler):
    """Runs a command on the descriptors of its client, and answers with its exit code."""

    def handle(self) -> None:
        message, streams, _, _ = socket.recv_fds(self.request, _MAX_BYTES, 3)
        command, directory, environment = json.loads(message)
        stdin, stdout, stderr = streams
        done = subprocess.run(
            command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=directory, env=environment, check=False
        )
        for stream in streams:
            os.close(stream)
        self.request.sendall(str(done.returncode).encode())
