import math

import numpy as np
import pytest

from benchmarks.nab_scorer import Labels, Profile, best_threshold, row_values, scaled_sigmoid, score_at, score_file

# Twenty rows: the first three (15 %) are probation, one window of five rows, 10 to 14.
ONE = Labels(20, ((10, 14),))


def detections(rows: int, *at: int) -> np.ndarray:
    scores = np.zeros(rows)
    scores[list(at)] = 1.0
    return scores


def test_the_sigmoid_at_the_positions_the_paper_names() -> None:
    # 2 / (1 + e^-5) - 1 = 0.98661; 2 / (1 + e^-2.5) - 1 = 0.84828; 0 at the end; symmetric behind it; flat from 3
    # widths on. Just below 3: 2 / (1 + e^14.995) - 1 = -1 + 6.1e-7, which is not -1.
    found = scaled_sigmoid(np.array([-1.0, -0.5, 0.0, 1.0, 3.0, 1e9]))
    assert found == pytest.approx([0.98661, 0.84828, 0.0, -0.98661, -1.0, -1.0], abs=1e-5)
    assert scaled_sigmoid(np.array(2.999)) > -1.0


@pytest.mark.parametrize(("rows", "expected"), [(20, 3), (100, 15), (1882, 282), (5000, 750), (22695, 750)])
def test_probation_is_15_percent_of_a_file_and_at_most_750_rows(rows: int, expected: int) -> None:
    assert Labels(rows, ()).probation == expected


def test_a_window_is_worth_1_at_its_first_row_and_little_at_its_last() -> None:
    # Row 10: y = -(14 - 10 + 1) / 5 = -1, sigma / sigma(-1) = 1. Row 12: y = -3/5, 2 / (1 + e^-3) - 1 = 0.90515, over
    # 0.98661 = 0.91743. Row 14: y = -1/5, 2 / (1 + e^-1) - 1 = 0.46212, over 0.98661 = 0.46839.
    values, window_of_row = row_values(ONE)
    assert values[[10, 12, 14]] == pytest.approx([1.0, 0.91743, 0.46839], abs=1e-5)
    assert window_of_row.tolist() == [-1] * 10 + [0] * 5 + [-1] * 5


def test_a_false_detection_costs_all_before_a_window_and_less_right_behind_it() -> None:
    # Before any window -0.11. Row 15, one behind a window of 5: y = 1/4, 2 / (1 + e^1.25) - 1 = -0.55460, times 0.11 =
    # -0.06101. Row 18: y = 4/4 = 1, -0.98661 * 0.11 = -0.10853.
    values, _ = row_values(ONE)
    assert values[[3, 9, 15, 18]] == pytest.approx([-0.11, -0.11, -0.06101, -0.10853], abs=1e-5)


def test_a_false_detection_three_widths_behind_costs_all() -> None:
    # A window of 3 rows, 5 to 7: row 12 is at y = 5/2, row 13 at y = 6/2 = 3.
    values, _ = row_values(Labels(20, ((5, 7),)))
    assert values[12] > -0.11
    assert values[13] == -0.11


def test_a_false_detection_counts_from_the_nearest_window_before_it() -> None:
    # Windows 5..7 and 12..14: row 15 is at y = 1/2 of the second, 2 / (1 + e^2.5) - 1 = -0.84828, times 0.11 =
    # -0.09331; row 11, between them, at y = 4/2 = 2 of the first, 2 / (1 + e^10) - 1 = -0.99991, times 0.11 = -0.10999.
    values, _ = row_values(Labels(20, ((5, 7), (12, 14))))
    assert values[[11, 15]] == pytest.approx([-0.10999, -0.09331], abs=1e-5)


def test_behind_a_window_of_one_row_a_false_detection_costs_all() -> None:
    values, _ = row_values(Labels(20, ((10, 10),)))
    assert values[10] == 1.0
    assert values[11] == -0.11


def test_only_the_earliest_detection_in_a_window_counts() -> None:
    # Rows 12 and 14 detected: 0.91743 of row 12 alone; row 16 is false, at y = 2/4, -0.84828 * 0.11 = -0.09331.
    # normalized: raw 0.82412, silent -1, perfect 1: 100 * 1.82412 / 2 = 91.206.
    result = score_at([(detections(20, 12, 14, 16), ONE)], 0.5)
    assert result.files[0].windows == pytest.approx([0.91743], abs=1e-5)
    assert result.files[0].false_detections == 1
    assert result.files[0].false_cost == pytest.approx(-0.09331, abs=1e-5)
    assert result.normalized == pytest.approx(91.206, abs=1e-3)


def test_silence_is_0_and_perfection_100() -> None:
    files = [(detections(20, 10), ONE), (detections(20, 5), Labels(20, ((5, 8),)))]
    assert score_at(files, 2.0).normalized == 0.0
    assert score_at(files, 1.0).normalized == pytest.approx(100.0)


def test_a_detector_that_only_errs_is_below_0() -> None:
    # The window missed (-1) and four false detections before it (-0.44): 100 * (-1.44 + 1) / 2 = -22.
    assert score_at([(detections(20, 4, 5, 6, 7), ONE)], 0.5).normalized == pytest.approx(-22.0)


def test_detections_in_the_probation_neither_cost_nor_earn() -> None:
    # Rows 0 to 2 are probation. A window 2..5 is entered late: row 2 earns nothing, row 3 at y = -3/4, 2 / (1 +
    # e^-3.75) - 1 = 0.95405, over 0.98661 = 0.96699.
    labels = Labels(20, ((2, 5),))
    assert score_file(detections(20, 0, 1, 2), labels, 0.5).raw == -1.0
    assert score_file(detections(20, 2, 3), labels, 0.5).raw == pytest.approx(0.96699, abs=1e-5)


def test_a_window_wholly_in_the_probation_is_not_scored() -> None:
    labels = Labels(20, ((0, 2), (10, 14)))
    assert score_file(detections(20, 1, 10), labels, 0.5).windows == (1.0,)
    assert score_file(detections(20, 1), labels, 0.5).windows == (-1.0,)


def test_the_threshold_found_is_the_best_of_all() -> None:
    chance = np.random.default_rng(7)
    files = [
        (chance.integers(0, 12, 200).astype(float), Labels(200, ((60, 79), (150, 159)))),
        (chance.random(90) * 12, Labels(90, ((40, 49),))),
    ]
    candidates = [*np.unique(np.concatenate([scores for scores, _ in files])), math.inf]
    best = max(candidates, key=lambda at: score_at(files, at).normalized)
    assert score_at(files, best_threshold(files)).normalized == pytest.approx(
        score_at(files, best).normalized, abs=1e-9
    )


def test_the_threshold_weighs_late_detections_against_false_ones() -> None:
    # At 0.9 the window's row 14 earns 0.46839. Going down to 0.5 adds row 10 (+0.53161) and two false ones (-0.22): a
    # gain. Going down to 0.1 adds twelve more false ones and no window: a loss.
    scores = np.full(20, 0.1)
    scores[14], scores[10], scores[[5, 6]] = 0.9, 0.5, 0.5
    assert best_threshold([(scores, ONE)]) == 0.5
    # With a false detection at 0.3 each, the same two do not pay: 0.53161 - 0.6 < 0.
    assert best_threshold([(scores, ONE)], Profile(false=0.3)) == 0.9


def test_the_best_threshold_is_infinite_where_silence_is_best() -> None:
    assert best_threshold([(detections(20, *range(3, 10)), Labels(20, ()))]) == math.inf


@pytest.mark.parametrize("windows", [((5, 4),), ((5, 8), (8, 9)), ((5, 20),), ((10, 12), (3, 4))])
def test_windows_that_overlap_or_leave_the_file_are_refused(windows: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="window"):
        Labels(20, windows)


@pytest.mark.parametrize("scores", [np.zeros(19), np.full(20, np.nan), np.zeros((20, 1))])
def test_scores_of_another_shape_or_not_finite_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite scores"):
        score_at([(scores, ONE)], 0.5)
    with pytest.raises(ValueError, match="finite scores"):
        best_threshold([(scores, ONE)])


def test_files_without_windows_have_no_normalized_score() -> None:
    with pytest.raises(ValueError, match="without a window"):
        _ = score_at([(np.zeros(20), Labels(20, ()))], 0.5).normalized
    with pytest.raises(ValueError, match="at least one file"):
        best_threshold([])
