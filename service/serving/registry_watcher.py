"""The trained models in service, kept in step with the registry: loaded beside the old, checked, swapped, the old
let go.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from models.errors import BadName, NotRegistered, SondeError
from models.registry.names import parse_name
from models.registry.registry import Pointer, Registry
from service.engine.engine import Engine
from service.errors import ModelNotFound, Unservable
from service.metrics import Metrics
from service.serving.fine_tuned import LiveVersion
from service.serving.sensor_model import ServedSensor

log = logging.getLogger(__name__)

# Versions other than the current one, asked for by number.
_MOST_PINNED = 2
# When to try again what could not be loaded, while the registry says nothing new.
_RETRY_S = 30.0
REGISTRY = "registry"


class RegistryWatcher:
    """What serves under a trained model's name, and up to two other versions that were asked for by number.

    A thread of its own compares the registry's stamp. Readers see whole mappings that are replaced, never changed.
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
        self._generations: dict[str, int] = {}
        self._problems: Mapping[str, str] = {}
        self._failed: dict[str, tuple[str, float]] = {}
        self._idle: frozenset[str] = frozenset()
        self._pinned: OrderedDict[str, LiveVersion] = OrderedDict()
        self._pinning = threading.Lock()
        self._loading = threading.Lock()
        self._retired: list[tuple[weakref.ref[LiveVersion], Engine[Any], str]] = []
        self._stamp: object = None
        self._retry_at = float("inf")
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="watch-registry", daemon=True)

    # --- for requests
    # ---------------------------------------------------------------------------------------------------

    def version_of(self, asked: str) -> tuple[str, int] | None:
        """The name and version that `asked` means, where it names a version: what `fetch` can load if `find` has not
        got it.
        """
        meant = self._alias_target(asked)
        return None if meant is None or meant[1] is None else (meant[0], meant[1])

    def find(self, asked: str) -> LiveVersion | None:
        """What serves under a name, a name with version, or an alias; None when it is no such name.

        Raises Unservable when it ought to serve and cannot, and ModelNotFound when nothing of it is in service.
        """
        meant = self._alias_target(asked)
        if meant is None:
            return None
        name, version = meant
        found = self.current.get(name) if version is None else self._loaded(name, version)
        if found is None and version is None and name in self._problems:
            raise Unservable(
                f"{name} cannot be served: {self._problems[name]}", param="model", retry_after_s=round(_RETRY_S)
            )
        if found is None and version is None and name in self._idle:
            raise ModelNotFound(
                f"{name} has no version in service: promote one, or ask for one like {name}:v1", param="model"
            )
        return found

    def fetch(self, name: str, version: int) -> LiveVersion:
        """Load a version that is not the current one. Blocks. Raises ModelNotFound, and Unservable when it cannot be
        served.
        """
        label = f"{name}:v{version}"
        with self._loading:
            if found := self._loaded(name, version):
                return found
            reason = self._failed_lately(label)
            if reason is None:
                try:
                    return self._pin(label, self._load(name, version))
                except NotRegistered as error:
                    raise ModelNotFound(error.message, param="model") from error
                except Exception as error:  # whatever a broken artifact makes a library raise
                    reason = self._report(name, label, error)
        raise Unservable(f"{label} cannot be served: {reason}", param="model", retry_after_s=round(_RETRY_S))

    # --- for the hub
    # ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Load what is in service and keep watching."""
        self.sync()
        self._thread.start()

    def poke(self) -> None:
        """Look at the registry now."""
        self._wake.set()

    def sync(self) -> None:
        """Serve what the registry says. What fails is reported, and what served before serves on."""
        try:
            stamp = self._registry.stamp()
            if stamp != self._stamp or self._clock() >= self._retry_at:
                self._follow()
                self._stamp = stamp
            self._forget_deleted()
        except Exception as error:  # a disk that does not answer; the thread must live on
            self._report(REGISTRY, REGISTRY, error)
        self._close_unused()

    def close(self) -> None:
        """Stop watching and end the engines of trained models."""
        self._closed = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._loading:
            for trained in [*self.current.values(), *self._pinned.values()]:
                self._retire(trained)
            for _, engine, _ in self._retired:
                engine.close()

    # --- steps
    # ----------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._closed:
            self._wake.wait(self._poll_s)
            self._wake.clear()
            if not self._closed:
                self.sync()

    def _follow(self) -> None:
        """Bring every name to where its pointer is."""
        names = self._registry.names()
        problems = {name: problem for name in names if (problem := self._swapped(name)) is not None}
        for name in set(self.current) - set(names):
            self._withdraw(name)
        self._problems = problems
        self._idle = frozenset(set(names) - set(self.current) - set(problems))
        self._retry_at = self._clock() + _RETRY_S if problems else float("inf")
        self.aliases = self._registry.aliases()

    def _swapped(self, name: str) -> str | None:
        """Have a name serve what its pointer says; why that is not possible, if it is not."""
        attempt = name
        try:
            pointer = self._registry.current(name)
            if pointer is None:
                if name in self.current:
                    self._withdraw(name)
                return None
            attempt = f"{name}:v{pointer.version}, generation {pointer.generation}"
            if self._generations.get(name) == pointer.generation:
                return None
            if reason := self._failed_lately(attempt):
                return reason
            self._swap(name, pointer)
        except Exception as error:  # whatever a broken artifact makes a library raise
            return self._report(name, attempt, error)
        return None

    def _swap(self, name: str, pointer: Pointer) -> None:
        """Load what the pointer names beside what serves, and put it in its place."""
        with self._loading:
            old = self.current.get(name)
            new = self._loaded(name, pointer.version) or self._load(name, pointer.version)
            self.current = {**self.current, name: new}
            self._generations[name] = pointer.generation
            self._unpin(new.label)
        self._metrics.model_generation.labels(name).set(pointer.generation)
        if new is not old:
            self._export_metrics(new, in_service=True)
            log.info(
                "model in service",
                extra={"model": new.label, "generation": pointer.generation, "device": new.card.device},
            )
        if old is not None and new is not old:
            self._retire(old)

    def _withdraw(self, name: str) -> None:
        old = self.current[name]
        self.current = {other: trained for other, trained in self.current.items() if other != name}
        self._generations.pop(name, None)
        self._metrics.model_generation.remove(name)
        log.info("model out of service", extra={"model": old.label})
        self._retire(old)

    def _pin(self, label: str, trained: LiveVersion) -> LiveVersion:
        with self._pinning:
            self._pinned[label] = trained
            surplus = [self._pinned.popitem(last=False)[1] for _ in range(len(self._pinned) - _MOST_PINNED)]
        self._export_metrics(trained, in_service=True)
        for old in surplus:
            self._retire(old)
        return trained

    def _unpin(self, label: str) -> LiveVersion | None:
        with self._pinning:
            return self._pinned.pop(label, None)

    def _forget_deleted(self) -> None:
        with self._pinning:
            pinned = list(self._pinned.values())
        for trained in pinned:
            if trained.manifest.version not in self._registry.versions(trained.manifest.name) and self._unpin(
                trained.label
            ):
                self._retire(trained)

    def _retire(self, trained: LiveVersion) -> None:
        """Nobody gets it any more; whoever has it may finish."""
        self._export_metrics(trained, in_service=False)
        if trained.owns_engine:
            self._retired.append((weakref.ref(trained), trained.engine, trained.label))

    def _close_unused(self) -> None:
        """End the engines of models that no request holds."""
        unused = [entry for entry in self._retired if entry[0]() is None]
        for entry in unused:
            self._retired.remove(entry)
            entry[1].close()
            log.info("model unloaded", extra={"model": entry[2]})

    def _export_metrics(self, trained: LiveVersion, *, in_service: bool) -> None:
        card = trained.card
        labels = (card.name, card.version, card.task, card.device, card.dtype)
        if in_service:
            self._metrics.announce(card.name)
            self._metrics.model_info.labels(*labels).set(1)
        else:
            self._metrics.model_info.remove(*labels)
            if isinstance(trained, ServedSensor):
                self._metrics.drift.remove(card.name, card.version)

    def _report(self, name: str, label: str, error: Exception) -> str:
        """Count and log a failure; why it failed, in words that may go to a caller."""
        self._metrics.reload_failures.labels(name).inc()
        known = isinstance(error, SondeError)
        reason = error.message if isinstance(error, SondeError) else "its files cannot be read; the log says more"
        self._failed[label] = (reason, self._clock() + _RETRY_S)
        log.error(
            "reload failed, what served before serves on: %s: %s", label, reason, exc_info=None if known else error
        )
        return reason

    def _failed_lately(self, label: str) -> str | None:
        reason, until = self._failed.get(label, (None, 0.0))
        if self._clock() < until:
            return reason
        self._failed.pop(label, None)
        return None

    def _alias_target(self, asked: str) -> tuple[str, int | None] | None:
        try:
            return parse_name(self.aliases.get(asked, asked))
        except BadName:
            return None

    def _loaded(self, name: str, version: int) -> LiveVersion | None:
        current = self.current.get(name)
        if current is not None and current.manifest.version == version:
            return current
        with self._pinning:
            label = f"{name}:v{version}"
            if label in self._pinned:
                self._pinned.move_to_end(label)
            return self._pinned.get(label)
