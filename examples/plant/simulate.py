"""Writes the files of a simulated plant: two weeks of normal operation, and a day on which each pump fails once.

python -m examples.plant.simulate ./plant     # writes normal.csv and live.csv there

The files are as a German logger writes them: lines above the header, units, semicolons, decimal commas, local times,
cp1252, silences, single missing readings, and -9999 where a sensor did not answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

ZONE = ZoneInfo("Europe/Berlin")
START = datetime(2026, 11, 2, tzinfo=ZONE)
PERIOD = timedelta(minutes=2)
MACHINES = ("P-101", "P-102", "P-103")
COLUMNS = ("Druck", "Durchfluss", "Lagertemperatur", "Schwingung")
UNITS = ("bar", "m³/h", "°C", "mm/s")
NORMAL_READINGS, LIVE_READINGS = 14 * 720, 720
_MISSING_SHARE, _NO_ANSWER_SHARE = 0.002, 0.001
_SILENCE = slice(300, 330)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one machine in the live file: `rows` of it, and the column that shows it."""

    machine: str
    rows: slice
    column: str
    size: float
    grows: bool = False


FAULTS = (
    Fault("P-101", slice(400, 460), "Schwingung", 1.5, grows=True),
    Fault("P-102", slice(150, 210), "Durchfluss", -3.0),
    Fault("P-103", slice(560, 620), "Lagertemperatur", 6.0),
)


def readings(count: int, seed: int, machine: int) -> NDArray[np.float64]:
    """Readings [count, 4] of a healthy pump that follows the load of the day."""
    random = np.random.default_rng([seed, machine])
    hours = np.arange(count) * PERIOD.total_seconds() / 3600
    load = 0.3 * np.sin(2 * np.pi * (hours - 7) / 24) + _wandering(random, count, 0.97, 0.02)
    warmth = _wandering(random, count, 0.98, 0.1) + 3 * load
    values = [4 + 0.5 * load, 20 + 6 * load, 45 + warmth, 1.2 + 0.3 * load]
    return np.stack(values, axis=1) + random.standard_normal((count, 4)) * (0.03, 0.25, 0.3, 0.06)


def live(machine: str) -> NDArray[np.float64]:
    """A day of readings with the machine's fault."""
    values = readings(LIVE_READINGS, 2, MACHINES.index(machine))
    for fault in FAULTS:
        if fault.machine == machine:
            shape = np.linspace(0, 1, fault.rows.stop - fault.rows.start) if fault.grows else 1.0
            values[fault.rows, COLUMNS.index(fault.column)] += fault.size * shape
    return values


def write_log(path: Path, start: datetime, by_machine: dict[str, NDArray[np.float64]]) -> None:
    """Write the readings of all machines into one file, in the order of time."""
    lines = ["Datenlogger DL-7;Werk Nord", "Export;Archiv", "", ";".join(("Zeit", "Maschine", *COLUMNS))]
    lines.append(";".join(("", "", *UNITS)))
    lines += _rows(start, by_machine)
    path.write_text("\r\n".join(lines) + "\r\n", encoding="cp1252", newline="")


def _rows(start: datetime, by_machine: dict[str, NDArray[np.float64]]) -> Iterator[str]:
    random = np.random.default_rng(9)
    count = len(next(iter(by_machine.values())))
    for row in range(count):
        moment = (start + row * PERIOD).strftime("%d.%m.%Y %H:%M:%S")
        for machine, values in by_machine.items():
            if machine == MACHINES[1] and _SILENCE.start <= row < _SILENCE.stop:
                continue
            cells = [f"{value:.2f}".replace(".", ",") for value in values[row].tolist()]
            lot = random.random(len(cells))
            cells = ["" if one < _MISSING_SHARE else cell for one, cell in zip(lot, cells, strict=True)]
            cells = ["-9999" if one > 1 - _NO_ANSWER_SHARE else cell for one, cell in zip(lot, cells, strict=True)]
            yield ";".join((moment, machine, *cells))


def _wandering(random: np.random.Generator, count: int, memory: float, size: float) -> NDArray[np.float64]:
    """A first-order autoregressive series [count]."""
    values = np.zeros(count)
    for at in range(1, count):
        values[at] = memory * values[at - 1] + size * random.standard_normal()
    return values


def write_files(directory: Path) -> None:
    """Write normal.csv and live.csv."""
    directory.mkdir(parents=True, exist_ok=True)
    normal = {machine: readings(NORMAL_READINGS, 1, number) for number, machine in enumerate(MACHINES)}
    write_log(directory / "normal.csv", START, normal)
    write_log(
        directory / "live.csv", START + NORMAL_READINGS * PERIOD, {machine: live(machine) for machine in MACHINES}
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where the files go")
    write_files(parser.parse_args().directory)
