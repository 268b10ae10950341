"""Trained models by name and version: published once, promoted by moving a pointer, rolled back by moving it again.

<root>/<name, ":" as "--">/versions/<n>/     an artifact, see `models.artifact`
                           versions/<n>.deleted   that number is used up
                           current.json      which version serves, and the record of how that came about
                           ledger.jsonl      all such records
<root>/aliases.json
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.artifact import Manifest, publish, read_manifest, verify
from models.durable import make_directory, replace_file, sweep, sync
from models.errors import BadName, NotRegistered, RegistryConflict, RegistryError

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_NAME = re.compile(rf"ft:{_PART}:{_PART}:{_PART}", re.ASCII)
_WITH_VERSION = re.compile(rf"(ft:{_PART}:{_PART}:{_PART}):v([1-9][0-9]{{0,8}})", re.ASCII)
_ALIAS = re.compile(_PART, re.ASCII)
# For who writes down what names look like.
ALIAS_PATTERN = _PART
NAME_PATTERN = rf"ft:{_PART}:{_PART}:{_PART}(:v[1-9][0-9]{{0,8}})?"
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_SEPARATOR = re.compile(r"--(?!-)")
_DELETED = ".deleted"

Move = Literal["promote", "rollback", "withdraw"]


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version serves, which served before, and how often that has changed."""

    version: int
    generation: int
    previous: int | None


def model_name(base: str, org: str, suffix: str) -> str:
    """The name of a model trained on `base`, of which only the part after the last "/" counts. Raises BadName."""
    name = f"ft:{base.rpartition('/')[2]}:{org}:{suffix}"
    check_name(name)
    return name


def check_name(name: str) -> None:
    """Raise BadName unless `name` is one that a trained model may have."""
    # "--" stands for ":" on disk, so a part that has it could be taken for two.
    if not _NAME.fullmatch(name) or "--" in name:
        raise BadName(
            f"expected ft:BASE:ORGANISATION:SUFFIX, each part 1 to 64 letters, digits, '.', '_', '-' without '--', got {name[:300]!r}",
            param="model",
        )


def parse_name(asked: str) -> tuple[str, int | None]:
    """`ft:a:b:c` or `ft:a:b:c:v3` → (name, version). Raises BadName."""
    versioned = _WITH_VERSION.fullmatch(asked)
    name, version = (versioned[1], int(versioned[2])) if versioned else (asked, None)
    check_name(name)
    return name, version


def check_alias(alias: str) -> None:
    """Raise BadName unless `alias` is one that a model may have."""
    if not _ALIAS.fullmatch(alias):
        raise BadName(f"an alias has 1 to 64 letters, digits, '.', '_', '-', got {alias[:300]!r}", param="alias")


class Registry:
    """The trained models below a directory. Safe between threads and processes of machines that share it (`flock`).

    Whatever changes does so in one step, so that a power cut leaves the old or the new; see `models.durable`.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock

    # --- reading --------------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Every name that has a version, sorted."""
        return sorted(name for directory in self._directories() if (name := _name_of(directory.name)) and self.versions(name))

    def versions(self, name: str) -> list[int]:
        """The versions of a name, ascending; none for a name that is not there. Raises BadName."""
        return _numbers(self._directory(name) / "versions")

    def path(self, name: str, version: int) -> Path:
        """The directory of a version. Raises NotRegistered."""
        if version not in self.versions(name):
            there = ", ".join(f"v{one}" for one in self.versions(name)) or "none"
            raise NotRegistered(f"{name} has no version {version}; there is: {there}", param="model")
        return self._directory(name) / "versions" / str(version)

    def manifest(self, name: str, version: int) -> Manifest:
        """The manifest of a version, its files not looked at. Raises NotRegistered and ArtifactError."""
        return read_manifest(self.path(name, version))

    def published(self, name: str, job: str) -> int | None:
        """The version that a job has published, if it has: what a publication that may be a repetition asks first."""
        return next((version for version in self.versions(name) if self.manifest(name, version).job == job), None)

    def current(self, name: str) -> Pointer | None:
        """Which version serves; None when none does."""
        record = self._record(name)
        if record is None or record["version"] is None:
            return None
        return Pointer(record["version"], record["generation"], record["previous"])

    def generation(self, name: str) -> int:
        """How often the pointer of a name was moved; what `promote` may be told to expect."""
        record = self._record(name)
        return record["generation"] if record else 0

    def previous(self, name: str) -> int | None:
        """What a rollback leads to; also where a name is out of service."""
        record = self._record(name)
        return record["previous"] if record else None

    def ledger(self, name: str) -> list[dict[str, Any]]:
        """Who promoted, rolled back, withdrew, published and deleted what, when and why, oldest first."""
        lines = _lines(self._directory(name) / "ledger.jsonl")
        return lines + self._unrecorded(name, lines)

    def aliases(self) -> dict[str, str]:
        """Target by alias."""
        read = _read_json(self._root / "aliases.json")
        return {} if read is None else {str(alias): str(target) for alias, target in read.items()}

    def stamp(self) -> object:
        """A value that differs after any pointer, alias or set of versions has changed, cheap enough to ask for every second."""
        state = [(one.name, _bytes(one / "current.json"), _numbers(one / "versions")) for one in self._directories()]
        return state, _bytes(self._root / "aliases.json")

    # --- writing --------------------------------------------------------------------------------------------------------

    def publish(self, name: str, staging: Path, make: Callable[[int], Manifest]) -> int:
        """Make a version of the files in `staging`, described by `make(its number)`; return the number.

        Numbers are never used again. Raises ArtifactError when a file may not be in an artifact.
        """
        versions = self._directory(name) / "versions"
        make_directory(versions)
        with self._alone(name) as directory:
            _sweep(versions)
            version = 1 + max(_numbers(versions, used_up=True), default=0)
            manifest = make(version)
            if (manifest.name, manifest.version) != (name, version):
                raise RegistryError(f"the manifest is of {manifest.name}:v{manifest.version}, expected {name}:v{version}")
            publish(staging, versions / str(version), manifest)
            self._log(directory, {"action": "publish", "version": version, "by": manifest.job, "why": ""})
            return version

    def promote(self, name: str, version: int, *, by: str, why: str, expected: int | None = None) -> Pointer:
        """Put a version in service; one that serves already stays, without a new generation.

        `expected` is the generation that the decision was made on. Raises RegistryConflict when there has been another since,
        NotRegistered, and ArtifactError when the files are not what was published.
        """
        verify(self.path(name, version))
        with self._alone(name) as directory:
            return self._move(directory, name, version, "promote", by, why, expected)

    def rollback(self, name: str, *, by: str, why: str) -> Pointer:
        """Put the version back in service that served before. Raises RegistryConflict when there is none."""
        expected, previous = self.generation(name), self.previous(name)
        if previous is None or previous not in self.versions(name):
            was = "no version served before" if previous is None else f"version {previous} was deleted"
            raise RegistryConflict(f"{name} cannot be rolled back: {was}", param="model")
        verify(self.path(name, previous))
        with self._alone(name) as directory:
            return self._move(directory, name, previous, "rollback", by, why, expected)

    def withdraw(self, name: str, *, by: str, why: str) -> None:
        """Take a name out of service; `promote` or `rollback` puts it back. Raises RegistryConflict when it is not in service."""
        with self._alone(name) as directory:
            if self.current(name) is None:
                raise RegistryConflict(f"{name} is not in service", param="model")
            self._move(directory, name, None, "withdraw", by, why, None)

    def delete(self, name: str, version: int, *, by: str = "") -> None:
        """Delete a version for good. Raises RegistryConflict for the one in service and for one that an alias names."""
        with self._alone(name) as directory, self._alone_with_aliases():
            self.path(name, version)
            self._refuse_in_use(name, [version])
            self._bury(directory, [version], by)

    def delete_all(self, name: str, *, by: str = "") -> None:
        """Delete every version of a name. Raises RegistryConflict while one is in service or an alias names it."""
        with self._alone(name) as directory, self._alone_with_aliases():
            self._refuse_in_use(name, self.versions(name))
            if named := [alias for alias, target in self.aliases().items() if target == name]:
                raise RegistryConflict(f"{name} is what alias {named[0]!r} means: remove the alias first", param="model")
            self._bury(directory, self.versions(name), by)

    def set_alias(self, alias: str, target: str) -> None:
        """Have `alias` mean a name, or one version of it. Raises BadName and NotRegistered."""
        check_alias(alias)
        name, version = parse_name(target)
        with self._alone_with_aliases():
            self._require(name, version)
            self._write_aliases({**self.aliases(), alias: target})

    def remove_alias(self, alias: str) -> None:
        """Forget an alias. Raises NotRegistered when there is none."""
        with self._alone_with_aliases():
            aliases = self.aliases()
            if alias not in aliases:
                raise NotRegistered(f"there is no alias {alias[:300]!r}", param="alias")
            self._write_aliases({key: target for key, target in aliases.items() if key != alias})

    # --- steps ----------------------------------------------------------------------------------------------------------

    def _move(self, directory: Path, name: str, version: int | None, action: Move, by: str, why: str, expected: int | None) -> Pointer:
        """The step itself, for who is alone with the name: pointer first, with its record in it, ledger second."""
        before = self._record(name) or {"version": None, "generation": 0, "previous": None}
        if expected is not None and before["generation"] != expected:
            raise RegistryConflict(
                f"{name} is at generation {before['generation']}, expected {expected}: somebody else was faster", param="model"
            )
        if version is not None:
            self.path(name, version)
        if version is not None and version == before["version"]:
            return Pointer(version, before["generation"], before["previous"])
        # What a power cut kept out of the ledger would be lost with the record that is overwritten now.
        for line in self._unrecorded(name, _lines(directory / "ledger.jsonl")):
            self._append(directory, line)
        previous = before["version"] if before["version"] is not None else before["previous"]
        record = self._stamped({"action": action, "version": version, "by": by, "why": why})
        record |= {"generation": before["generation"] + 1, "previous": previous}
        replace_file(directory / "current.json", json.dumps(record).encode())
        self._append(directory, record)
        return Pointer(version or 0, record["generation"], previous)

    def _bury(self, directory: Path, versions: list[int], by: str) -> None:
        """The mark is what deletes; the files go after it, now or, after a power cut, never to be seen."""
        for version in versions:
            (directory / "versions" / f"{version}{_DELETED}").touch()
            sync(directory / "versions")
            self._log(directory, {"action": "delete", "version": version, "by": by, "why": ""})
            shutil.rmtree(directory / "versions" / str(version))

    def _refuse_in_use(self, name: str, versions: list[int]) -> None:
        now = self.current(name)
        for version in versions:
            if now is not None and now.version == version:
                raise RegistryConflict(f"{name}:v{version} is in service: promote another or withdraw it first", param="model")
            if named := [alias for alias, target in self.aliases().items() if target == f"{name}:v{version}"]:
                raise RegistryConflict(f"{name}:v{version} is what alias {named[0]!r} means: remove the alias first", param="model")

    def _require(self, name: str, version: int | None) -> None:
        if version is not None:
            self.path(name, version)
        elif not self.versions(name):
            raise NotRegistered(f"there is no trained model {name}", param="model")

    def _record(self, name: str) -> dict[str, Any] | None:
        """What the last move wrote; None when there was none."""
        path = self._directory(name) / "current.json"
        read = _read_json(path)
        if read is not None and not {"version", "generation", "previous"} <= read.keys():
            raise RegistryError(f"{path} is no pointer of ours")
        return read

    def _unrecorded(self, name: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The last move, where a power cut came between pointer and ledger."""
        record = self._record(name)
        if record is None or any(line.get("generation") == record["generation"] for line in lines):
            return []
        return [record]

    def _log(self, directory: Path, entry: dict[str, Any]) -> None:
        self._append(directory, self._stamped(entry))

    def _stamped(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {"at": int(self._clock()), **entry}

    def _append(self, directory: Path, entry: dict[str, Any]) -> None:
        """One more line; half a line, which a power cut may have left, is cut off before."""
        path = directory / "ledger.jsonl"
        with path.open("ab+") as stream:
            stream.seek(0)
            content = stream.read()
            stream.truncate(content.rfind(b"\n") + 1)
            stream.write(json.dumps(entry).encode() + b"\n")
        sync(path)

    def _write_aliases(self, aliases: dict[str, str]) -> None:
        replace_file(self._root / "aliases.json", json.dumps(aliases, indent=1, sort_keys=True).encode())

    # --- places ---------------------------------------------------------------------------------------------------------

    def _directory(self, name: str) -> Path:
        """Where a name lies: made of nothing but characters that `check_name` let through."""
        check_name(name)
        return self._root / name.replace(":", "--")

    def _directories(self) -> list[Path]:
        if not self._root.is_dir():
            return []
        return sorted(path for path in self._root.iterdir() if _name_of(path.name) and path.is_dir() and not path.is_symlink())

    @contextmanager
    def _alone(self, name: str) -> Iterator[Path]:
        """Keep others from changing this name meanwhile. Raises NotRegistered for one that was never published."""
        directory = self._directory(name)
        if not directory.is_dir():
            raise NotRegistered(f"there is no trained model {name}", param="model")
        with _locked(directory / ".lock"):
            yield directory

    @contextmanager
    def _alone_with_aliases(self) -> Iterator[None]:
        make_directory(self._root)
        with _locked(self._root / ".aliases.lock"):
            yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _name_of(directory: str) -> str | None:
    """The name that a directory stands for, if it does."""
    name = _SEPARATOR.sub(":", directory)
    return name if _NAME.fullmatch(name) and "--" not in name else None


def _numbers(versions: Path, *, used_up: bool = False) -> list[int]:
    """The versions that are there; with `used_up`, also those that were deleted."""
    if not versions.is_dir():
        return []
    names = {path.name for path in versions.iterdir() if not path.is_symlink()}
    deleted = {name.removesuffix(_DELETED) for name in names if name.endswith(_DELETED)}
    return sorted(int(name) for name in (names | deleted if used_up else names - deleted) if _VERSION.fullmatch(name))


def _sweep(versions: Path) -> None:
    """Remove what publications and deletions left that a power cut ended."""
    sweep(versions)
    for mark in versions.glob(f"*{_DELETED}"):
        if mark.with_suffix("").is_dir():
            shutil.rmtree(mark.with_suffix(""))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _read_json(path: Path) -> dict[str, Any] | None:
    content = _bytes(path)
    if not content:
        return None
    try:
        read = json.loads(content)
    except ValueError as error:
        raise RegistryError(f"{path} is not JSON: {error}") from error
    if not isinstance(read, dict):
        raise RegistryError(f"{path}: expected a JSON object, got {type(read).__name__}")
    return read


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a ledger."""
    try:
        return [json.loads(line) for line in _bytes(path).splitlines(keepends=True) if line.endswith(b"\n")]
    except ValueError as error:
        raise RegistryError(f"{path} has a line that is not JSON: {error}") from error
