"""The commands against a real service with a real worker, and a job on a terminal."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from service.client import Client, NotFound
from tests.support.server import wait_until
from tests.support.terminal import CTRL_C, Terminal

pytestmark = [pytest.mark.slow, pytest.mark.real]

ESC = "\\u001b[31mred"
TEXTS = {
    "lost": ["I lost my card", "my card is gone", "where is my card", "card stolen", "no card in my bag"],
    f"refund{ESC}": ["refund me", "I want my money back", "return my payment", "when is my refund", "pay me back"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files to train on and to score."""
    made = tmp_path_factory.mktemp("commands")
    rows = [f'{{"text": "{text}", "label": "{label}"}}' for label, texts in TEXTS.items() for text in texts]
    (made / "intents.jsonl").write_text("\n".join(rows))
    draw = random.Random(1)
    normal = [f"{draw.gauss(2, 0.03):.4f},{draw.gauss(12, 0.15):.4f}" for _ in range(600)]
    (made / "pump.csv").write_text("\n".join(["pressure,flow", *normal]))
    (made / "live.csv").write_text("\n".join(["flow,pressure", *["12.0,2.0"] * 20, *["12.1,2.9"] * 5]))
    return made


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `sonde up`, on a terminal of its own."""
    up = Terminal("up", "--port", "0", "--home", str(tmp_path_factory.mktemp("home")))
    try:
        up.wait_for("stop    Ctrl-C")
        yield up.plain.split("ready on ")[1].split(" ")[0]
    finally:
        up.close()


def sonde(url: str, *arguments: str) -> str:
    """Run a command in a pipe; its standard output."""
    command = [sys.executable, "-m", "service.cli", *arguments, "--url", url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "\x1b" not in ended.stdout + ended.stderr
    return ended.stdout


def test_texts_are_embedded_labelled_scored_and_ranked(url: str, folder: Path) -> None:
    assert len(json.loads(sonde(url, "embed", "Where is my card?", "--json"))["embedding"]) == 384
    assert "lost" in sonde(url, "classify", "my card is gone", "--label", "lost=my card is lost", "--label", "rain")
    reference = str(folder / "intents.jsonl")
    assert len(sonde(url, "anomaly", "the pump leaks", "--reference", reference).splitlines()) == 2
    ranked = sonde(url, "rerank", "lost card", "We open at nine.", "Call us about your lost card.")
    assert ranked.splitlines()[1].endswith("Call us about your lost card.")
    assert "all-MiniLM-L6-v2\tembedding" in sonde(url, "models")


def test_a_job_on_a_terminal_renews_its_line_and_ends_with_the_verdict(url: str, folder: Path) -> None:
    shown = Terminal("train", str(folder / "intents.jsonl"), "--suffix", "support", "--url", url)
    try:
        shown.wait_for("Report: sonde report ftjob-", 120)
        assert shown.process.wait(30) == 0
    finally:
        shown.close()
    [job] = set(re.findall(r"sonde report (ftjob-\w+)", shown.plain))
    assert shown.raw.count(f"{job} ") > 3  # the line is drawn again and again
    assert "\x1b[2K" in shown.raw
    assert "\x1b[32m" in shown.raw
    assert ":support:v1 was promoted" in shown.plain
    assert "\x1b[31mred" not in shown.raw
    name = "ft:all-MiniLM-L6-v2:local:support"
    with Client(url) as client:
        wait_until(lambda: name in [model.id for model in client.models().data])
    assert sonde(url, "classify", "card stolen").splitlines()[1].split("\t")[1] == "lost"
    assert sonde(url, "report", job).startswith(f"Report of {name} ({job})\n")
    assert json.loads(sonde(url, "jobs", job, "--json"))["status"] == "succeeded"
    assert "feedback-1 is kept" in sonde(url, "feedback", "gone", "-c", "lost", "-m", name)
    assert f"{name}:v1\tyes" in sonde(url, "models", name, "versions")
    sonde(url, "models", name, "promote", "--version", "1")
    assert "deleted\tTrue" in sonde(url, "models", name, "delete", "--yes")
    with Client(url) as client, pytest.raises(NotFound, match="ft:all-MiniLM"):
        client.versions(name)


def test_ctrl_c_leaves_the_job_and_no_color_is_honoured(url: str, folder: Path) -> None:
    # The second job waits for the first, so that only one of them trains.
    left = [_leave(url, folder, environment) for environment in ({}, {"NO_COLOR": "1"})]
    for job, _ in reversed(left):
        assert json.loads(sonde(url, "jobs", job, "--json"))["status"] in ("queued", "validating_files", "running")
        sonde(url, "jobs", job, "cancel")
    assert [re.search(r"\x1b\[[0-9;]*3[0-7]m", raw) is not None for _, raw in left] == [True, False]


def _leave(url: str, folder: Path, environment: dict[str, str]) -> tuple[str, str]:
    """Start a long job on a terminal and press Ctrl-C; the job, and all that was shown."""
    words = ["train", str(folder / "intents.jsonl"), "--set", "mode=contrastive", "--set", "n_epochs=50", "--url", url]
    shown = Terminal(*words, environment=environment)
    try:
        shown.wait_for("Created fine-tuning job")
        shown.press(CTRL_C)
        shown.wait_for("To end it: sonde jobs ")
        assert shown.process.wait(30) == 130
    finally:
        shown.close()
    return re.findall(r"sonde jobs (ftjob-\w+) cancel", shown.plain)[0], shown.raw


def test_readings_are_learned_and_scored_as_a_file_and_as_frames(url: str, folder: Path) -> None:
    words = ["--task", "anomaly", "--set", "kind=series", "--set", "detector=level", "--suffix", "valve"]
    job = json.loads(sonde(url, "train", str(folder / "pump.csv"), *words, "--json"))
    assert job["result"]["decision"] == "promoted"
    model = "ft:sensors:local:valve"
    live = pd.read_csv(folder / "live.csv")
    live.index = pd.date_range("2026-01-01", periods=len(live), freq="min", tz="UTC")
    with Client(url) as client:
        wait_until(lambda: model in [one.id for one in client.models().data])
        stream = client.stream(model, contributions=True)
        pieces = pd.concat([stream.score_frame(live[:20]), stream.score_frame(live[20:])])
        columns = ["pressure", "flow"]
        at_once = client.anomaly(model=model, series=live[columns].to_numpy(), columns=columns)
    assert pieces.index.equals(live.index)
    assert pieces["score"].tolist() == pytest.approx([item.score for item in at_once.data])
    assert pieces["contribution_pressure"].iloc[-1] > 0.9
    out = sonde(url, "anomaly", "--model", model, "--file", str(folder / "live.csv"))
    assert out.splitlines()[-1] == f"25 rows, {int(pieces['is_anomaly'].sum())} anomalies at alpha 0.05"
    assert "pressure 100%" in out
