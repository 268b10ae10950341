"""The time from the upload of Banking77 to its promotion, over HTTP, on `sonde up`.

python -m benchmarks.upload_to_promoted [--data ../shared/data] [--mode frozen] [--each 0] [--device auto]

The seconds begin with the upload and end when a request under the model's name is answered by the new version.
`--each 10` takes ten rows of each label instead of all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.training import MODEL, banking, few

_LAST = {"succeeded", "failed", "cancelled"}


def rows(data: Path, each: int) -> bytes:
    """JSONL of every row of the training file, or of `each` rows of each label."""
    train, rest = banking(data)
    chosen = few([*train, *rest], each, seed=0) if each else [*train, *rest]
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in chosen).encode()


def measure(client: httpx.Client, content: bytes, mode: str) -> None:
    """Upload, train, wait for the promotion; print when each was done."""
    began = time.monotonic()
    uploaded = client.post("/files", files={"file": ("banking77.jsonl", content)}, data={"purpose": "fine-tune"}).json()
    method = {"type": "supervised", "supervised": {"task": "classification", "hyperparameters": {"mode": mode}}}
    asked = {"model": MODEL, "training_file": uploaded["id"], "suffix": "banking77", "method": method}
    job = client.post("/fine_tuning/jobs", json=asked).json()
    print(f"uploaded {len(content.splitlines())} rows after {time.monotonic() - began:.1f} s", flush=True)
    told: set[str] = set()
    status = ""
    while status not in _LAST:
        now = client.get(f"/fine_tuning/jobs/{job['id']}").json()
        status = now["status"]
        for event in reversed(
            client.get(f"/fine_tuning/jobs/{job['id']}/events", params={"limit": 100}).json()["data"]
        ):
            if event["id"] not in told and (
                event["type"] == "message" or event["data"]["step"] == event["data"]["total_steps"]
            ):
                print(f"{time.monotonic() - began:6.1f} s  {status}: {event['message']}", flush=True)
            told.add(event["id"])
        time.sleep(0.2)
    print(f"{time.monotonic() - began:6.1f} s  {status}: {now['error'] or now['result']['metrics']}", flush=True)
    if now["status"] == "succeeded":
        name = now["fine_tuned_model"].rpartition(":")[0]
        while client.post("/classify", json={"model": name, "input": "my card is gone"}).status_code != 200:
            time.sleep(0.05)
        print(f"serves after {time.monotonic() - began:.1f} s", flush=True)


def main() -> None:
    """Start `sonde up`, measure, end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--mode", default="frozen")
    parser.add_argument("--each", type=int, default=0, help="rows of each label; 0 takes all")
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "service.cli", "up", "--port", "0", "--home", home, "--device", chosen.device]
        with (Path(home) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split("ready on ")[1].split(" ")[0]
            with httpx.Client(base_url=f"{url}/v1", timeout=60) as client:
                measure(client, rows(chosen.data, chosen.each), chosen.mode)
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
