"""A report says which fault a detector would find, in the column's own units."""

from __future__ import annotations

import numpy as np
import pytest

from models.sensors.fitting import fit_sensor
from models.training.checks.power import check_power, power_share
from models.training.sensors.power import Power, measure_power
from tests.fakes.sensor import FakeSensor

COLUMNS = ("pressure", "flow")


def normal(rows: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal([0, 5], [1, 20], (rows, 2))


def test_the_smallest_step_is_in_the_columns_own_units() -> None:
    sensor = fit_sensor("series", "level", COLUMNS, [normal(2000)])
    steps = {power.column: power for power in measure_power(sensor, normal(3000, 1), 0.05) if power.kind == "step"}
    assert steps["pressure"].smallest is not None
    assert steps["flow"].smallest == pytest.approx(20 * steps["pressure"].smallest, rel=0.1)
    assert 0.2 < steps["pressure"].smallest < 4
    assert steps["pressure"].duration == 30


def test_a_longer_fault_is_easier_to_find_than_a_single_reading() -> None:
    sensor = fit_sensor("series", "level", COLUMNS, [normal(2000)])
    found = {power.kind: power for power in measure_power(sensor, normal(3000, 1), 0.05) if power.column == "flow"}
    assert found["step"].smallest is not None
    assert found["spike"].smallest is None or found["spike"].smallest > found["step"].smallest


def test_records_are_judged_row_by_row() -> None:
    sensor = fit_sensor("records", "mahalanobis", COLUMNS, [normal(2000)])
    found = measure_power(sensor, normal(500, 1), 0.05)
    assert [(power.column, power.kind, power.duration) for power in found] == [
        ("pressure", "step", 1),
        ("flow", "step", 1),
    ]
    assert found[0].smallest is not None
    assert found[0].smallest > 2, "1.6 standard deviations are a normal reading 1 time of 10"


def test_too_short_a_run_tells_nothing() -> None:
    sensor = fit_sensor("series", "level", COLUMNS, [normal(2000)])
    assert measure_power(sensor, normal(200), 0.05) == []
    finding = check_power([], 0.05, None)
    assert finding.status == "skipped"
    assert power_share([]) is None


class Blind(FakeSensor):
    """Finds nothing at all."""

    stride = 1

    def score(self, readings, state=None, *, times=None, contributions=False):  # type: ignore[no-untyped-def]
        scored = super().score(readings, state, times=times, contributions=contributions)
        scored.p_values[:] = 1.0
        return scored


def test_a_detector_that_sees_nothing_is_told() -> None:
    found = measure_power(Blind("series", window=3), normal(3000), 0.05)
    assert {power.smallest for power in found} == {None}
    assert power_share(found) == 0
    finding = check_power(found, 0.05, 60.0)
    assert finding.status == "warn"
    assert "no step in any column" in finding.message
    assert "'pressure', 'flow'" in finding.message


def test_the_message_names_size_column_and_time() -> None:
    found = [
        Power("pressure", "step", 0.8, 32.0, 30),
        Power("pressure", "spike", 4.0, 32.0, 30),
        Power("flow", "step", None, 640.0, 30),
    ]
    finding = check_power(found, 0.01, 10.0)
    assert finding.message == (
        "Found 90% of the time at alpha 0.01, for 5 minutes: a step of 0.8 in 'pressure'. Not found, however large: a "
        "step in 'flow'. A single reading is found when it is off by 4 in 'pressure'."
    )
    assert (finding.status, finding.value) == ("warn", 0.5)
