"""Changes exported programs at random and reads them: `python -m tests.support.program_fuzzer SEED COUNT FOLDER`.

It runs in a process of its own, because a crash ends it. The last line of its output has the outcomes as JSON.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import random
import resource
import signal
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from models.errors import SondeError
from models.programs.program import Program, Tensors
from models.programs.row_check import check_rows, sample_inputs
from tests.support.programs import open_program, read_parts, write_parts

NAMES = ("mlp", "convolution", "branches", "multiples", "doubled", "words", "half")
# Events of Python's audit that no reading of a program may raise.
_FORBIDDEN = {
    "os.system",
    "os.exec",
    "os.fork",
    "os.mkdir",
    "os.remove",
    "subprocess.Popen",
    "pickle.find_class",
    "ctypes.dlopen",
    "socket.connect",
}
_MEMORY = 8 << 30
_SECONDS = 20
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 13, 64, 2**31, -(2**31), 2**63 - 1, 2**63, 10**30, 0.5, 1e308, float("nan"),
    "", "x", "p_layers_0_weight", "s77", "../../etc/passwd", "weight_0", "tensor_1", "custom_obj_0",
    "__import__('os').mkdir('canary')", "Symbol(__import__('os').mkdir('canary'))", "x = __import__('os')",
    "x):\n    __import__('os').mkdir('canary')\n  def f(self", "torch.ops.aten.from_file.default", "os.mkdir",
    "_operator.add",
    "torch.ops.aten.linear.default", "torch.ops.aten.cat.default", "torch.ops.aten.relu_.default",
    "torch.ops.aten.view.default", "torch.ops.aten.expand.default", "torch.ops.aten.embedding.default",
    "torch.ops.higher_order.cond", "L['x'].size()[0] == 3", [], {}, [[]], {"as_none": True}, {"as_int": 2**40},
    {"as_tensor": {"name": "x"}}, {"as_string": "x"}, {"as_ints": [0, 2**33]}, {"as_expr": {"expr_str": "s0"}},
)  # fmt: skip


class CodeWasRun(BaseException):
    """A changed program ran code."""


class Fuzzer:
    """Changes programs, and counts what comes of them."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._random = random.Random(seed)
        self._folder = folder
        self._programs = {name: check_rows(open_program(name)) for name in NAMES}
        self._parts = {name: read_parts(name) for name in NAMES}
        self._archives = {
            name: write_parts(folder / f"{name}.pt2", parts).read_bytes() for name, parts in self._parts.items()
        }
        self._expected = {name: self._run(program) for name, program in self._programs.items()}
        self.outcomes: Counter[str] = Counter()

    def once(self) -> None:
        """Change one program, read it, and run it where it is read."""
        name = self._random.choice(NAMES)
        path = self._folder / "changed.pt2"
        kind = self._random.choice([self._change_bytes, self._change_json, self._change_json, self._change_parts])
        is_whole = kind(name, path)
        try:
            with _limit(_SECONDS):
                got = self._run(check_rows(open_program(path)), like=self._programs[name])
        except SondeError:
            self.outcomes["refused"] += 1
        except TimeoutError:
            self.outcomes["took too long"] += 1
        except Exception as error:  # a program that is read may fail in PyTorch, as any model may
            self.outcomes["failed while it ran" if is_whole else f"unexpected {error!r}"] += 1
        else:
            same = got is not None and _equal(got, self._expected[name])
            self.outcomes["equal" if same else "another program" if is_whole else f"unequal {name}"] += 1

    def _run(self, program: Program, like: Program | None = None) -> Tensors | None:
        contract = (like or program).contract
        sample = sample_inputs(contract, 3)
        if sample is None or program.contract.signature() != contract.signature():
            return None
        torch.manual_seed(0)
        return program.run(sample)

    def _change_bytes(self, name: str, path: Path) -> bool:
        """Change bytes of the archive; the checksums then refuse it, or nothing that counts has changed."""
        content = bytearray(self._archives[name])
        for _ in range(self._random.choice([1, 1, 1, 3])):
            at, length = self._random.randrange(len(content)), self._random.choice([1, 1, 4, 64])
            match self._random.randrange(5):
                case 0:
                    content[at] ^= 1 << self._random.randrange(8)
                case 1:
                    del content[at : at + length]
                case 2:
                    content[at:at] = self._random.randbytes(length)
                case 3:
                    content[at : at + length] = self._random.randbytes(length)
                case _:
                    del content[at:]
            if not content:
                break
        path.write_bytes(content)
        return False

    def _change_json(self, name: str, path: Path) -> bool:
        """Change values of a JSON part, in an archive that is whole."""
        parts = dict(self._parts[name])
        part = self._random.choice([one for one in parts if one.endswith(".json")] + ["models/model.json"] * 4)
        content = json.loads(parts[part])
        of_nodes = part.endswith("model.json") and self._random.random() < 0.5
        for _ in range(self._random.choice([1, 1, 2, 4])):
            self._change_value(content["graph_module"]["graph"]["nodes"] if of_nodes else content)
        parts[part] = json.dumps(content).encode()
        write_parts(path, parts)
        return True

    def _change_value(self, content: Any) -> None:
        holders = list(_containers(content))
        if not holders:
            return
        holder = self._random.choice(holders)
        keys: list[Any] = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = self._random.choice(keys)
        match self._random.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case 2:
                other = self._random.choice(holders)
                holder[key] = copy.deepcopy(
                    self._random.choice(list(other.values()) if isinstance(other, dict) else other)
                )
            case 3 if isinstance(holder[key], int):
                holder[key] += self._random.choice([-1, 1, 2, 1000])
            case _:
                holder[key] = copy.deepcopy(self._random.choice(_VALUES))

    def _change_parts(self, name: str, path: Path) -> bool:
        """Change, rename, leave out or add parts."""
        parts = dict(self._parts[name])
        part = self._random.choice(list(parts))
        match self._random.randrange(5):
            case 0:
                del parts[part]
            case 1:
                parts[self._random.choice(["../x", "data/weights/weight_9", "models/b.json", "x" * 300])] = parts.pop(
                    part
                )
            case 2:
                parts[part] = parts[self._random.choice(list(parts))]
            case 3:
                content = bytearray(parts[part]) or bytearray(1)
                content[self._random.randrange(len(content))] ^= 1 << self._random.randrange(8)
                parts[part] = bytes(content)
            case _:
                parts["data/aotinductor/model/a.so"] = b"\x7fELF"
        with contextlib.suppress(ValueError):  # zipfile writes no such name
            write_parts(path, parts, self._random.choice([zipfile.ZIP_STORED] * 9 + [zipfile.ZIP_DEFLATED]))
        return True


def _containers(content: Any) -> Iterator[Any]:
    """All lists and objects that have something in them."""
    if isinstance(content, dict | list) and content:
        yield content
        for child in content.values() if isinstance(content, dict) else content:
            yield from _containers(child)


def _equal(got: Tensors, expected: Tensors | None) -> bool:
    return (
        expected is not None
        and list(got) == list(expected)
        and all(torch.equal(got[name].to_torch(), expected[name].to_torch()) for name in got)
    )


@contextlib.contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def interrupt(_: int, __: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _forbid_code(folder: Path) -> Callable[[str, tuple[Any, ...]], None]:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if event in _FORBIDDEN or (writes and not str(arguments[0]).startswith(str(folder))):
            raise CodeWasRun(f"{event} {arguments!r}"[:500])

    return hook


def main(seed: int, count: int, folder: Path) -> None:
    """Change `count` programs, and print what came of them."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()
    fuzzer = Fuzzer(seed, folder)
    sys.addaudithook(_forbid_code(folder))
    for _ in range(count):
        fuzzer.once()
    print(json.dumps(fuzzer.outcomes))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
