"""A training process that keeps the contract and learns nothing; hyperparameters set how it behaves.

steps, step_s       number and duration of steps; each writes a line to `trace` beside the attempts
step_s_again        duration of steps in all attempts but the first (`step_s`)
checkpoint_every    steps between checkpoints (5)
fail_code, …        write error.json with that code, message and param, and the message to stderr; exit 3
crash_at            kill itself at this step, in the attempts before `crash_until` (all)
deaf                ignore SIGTERM
score, ece          macro_f1 and ece of result.json
full                exit 4, as on a full disk
hoard_mb            take this much memory, and keep it
chatter             write a line that is no JSON
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

stop = False


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def on_term(number: int, frame: object) -> None:
    global stop
    stop = True


def save(directory: Path, step: int) -> None:
    path = directory / "checkpoints" / f"step-{step:08d}"
    staging = path.with_name(f".{path.name}")
    staging.mkdir(parents=True, exist_ok=True)
    (staging / "step.json").write_text(json.dumps({"step": step}))
    staging.rename(path)
    say(type="checkpoint", step=step, path=str(path), metrics={"train_loss": 1 / (step + 1)})


def finish(directory: Path, job: dict[str, Any], score: float, ece: float) -> None:
    result = directory / "result"
    result.mkdir(exist_ok=True)
    (result / "head.json").write_text(json.dumps({"job": job["job"]}))
    (directory / "report.json").write_text(json.dumps({"findings": []}))
    (directory / "report.md").write_text("# Report\n")
    golden = {"texts": ["a"], "rows": [[0.5, 0.5]], "tolerance": 0.001}
    content = {
        "task": job["task"],
        "encoder": "base",
        "base_version": "0123456789ab",
        "labels": ["a", "b"],
        "golden": golden,
        "metrics": {"macro_f1": score, "ece": ece},
        "incumbent_metrics": {"macro_f1": 0.5} if job["incumbent"] else None,
        "trained_tokens": 7,
        "mode": "frozen",
    }
    partial = directory / "result.part"
    partial.write_text(json.dumps(content))
    partial.rename(directory / "result.json")


def main() -> int:
    directory = Path(sys.argv[1])
    job = json.loads((directory / "job.json").read_text())
    wanted = job["hyperparameters"]
    attempt = int(directory.name.removeprefix("attempt-"))
    signal.signal(signal.SIGTERM, signal.SIG_IGN if wanted.get("deaf") else on_term)
    say(type="phase", phase="validating_files")
    Path(job["training_file"]).read_bytes()
    if wanted.get("chatter"):
        print("not json at all", flush=True)
        say(type="metrics", data={"step": 0, "loss": float("nan")})
    hoard = bytearray(b"x") * (wanted.get("hoard_mb", 0) << 20)
    if wanted.get("full"):
        return 4
    if "fail_code" in wanted:
        error = {
            "code": wanted["fail_code"],
            "message": wanted.get("fail_message", "it is wrong"),
            "param": wanted.get("fail_param"),
        }
        print("Traceback:", error["message"], file=sys.stderr)
        (directory / "report.json").write_text(json.dumps({"findings": ["it is wrong"]}))
        (directory / "error.json").write_text(json.dumps(error))
        return 3
    step = json.loads((Path(job["checkpoint"]) / "step.json").read_text())["step"] if job["checkpoint"] else 0
    say(type="phase", phase="running")
    steps, every = wanted.get("steps", 10), wanted.get("checkpoint_every", 5)
    step_s = wanted.get("step_s", 0.02) if attempt == 1 else wanted.get("step_s_again", wanted.get("step_s", 0.02))
    while step < steps:
        if stop:
            save(directory, step)
            return 143
        if step == wanted.get("crash_at") and attempt < wanted.get("crash_until", 1000):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(step_s)
        step += 1
        with (directory.parent / "trace").open("a") as trace:
            trace.write(f"{attempt} {step} {os.getpid()}\n")
        data = {"step": step, "total_steps": steps, "loss": 1 / step, "learning_rate": 0.1, "examples_per_s": 9.0}
        say(type="metrics", data={**data, "eta_s": (steps - step) * step_s})
        if step % every == 0:
            save(directory, step)
    del hoard
    finish(directory, job, wanted.get("score", 0.9), wanted.get("ece", 0.01))
    return 0


if __name__ == "__main__":
    sys.exit(main())
