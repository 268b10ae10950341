"""What people read in place of the names of metrics and checks, which programs keep."""

from __future__ import annotations

import re

STAGE_TITLES = {
    "data": "Data: can these rows teach anything?",
    "forward": "Forward: does the model answer sensibly?",
    "loss": "Loss: does it measure what is wanted?",
    "gradient": "Gradient: does every weight learn?",
    "outcome": "Outcome: is the result better than what is there?",
}
STATUS_WORDS = {"ok": "fine", "warn": "look at this", "fail": "stop", "skipped": "skipped", "not run": "not run"}
_METRICS = {
    "macro_f1": "macro-F1",
    "ece": "calibration error",
    "held_out_rows": "held-out rows",
    "held_out_windows": "held-out windows",
    "known_anomalies": "known anomalies",
    "oos_known_anomalies": "out-of-scope texts",
    "calibrated_on": "rows that calibrate",
    "C": "strength of the head (C)",
    "lexical": "weight of word pieces",
    "ceiling": "highest confidence",
    "primary": "false-alarm score",
    "smallest_spot": "smallest spot found, as a share of the image's side",
    "smallest_scratch": "smallest scratch found, as a share of the image's side",
    "auroc": "AUROC",
    "oos_auroc": "AUROC of out-of-scope texts",
    "recall_at_95": "anomalies caught at 5 % false alarms",
    "oos_recall_at_95": "out-of-scope texts caught at 5 % false alarms",
    "precision": "precision at alpha 0.05",
    "recall": "recall at alpha 0.05",
    "f1": "F1 at alpha 0.05",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "coverage_80": "readings inside the 80 % interval",
    "ndcg_at_10": "nDCG@10",
    "mrr": "mean reciprocal rank",
    "spearman": "rank correlation",
    "triplet_accuracy": "triplets in the right order",
    "accuracy_at_1": "queries with the right first hit",
    "sanity_accuracy": "everyday paraphrases recognised",
    "sanity_margin": "margin of everyday paraphrases",
}
# Names with a variable part; the label of the part in the first group replaces {}.
_PATTERNS = (
    (r"(.+)_low", "{}: 95 % interval from"),
    (r"(.+)_high", "{}: 95 % interval to"),
    (r"base_(.+)", "{} of the base model"),
    (r"frozen_(.+)", "{} of the frozen encoder"),
    (r"(.+)_d\d+", "{} of shorter vectors"),
    (r"false_alarm_rate_(.+)", "false alarms at alpha {}"),
    (r"detector_auroc_(.+)", "AUROC of detector {}"),
    (r"detector_faults_(.+)", "AUROC of detector {} on injected faults"),
    (r"mse_(.+)", "mean squared error of the {}"),
    (r"validation_mse_(.+)", "mean squared error of {} on validation windows"),
    (r"baseline_(.+)", "baseline: {}"),
    (r"f1_against_(.+)", "F1 against {}"),
    (r"against_(.+)", "against {}"),
    (r"(.+)_against_base", "{} against the base model"),
)
_CHECKS = {
    "parse": "rows read",
    "header": "names of the columns",
    "class_counts": "rows of each label",
    "constant_columns": "columns that never vary",
    "tfidf": "word counts",
    "colours": "coarse colours",
    "majority": "the most frequent label",
    "trivial": "the trivial baseline",
    "frozen": "the frozen encoder",
    "incumbent": "the version in service",
    "moved": "move from training to held-out rows",
    "all_zero": "outputs of zero",
    "finite": "finite outputs",
    "constant_output": "outputs that differ",
    "fresh_loss": "first loss of a fresh head",
    "tiny_loss": "first loss",
    "connected": "weights that the loss reaches",
    "overfit": "one batch learnt by heart",
    "slope": "loss of the first steps",
    "nan_gradient": "finite gradients",
    "update_ratio": "size of a step",
    "coverage": "share that is answered, or inside the interval",
    "gain": "gain over the base model",
    "rank_kept": "effective rank kept",
    "bound_rows": "rows bound to the name",
    "signal": "signal in the rows",
}


def metric_label(name: str, task: str = "") -> str:
    """A metric's name as people read it."""
    if name == "primary" and task == "forecast":
        return "skill"
    return _label(name, _METRICS)


def check_label(name: str) -> str:
    """A check's name as people read it."""
    return _label(name, _CHECKS | _METRICS)


def _label(name: str, known: dict[str, str]) -> str:
    if name in known:
        return known[name]
    for pattern, label in _PATTERNS:
        if found := re.fullmatch(pattern, name):
            return label.format(_label(found[1], known))
    return name.replace("_", " ")
