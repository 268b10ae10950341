"""The unit check finds a column that changes its unit, anywhere, and passes columns that merely vary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from models.sensors.model import Doubles, SensorKind
from models.training.checks.sensor_data import check_table
from models.training.data.segments import divide_segments, to_segments
from models.training.data.table import Table
from models.training.report import Finding

ROWS = 3000
T = np.arange(ROWS)


def table(x: Doubles, **more: object) -> Table:
    return Table(tuple("abcdefgh"[: x.shape[1]]), x, np.arange(2, len(x) + 2), **more)  # type: ignore[arg-type]


def units(x: Doubles, kind: SensorKind = "series", **more: object) -> Finding:
    """The unit finding for readings [n] or [n, d], four fifths of them to train on."""
    given = table(x if x.ndim > 1 else x[:, None], **more)
    runs, repairs = to_segments(given, kind)
    train, held = divide_segments(runs, 1 if given.groups is None else len(set(given.groups)), 0.2)
    return next(finding for finding in check_table(train, held, repairs) if finding.check == "unit_jumps")


def readings(seed: int = 0) -> Doubles:
    """A column of noise, and one of about 20 that wanders a little."""
    random = np.random.default_rng(seed)
    return np.stack(
        [5 + random.standard_normal(ROWS), 20 + 0.5 * random.standard_normal(ROWS) + np.sin(T / 300)], axis=1
    )


def changed(rows: NDArray[np.bool_] | slice, change: Callable[[Doubles], Doubles], seed: int = 0) -> Doubles:
    x = readings(seed)
    x[rows, 1] = change(x[rows, 1])
    return x


def thousand(x: Doubles) -> Doubles:
    return x * 1000


def groups(count: int, rows: int = ROWS) -> tuple[str, ...]:
    return tuple(f"m{row * count // rows:03d}" for row in range(rows))


@pytest.mark.parametrize("factor", [1e3, 1e-3, 14.5])
@pytest.mark.parametrize("start", [1100, 1500, 2400, 2500, 2900])
def test_a_change_is_found_wherever_it_is(start: int, factor: float) -> None:
    finding = units(changed(slice(start, None), lambda x: x * factor))
    assert (finding.status, "'b'" in finding.message) == ("fail", True), finding.message
    assert len(finding.rows) == 1
    assert abs(finding.rows[0] - start) <= 80, "within the stretch before or after it"


def test_a_change_right_behind_a_silence_is_found_at_its_line() -> None:
    times = T + 36_000.0 * (T >= 1100)
    finding = units(changed(slice(1100, None), thousand), times=times)
    assert (finding.status, finding.rows) == ("fail", (1102,))
    assert units(readings(), times=times).status == "ok"


@pytest.mark.parametrize("kind", ["series", "records"])
@pytest.mark.parametrize(("count", "other"), [(2, 1), (3, 1), (6, 3), (10, 9), (30, 12)])
def test_a_machine_that_logs_in_another_unit_is_found(count: int, other: int, kind: SensorKind) -> None:
    finding = units(changed(T * count // ROWS == other, thousand), kind, groups=groups(count))
    assert (finding.status, "'b'" in finding.message) == ("fail", True), finding.message
    assert "name the two as runs in `group`" not in finding.remedy


@pytest.mark.parametrize("count", [2, 6, 30, 300])
def test_machines_of_another_level_are_no_other_unit(count: int) -> None:
    random = np.random.default_rng(0)
    machine = T * count // ROWS
    x = readings() * random.uniform(0.5, 2, count)[machine, None] + random.uniform(0, 100, count)[machine, None]
    assert units(x, groups=groups(count)).status == "ok"


@pytest.mark.parametrize("start", [200, 1000, 1007, 2700])
def test_a_brief_change_is_a_warning_that_names_its_lines(start: int) -> None:
    finding = units(changed(slice(start, start + 30), thousand))
    assert (finding.status, "'b'" in finding.message) == ("warn", True), finding.message
    assert all(start - 32 <= row <= start + 48 for row in finding.rows), finding.rows


def test_rows_that_are_labelled_do_not_count() -> None:
    rows = (T >= 1000) & (T < 1030)
    assert units(changed(rows, thousand), labels=rows).status == "ok"
    assert units(changed(rows, thousand), labels=T == 1000).status == "warn"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: 1.8 * x + 32, "°C and °F"),
        (lambda x: (x - 32) / 1.8, "°C and °F"),
        (lambda x: x + 273.15, "°C and K"),
        (lambda x: x * 6.894757, "psi and kPa"),
    ],
)
@pytest.mark.parametrize("start", [1100, 2500])
def test_a_known_conversion_is_a_warning(change: Callable[[Doubles], Doubles], says: str, start: int) -> None:
    finding = units(changed(slice(start, None), change))
    assert (finding.status, says in finding.message) == ("warn", True), finding.message


def test_a_change_in_the_validation_file_names_that_file() -> None:
    train, repairs = to_segments(table(readings()), "series")
    held, _ = to_segments(table(changed(slice(None), thousand)[:500]), "series")
    finding = next(finding for finding in check_table(train, held, repairs) if finding.check == "unit_jumps")
    assert (finding.status, finding.rows) == ("fail", ())
    assert "near line 2 of the validation file" in finding.message


def healthy() -> dict[str, Doubles]:
    random = np.random.default_rng(3)
    white, steps = random.standard_normal(ROWS), np.cumsum(random.standard_normal(ROWS))
    on, seldom = T // 50 % 2 == 0, random.random(ROWS // 30).repeat(30) < 0.15
    return {
        "sine around zero": 1e4 * np.sin(T / 100) + white,
        "fast sine": 1000 + 1000 * np.sin(T / 3) + white,
        "random walk": 10 * steps,
        "geometric random walk": np.exp(0.1 * steps),
        "lognormal": np.exp(2 * white),
        "no variance": random.standard_cauchy(ROWS),
        "bursts, else zero": np.where(seldom, random.exponential(50, ROWS), 0.0),
        "bursts, else noise": np.where(seldom, random.exponential(50, ROWS), 0.01 * white),
        "on and off": np.where(on, 100 + 5 * white, 0.5 + 0.1 * white),
        "vibration, on and off": np.where(on, 10.0, 0.1) * white,
        "shifts": random.uniform(0, 100, 20).repeat(ROWS // 20) + white,
        "counter": np.cumsum(random.poisson(3, ROWS)).astype(np.float64),
        "rounded": np.round(20 + 5 * np.sin(T / 230) + 0.2 * white, 1),
        "louder": np.where(T > 1500, 5.0, 1.0) * np.abs(white),
        "start": np.where(T > 1500, 100 + 5 * white, 0.1 * white),
    }


@pytest.mark.parametrize("name", list(healthy()))
def test_columns_that_merely_vary_pass(name: str) -> None:
    finding = units(healthy()[name])
    assert finding.status == "ok", finding.message
