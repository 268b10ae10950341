"""Embeddings by a frozen encoder, cached on disk by content."""

from __future__ import annotations

import fcntl
import hashlib
import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.linalg import normalize
from models.metadata import ModelMetadata
from models.text.model import TextModel
from models.text.tokenization import Tokens
from models.training.job_events import Events, ProgressEvents

Floats = NDArray[np.float32]
# Embeddings [n, d] of texts, or of images by their keys.
Embed = Callable[[Sequence[str]], Floats]

MAX_BYTES = 2 * 1024**3
_BATCH_TOKENS = 4096
_BATCH_TEXTS = 64
# Keys of one statement; SQLite allows 32,766 parameters.
_MAX_KEYS = 1000
_LOCK_TIMEOUT_S = 30.0


class RowEncoder(Protocol):
    """What gives rows float32 [n, d] of inputs."""

    @property
    def metadata(self) -> ModelMetadata: ...

    def forward(self, batch: Sequence[Any]) -> Floats:
        """Compute the rows, in order."""
        ...


class EmbeddingCache:
    """Rows float32 [d] by 32-byte keys in one SQLite file; several processes may share it.

    A row is written in a transaction or not at all. Beyond `max_bytes` the rows longest unused are deleted.
    """

    def __init__(self, directory: Path, max_bytes: int = MAX_BYTES) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "embeddings.sqlite"
        self._max_bytes = max_bytes
        # SQLite ignores the timeout where two processes turn the same new file to WAL.
        with (directory / "embeddings.lock").open("wb") as lock, closing(self._connect()) as database, database:
            fcntl.flock(lock, fcntl.LOCK_EX)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, row BLOB NOT NULL, used INTEGER NOT NULL) "
                "WITHOUT ROWID"
            )
            database.execute("CREATE INDEX IF NOT EXISTS rows_used ON rows (used)")

    def get(self, keys: Sequence[bytes], width: int) -> dict[bytes, Floats]:
        """The cached rows [width]; one of another width counts as missing."""
        found: dict[bytes, Floats] = {}
        with closing(self._connect()) as database, database:
            used = self._now(database)
            for part in _split_keys(keys):
                places = ",".join("?" * len(part))
                rows = database.execute(f"SELECT key, row FROM rows WHERE key IN ({places})", part)  # noqa: S608 - question marks only
                found.update(
                    (bytes(key), np.frombuffer(row, dtype="<f4")) for key, row in rows if len(row) == 4 * width
                )
                database.execute(f"UPDATE rows SET used = ? WHERE key IN ({places})", [used, *part])  # noqa: S608
        return found

    def put(self, rows: Iterable[tuple[bytes, Floats]]) -> None:
        """Store rows; then delete the ones longest unused until the rest fits."""
        with closing(self._connect()) as database, database:
            used = self._now(database)
            database.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?, ?)",
                ((key, row.astype("<f4").tobytes(), used) for key, row in rows),
            )
            self._shrink(database)

    def size_bytes(self) -> int:
        """Bytes of all rows."""
        with closing(self._connect()) as database:
            return int(database.execute("SELECT COALESCE(SUM(LENGTH(row)), 0) FROM rows").fetchone()[0])

    def _shrink(self, database: sqlite3.Connection) -> None:
        total, count = database.execute("SELECT COALESCE(SUM(LENGTH(row)), 0), COUNT(*) FROM rows").fetchone()
        if total > self._max_bytes:
            surplus = -(-(total - self._max_bytes) * count // total)
            database.execute("DELETE FROM rows WHERE key IN (SELECT key FROM rows ORDER BY used LIMIT ?)", (surplus,))

    def _now(self, database: sqlite3.Connection) -> int:
        """A count of uses; the time of day may jump."""
        return int(database.execute("SELECT COALESCE(MAX(used), 0) + 1 FROM rows").fetchone()[0])

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT_S)


class CachedEmbedder(ABC):
    """Texts, or images by their keys, to embeddings of length 1, through a cache.

    An embedding depends on weights, precision (bfloat16 differs), and what `settings` has.
    """

    def __init__(
        self, model: RowEncoder, settings: list[object], cache: EmbeddingCache | None, events: Events | None
    ) -> None:
        self._encoder = model
        self._cache = cache
        self._events = events
        about = [model.metadata.version, model.metadata.dtype, *settings]
        self._salt = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).digest()
        self.computed = 0

    @property
    def metadata(self) -> ModelMetadata:
        """The encoder's metadata."""
        return self._encoder.metadata

    @property
    def width(self) -> int:
        """The length of one embedding."""
        return self._encoder.metadata.width

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Embeddings float32 [n, d] of texts, in order; equal texts are encoded once.

        `computed` then counts the texts so far that were not in the cache.
        """
        keys = [self._key(text) for text in texts]
        known = self._cache.get(sorted(set(keys)), self.width) if self._cache else {}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        known |= self._encode(missing)
        return np.stack([known[key] for key in keys]) if keys else np.empty((0, self.width), np.float32)

    def encode(self, inputs: Sequence[Any]) -> Floats:
        """Embeddings float32 [n, d] of inputs as the encoder reads them, past the cache."""
        return normalize(self._encoder.forward(inputs))

    @abstractmethod
    def read(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of texts; images have none."""

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> int:
        """The cost of all inputs in tokens."""

    @abstractmethod
    def _batches(self, missing: dict[bytes, str]) -> Iterator[tuple[list[bytes], Sequence[Any]]]:
        """The keys and inputs of each batch."""

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(self._salt + text.encode("utf-8", "surrogatepass")).digest()

    def _encode(self, missing: dict[bytes, str]) -> dict[bytes, Floats]:
        """Encode inputs, and cache the rows."""
        progress = ProgressEvents(self._events, len(missing)) if self._events and missing else None
        fresh: dict[bytes, Floats] = {}
        waiting: list[tuple[bytes, Floats]] = []
        for keys, items in self._batches(missing):
            waiting.extend(zip(keys, self.encode(items), strict=True))
            if progress:
                progress(len(fresh) + len(waiting), len(keys))
            if len(waiting) >= _MAX_KEYS:
                self._keep(fresh, waiting)
        self._keep(fresh, waiting)
        self.computed += len(missing)
        return fresh

    def _keep(self, fresh: dict[bytes, Floats], waiting: list[tuple[bytes, Floats]]) -> None:
        if self._cache and waiting:
            self._cache.put(waiting)
        fresh.update(waiting)
        waiting.clear()


class Embedder(CachedEmbedder):
    """Texts to embeddings, with the default prompt."""

    def __init__(self, model: TextModel, cache: EmbeddingCache | None = None, events: Events | None = None) -> None:
        metadata = model.metadata
        self._model = model
        self._prompt = metadata.prompts.get(metadata.default_prompt or "", "")
        super().__init__(model, [model.text.max_tokens, self._prompt], cache, events)

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of texts, with the prompt."""
        return self._model.text.encode(texts, prompt=self._prompt, exclude_prompt=self._model.metadata.excludes_prompt)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """The tokens of all texts."""
        return sum(item.count for item in self.read(texts))

    def _batches(self, missing: dict[bytes, str]) -> Iterator[tuple[list[bytes], Sequence[Tokens]]]:
        """Texts of similar length together, so that little is padded."""
        keys = list(missing)
        tokens = self.read(list(missing.values()))
        order = sorted(range(len(keys)), key=lambda index: (-tokens[index].count, keys[index]))
        for batch in _batches(order, [item.count for item in tokens]):
            yield [keys[index] for index in batch], [tokens[index] for index in batch]


def _batches(order: Sequence[int], counts: Sequence[int]) -> Iterable[list[int]]:
    """Indices in batches of at most 64 texts and about 4,096 tokens, with padding."""
    batch: list[int] = []
    for index in order:
        longest = counts[batch[0]] if batch else counts[index]
        if batch and (len(batch) == _BATCH_TEXTS or (len(batch) + 1) * longest > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _split_keys(keys: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    return (keys[start : start + _MAX_KEYS] for start in range(0, len(keys), _MAX_KEYS))
