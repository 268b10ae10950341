"""The interface of engines: rows for items, in this process or in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from models.errors import SondeError
from service.engine.request import Item, Request

ItemT_contra = TypeVar("ItemT_contra", bound=Item, contravariant=True)


class RowEngine(Protocol[ItemT_contra]):
    """What models in service need of an engine: `Engine`, or a front's `RemoteEngine`."""

    @property
    def failure(self) -> Exception | None:
        """Why it cannot compute now; None where it can."""
        ...

    @property
    def prepares(self) -> bool:
        """Whether it takes items that are `Unprepared`."""
        ...

    @property
    def waiting(self) -> tuple[int, int]:
        """Items and tokens that wait."""
        ...

    @property
    def tokens_per_s(self) -> float:
        """Recent speed; 0 before the first batch."""
        ...

    def submit(
        self,
        items: Sequence[ItemT_contra],
        *,
        client: str = "",
        deadline: float | None = None,
        patience_s: float | None = None,
        bulk: bool = False,
    ) -> Request:
        """Queue items; those of a `bulk` request never overtake others. Raises Unavailable where it cannot compute."""
        ...

    def cancel(self, request: Request, error: SondeError) -> int:
        """End a request with an error; return how many of its items are surely never computed."""
        ...

    def close(self) -> None:
        """Stop; requests that still wait get Unavailable."""
        ...
