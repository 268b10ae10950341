"""The registry watcher: keeps the fine-tuned models in service in step with the registry."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from models.errors import BadName, NotRegistered, RegistryDamaged
from models.registry.names import is_alias, parse_name
from models.registry.pointer_history import Move
from models.registry.registry import Registry
from service.errors import ModelNotFound, Unservable
from service.metrics import Metrics
from service.serving.fine_tuned import LiveVersion
from service.serving.load_failures import RETRY_S, LoadFailures
from service.serving.pinned_versions import PinnedVersions
from service.serving.retired_versions import RetiredVersions
from service.serving.sensor_model import ServedSensor

log = logging.getLogger(__name__)

# The `model` label of failures to read the registry itself, and the label of those to read its aliases.
REGISTRY = "registry"
_ALIASES = "aliases"


class RegistryWatcher:
    """The current version of each fine-tuned model, and a few that requests name by number.

    A thread polls the registry's stamp. It loads a new version beside the old one, swaps them, and retires the old one.
    `current` and `aliases` are replaced, never changed, so that readers on other threads see whole mappings.

    What serves goes on when the registry is damaged, lost or older than it was. A generation in service never falls: an
    older pointer comes from a backup, and its promotion was replaced by a later decision. A new move ends that.
    """

    def __init__(
        self,
        registry: Registry,
        load: Callable[[str, int], LiveVersion],
        metrics: Metrics,
        *,
        poll_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.current: Mapping[str, LiveVersion] = {}
        self.aliases: Mapping[str, str] = {}
        self._registry = registry
        self._load = load
        self._metrics = metrics
        self._poll_s = poll_s
        self._clock = clock
        self._pinned = PinnedVersions()
        self._retired = RetiredVersions()
        self._failures = LoadFailures(metrics, clock)
        self._generations: dict[str, int] = {}
        self._problems: Mapping[str, str] = {}
        self._aliases_problem: str | None = None
        self._without_version: frozenset[str] = frozenset()
        self._loading = threading.Lock()
        self._syncing = threading.Lock()
        self._synced_at = 0.0
        self._stamp: object = None
        self._retry_at = float("inf")
        self._wakeup = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="watch-registry", daemon=True)

    def find(self, asked: str) -> LiveVersion | None:
        """The loaded version that a name, with or without version, or an alias means, or None.

        Raises Unservable for a current version that failed to load, and for an unknown alias while the aliases cannot
        be read; ModelNotFound for a model without a version in service.
        """
        target = self._parse(asked)
        if target is None:
            if self._aliases_problem is not None and is_alias(asked):
                raise _unservable(asked, self._aliases_problem)
            return None
        name, version = target
        if version is not None:
            return self._loaded(name, version)
        if (found := self.current.get(name)) is not None:
            return found
        if name in self._problems:
            raise _unservable(name, self._problems[name])
        if name in self._without_version:
            message = f"{name} has no version in service: promote one, or ask for one like {name}:v1"
            raise ModelNotFound(message, param="model")
        return None

    def version_of(self, asked: str) -> tuple[str, int] | None:
        """The name and version to `fetch` where `asked` names a version; None otherwise."""
        target = self._parse(asked)
        return None if target is None or target[1] is None else (target[0], target[1])

    def problem(self, name: str) -> str | None:
        """Why a name's last change could not be followed, or None."""
        return self._problems.get(name)

    def generation(self, name: str) -> int:
        """The generation of a name in service; 0 without one."""
        return self._generations.get(name, 0)

    def fetch(self, name: str, version: int) -> LiveVersion:
        """Load a version that is not the current one. Blocks. Raises ModelNotFound and Unservable."""
        label = f"{name}:v{version}"
        with self._loading:
            if found := self._loaded(name, version):
                return found
            reason = self._failures.recent(label)
            if reason is None:
                try:
                    return self._pin(self._load(name, version))
                except NotRegistered as error:
                    raise ModelNotFound(error.message, param="model") from error
                except Exception as error:  # a broken artifact may make a library raise anything
                    reason = self._failures.record(name, label, error)
        raise _unservable(label, reason)

    def open(self) -> None:
        """Load the current versions and keep watching."""
        self.sync()
        self._thread.start()

    def poke(self) -> None:
        """Check the registry now."""
        self._wakeup.set()

    def look(self, since: float) -> None:
        """Follow the registry unless that began after `since`, in monotonic seconds. Blocks while a version loads."""
        with self._syncing:
            if self._synced_at <= since:
                self._sync()

    def sync(self) -> None:
        """Follow the registry once. If a version fails to load, the old one stays in service."""
        with self._syncing:
            self._sync()

    def _sync(self) -> None:
        self._synced_at = time.monotonic()
        try:
            stamp = self._registry.stamp()
            if stamp != self._stamp or self._clock() >= self._retry_at:
                self._follow_registry()
                self._stamp = stamp
            self._unpin_deleted()
            self._failures.clear(REGISTRY)
        except Exception as error:  # a disk that does not answer must not end the thread
            self._failures.record(REGISTRY, REGISTRY, error)
            self._metrics.registry_problems.set(len(self._problems) + 1)
        self._retired.close_unused()

    def close(self) -> None:
        """Stop watching and close the engines of fine-tuned models."""
        self._closed = True
        self._wakeup.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._loading:
            for version in [*self.current.values(), *self._pinned.all()]:
                self._retire(version)
            self._retired.close_all()

    def _watch(self) -> None:
        while not self._closed:
            self._wakeup.wait(self._poll_s)
            self._wakeup.clear()
            if not self._closed:
                self.sync()

    def _follow_registry(self) -> None:
        """Bring every name to the version that its pointer names."""
        registered = set(self._registry.names())
        names = sorted(registered | set(self.current))
        problems = {name: problem for name in names if (problem := self._follow_pointer(name)) is not None}
        self._problems = problems
        self._without_version = frozenset(registered - set(self.current) - set(problems))
        self._aliases_problem = self._follow_aliases()
        count = len(problems) + (self._aliases_problem is not None)
        self._metrics.registry_problems.set(count)
        self._retry_at = self._clock() + RETRY_S if count else float("inf")

    def _follow_aliases(self) -> str | None:
        """Read the aliases; return the reason of a failure."""
        try:
            self.aliases = self._registry.aliases(known=bool(self.aliases))
        except Exception as error:  # as for a pointer
            return self._failures.record(REGISTRY, _ALIASES, error)
        self._failures.clear(_ALIASES)
        return None

    def _follow_pointer(self, name: str) -> str | None:
        """Bring one name to the version that its pointer names; return the reason of a failure."""
        label = name
        try:
            move = self._registry.last_move(name)
            if not self._is_followed(name, move):
                label = f"{name}:v{move.version}, generation {move.generation}"
                if reason := self._failures.recent(label):
                    return reason
                self._follow(name, move)
        except Exception as error:  # a broken artifact may make a library raise anything
            return self._failures.record(name, label, error)
        for failed in {name, label}:
            self._failures.clear(failed)
        return None

    def _is_followed(self, name: str, move: Move) -> bool:
        """Whether a move is the one in service. Raises RegistryDamaged for one that is older."""
        served = self.current.get(name)
        if served is None:
            return move.version is None
        generation = self._generations[name]
        if (move.generation, move.version) == (generation, served.manifest.version):
            return True
        if move.generation <= generation:
            raise RegistryDamaged(
                f"{name} serves generation {generation} and the registry has {move.generation}: restore its newer "
                f"files, or promote a version"
            )
        return False

    def _follow(self, name: str, move: Move) -> None:
        if move.version is None:
            self._withdraw(name)
        else:
            self._swap(name, move.version, move.generation)

    def _swap(self, name: str, version: int, generation: int) -> None:
        """Load the pointer's version beside the current one and put it in its place."""
        with self._loading:
            old = self.current.get(name)
            new = self._loaded(name, version) or self._load(name, version)
            self.current = {**self.current, name: new}
            self._generations[name] = generation
            self._pinned.remove(new.label)
        self._metrics.model_generation.labels(name).set(generation)
        if new is old:
            return
        self._export_metrics(new)
        facts = {"model": new.label, "generation": generation, "device": new.metadata.device}
        log.info("model in service", extra=facts)
        if old is not None:
            self._retire(old)

    def _withdraw(self, name: str) -> None:
        old = self.current[name]
        self.current = {other: version for other, version in self.current.items() if other != name}
        self._generations.pop(name, None)
        self._metrics.model_generation.remove(name)
        log.info("model out of service", extra={"model": old.label})
        self._retire(old)

    def _pin(self, version: LiveVersion) -> LiveVersion:
        surplus = self._pinned.add(version)
        self._export_metrics(version)
        for old in surplus:
            self._retire(old)
        return version

    def _unpin_deleted(self) -> None:
        for version in self._pinned.all():
            manifest = version.manifest
            deleted = self._registry.is_deleted(manifest.name, manifest.version)
            if deleted and self._pinned.remove(version.label):
                self._retire(version)

    def _retire(self, version: LiveVersion) -> None:
        """Take a version out of service; requests that hold it finish."""
        metadata = version.metadata
        self._metrics.take_out_of_service(metadata)
        if isinstance(version, ServedSensor):
            self._metrics.drift.remove(metadata.name, metadata.version)
        self._retired.add(version)

    def _export_metrics(self, version: LiveVersion) -> None:
        metadata = version.metadata
        self._metrics.announce(metadata.name)
        self._metrics.put_in_service(metadata)

    def _parse(self, asked: str) -> tuple[str, int | None] | None:
        """The name and version (None: the current one) of `asked`; None for an impossible name."""
        try:
            return parse_name(self.aliases.get(asked, asked))
        except BadName:
            return None

    def _loaded(self, name: str, version: int) -> LiveVersion | None:
        current = self.current.get(name)
        if current is not None and current.manifest.version == version:
            return current
        return self._pinned.get(f"{name}:v{version}")


def _unservable(label: str, reason: str) -> Unservable:
    return Unservable(f"{label} cannot be served: {reason}", param="model", retry_after_s=round(RETRY_S))
