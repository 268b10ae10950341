"""On whose behalf jobs, files and feedback are read and written."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller as rows know it: the API key's id, and whether the key sees what others own.

    What a caller does not see does not exist for it. Rows from before owners are everyone's.
    """

    id: str | None
    sees_all: bool = False

    def may_see(self, owner: str | None) -> bool:
        """Whether the caller sees what `owner` owns."""
        return self.sees_all or owner in {None, self.id}

    def sees(self, owner: sa.ColumnElement[str | None]) -> sa.ColumnElement[bool]:
        """`may_see` as a condition on a column."""
        from sqlalchemy import true  # the API imports this module before it needs a database

        return true() if self.sees_all else owner.is_(None) | (owner == self.id)

    @property
    def reads_feedback_of(self) -> str | None:
        """The caller as a job keeps it, whose every attempt must read the same feedback; None for one that sees all."""
        return None if self.sees_all else self.id

    @classmethod
    def from_feedback_reader(cls, key: str | None) -> Principal:
        """The caller that `reads_feedback_of` was taken from."""
        return cls(key, sees_all=key is None)


# Workers act for no key.
WORKER = Principal(None, sees_all=True)


class SeenByPrincipal:
    """Rows of a database as one caller sees them; those that it adds are its own."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    def on_behalf_of(self, principal: Principal) -> Self:
        """The same rows as another caller sees them."""
        made = copy(self)
        made._principal = principal  # noqa: SLF001  # our own class
        return made
