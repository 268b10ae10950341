"""A series that is scored piece by piece, without input and output: what to send next, and the state after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.client import calls
from service.client.answers import Scores
from service.client.call import Call
from service.client.errors import BadInput


class Series:
    """Pieces of one series; each continues from the `state` after the one before.

    A piece whose rows have no names is refused after one that has them: its columns could be in another order.
    """

    def __init__(
        self, model: str, *, alpha: float, contributions: bool, events: bool | Mapping[str, int], state: str | None
    ) -> None:
        self.state = state
        self._model, self._alpha, self._contributions, self._events = model, alpha, contributions, events
        self._names: tuple[str, ...] = ()

    def call(
        self, series: calls.Readings, columns: Sequence[str] | None, timestamps: Sequence[str | float] | None
    ) -> Call[Scores]:
        """The call that scores the next readings. Raises BadInput."""
        self._require_names(series, columns)
        return calls.anomaly(
            model=self._model,
            series=series,
            columns=columns,
            timestamps=timestamps,
            state=self.state,
            alpha=self._alpha,
            contributions=self._contributions,
            events=self._events,
        )

    def take(self, scores: Scores) -> Scores:
        """Continue from an answer."""
        self.state = scores.state
        return scores

    def _require_names(self, series: calls.Readings, columns: Sequence[str] | None) -> None:
        first = series[0] if len(series) else ()
        names = tuple(first) if isinstance(first, Mapping) else tuple(columns or ())
        if not names and self._names:
            known = ", ".join(self._names)
            raise BadInput(
                f"series: expected the columns' names, as in the pieces before ({known}): give them in `columns`"
            )
        self._names = self._names or names
