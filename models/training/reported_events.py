"""The events that a detector finds in the held-out readings, as a report lists them."""

from __future__ import annotations

from dataclasses import dataclass

from models.counted import counted
from models.sensors.events import Severity

Place = str | int


@dataclass(frozen=True, slots=True)
class ReportedEvent:
    """An event: places are ISO timestamps, or lines of a file without times.

    `p_value` is that of the peak; `columns` are to blame, the first most. `labelled` says whether the file labels one
    of its readings as an anomaly; None where it has no labels.
    """

    start: Place
    end: Place
    peak: Place
    readings: int
    severity: Severity
    p_value: float
    columns: tuple[str, ...]
    labelled: bool | None


@dataclass(frozen=True, slots=True)
class ReportedEvents:
    """How many events were found at `alpha`, and the strangest of them in the order of time."""

    found: int
    alpha: float
    shown: tuple[ReportedEvent, ...]

    @property
    def title(self) -> str:
        """The number of events in words."""
        some = f": the {len(self.shown)} strangest" if self.found > len(self.shown) else ""
        events = counted(self.found, "event")
        return f"{events} in the held-out readings at alpha {self.alpha}{some}"

    def table(self) -> list[tuple[str, ...]]:
        """A header and a row for each event, as text."""
        is_labelled = any(one.labelled is not None for one in self.shown)
        header = ("Start", "End", "Readings", "Severity", "p-value of the peak", "Columns to blame")
        rows = [
            (
                str(one.start),
                str(one.end),
                str(one.readings),
                one.severity,
                f"{one.p_value:.2g}",
                ", ".join(one.columns),
                *(("yes" if one.labelled else "no",) if is_labelled else ()),
            )
            for one in self.shown
        ]
        return [(*header, *(("Labelled as an anomaly",) if is_labelled else ())), *rows]
