"""Failures to load versions: counted, logged, and remembered until the next attempt."""

from __future__ import annotations

import logging
from collections.abc import Callable

from models.errors import SondeError
from service.metrics import Metrics

log = logging.getLogger(__name__)

# Seconds before the next attempt to load what has failed, while the registry does not change.
RETRY_S = 30.0


class LoadFailures:
    """The reason of each recent failure, by the label of what failed to load."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._reasons: dict[str, tuple[str, float]] = {}
        self._logged: dict[str, str] = {}

    def record(self, name: str, label: str, error: Exception) -> str:
        """Count a failure and log it if it is new; return its reason, in words that callers may see."""
        self._metrics.reload_failures.labels(name).inc()
        known = isinstance(error, SondeError)
        reason = error.message if isinstance(error, SondeError) else "its files cannot be read; the log says more"
        self._reasons[label] = (reason, self._clock() + RETRY_S)
        if self._logged.get(label) != repr(error):
            self._logged[label] = repr(error)
            log.error("reload failed, the old version stays: %s: %s", label, reason, exc_info=None if known else error)
        return reason

    def clear(self, label: str) -> None:
        """Log that what failed works again."""
        if self._logged.pop(label, None) is not None:
            log.info("the registry is followed again", extra={"model": label})

    def recent(self, label: str) -> str | None:
        """The reason of a failure that is too recent for another attempt."""
        reason, retry_at = self._reasons.get(label, (None, 0.0))
        if self._clock() < retry_at:
            return reason
        self._reasons.pop(label, None)
        return None
