"""The false-alarm check of detectors: passes a sound one, warns of one broken on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from models.training.checks.false_alarms import check_false_alarms, check_input_false_alarms

UNIFORM = np.random.default_rng(0).random(4000)


def troubles(
    p_values: np.ndarray[tuple[int], np.dtype[np.float64]], stride: int = 1, calibrated_on: int = 2000
) -> set[str]:
    found = list(check_false_alarms(p_values, stride, calibrated_on))
    assert all(finding.stage == "outcome" and bool(finding.remedy) == (finding.status == "warn") for finding in found)
    return {finding.check for finding in found if finding.status != "ok"}


@pytest.mark.parametrize("seed", range(3))
def test_a_kept_false_alarm_rate_passes(seed: int) -> None:
    assert not troubles(np.random.default_rng(seed).random(4000))


def test_too_many_and_too_few_alarms_warn() -> None:
    assert troubles(UNIFORM**3) == {"false_alarm_rate_0.05", "false_alarm_rate_0.01", "drift"}
    assert {"false_alarm_rate_0.05", "false_alarm_rate_0.01"} <= troubles(0.2 + 0.8 * UNIFORM)


def test_few_independent_rows_do_not_warn() -> None:
    doubled = UNIFORM.copy()
    doubled[:200] = 0.02
    assert "false_alarm_rate_0.05" in troubles(doubled)
    few = next(check_false_alarms(doubled, 100, 2000))
    assert (few.check, few.status) == ("false_alarm_rate_0.05", "skipped")
    assert "So wide a range is no evidence" in few.message


def test_texts_with_a_wrong_false_alarm_rate_warn_and_have_no_drift() -> None:
    assert [finding.status for finding in check_input_false_alarms(UNIFORM, 2000)] == ["ok", "ok"]
    broken = list(check_input_false_alarms(UNIFORM**3, 2000))
    assert [(finding.check, finding.status) for finding in broken] == [
        ("false_alarm_rate_0.05", "warn"),
        ("false_alarm_rate_0.01", "warn"),
    ]
    assert "normal texts" in broken[0].remedy


def test_too_few_texts_for_any_alarm_warn() -> None:
    (found,) = check_input_false_alarms(UNIFORM[:5], 12)
    assert (found.stage, found.status) == ("outcome", "warn")
    assert "too few for any alarm at alpha 0.05" in found.message


def test_an_alpha_below_what_the_calibration_resolves_is_not_judged() -> None:
    checks = [finding.check for finding in check_false_alarms(UNIFORM, 1, 50)]
    assert checks == ["false_alarm_rate_0.05", "drift"]
