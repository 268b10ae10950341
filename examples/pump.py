"""A failing pump: from a CSV of normal operation to a detector that names the time and the sensor.

The figures of docs/guides/sensors.md come from it.

sonde up                                  # in one terminal
python -m examples.pump ./pump            # in another; writes the CSVs and the plots there
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
import urllib.error
import urllib.request
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("pressure", "flow", "temperature", "vibration")
START = datetime(2026, 11, 1, tzinfo=UTC)
PERIOD = timedelta(minutes=1)
NORMAL_READINGS = 8000
LIVE_READINGS = 2000
# Readings of the second file between which the bearing fails: vibration and temperature rise.
FAULT = slice(1200, 1500)
# The offset of the vibration sensor after maintenance.
HIGHER = 0.06
_PIECE = 60


def pump(count: int, seed: int) -> NDArray[np.float64]:
    """Readings [count, 4] of a healthy pump, whose sensors follow a varying load."""
    random = np.random.default_rng(seed)
    load = 0.15 * np.sin(np.arange(count) / 45.0)
    noise = random.standard_normal((count, len(COLUMNS)))
    load += _autoregressive(random.standard_normal(count), 0.95, 0.03)
    warmth = _autoregressive(load + 0.1 * noise[:, 2], 0.9, 0.1)
    values = [2.0 + 0.8 * load, 12.0 + 4.0 * load, 40.0 + 6.0 * warmth, 0.5 + 0.2 * np.abs(load)]
    return np.stack(values, axis=1) + noise * (0.03, 0.15, 0.2, 0.03)


def live(seed: int = 2) -> NDArray[np.float64]:
    """A day and a half, in which the bearing fails for five hours."""
    readings = pump(LIVE_READINGS, seed)
    worse = np.linspace(0, 1, FAULT.stop - FAULT.start)
    readings[FAULT, 3] += 0.35 * worse
    readings[FAULT, 2] += 2.0 * worse
    return readings


def remounted(seed: int = 3) -> NDArray[np.float64]:
    """A healthy pump whose vibration sensor was mounted again and reads higher."""
    readings = pump(LIVE_READINGS, seed)
    readings[:, 3] += HIGHER
    return readings


def write(path: Path, readings: NDArray[np.float64], start: datetime) -> Path:
    """Write a CSV with timestamps."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["time", *COLUMNS])
        for number, row in enumerate(readings.tolist()):
            writer.writerow([(start + number * PERIOD).isoformat(), *(f"{value:.4f}" for value in row)])
    return path


class Plant:
    """A client of the service that needs the standard library alone."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return a JSON answer."""
        data = None if body is None else json.dumps(body).encode()
        return json.loads(self.bytes(path, data, "application/json"))

    def bytes(self, path: str, data: bytes | None = None, kind: str = "application/json") -> bytes:
        """Return an answer's bytes."""
        request = urllib.request.Request(self.url + path, data, {"content-type": kind})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            raise SystemExit(f"nothing answers at {self.url}: start 'sonde up'") from None
        return content

    def upload(self, path: Path) -> str:
        """Upload a file and return its id."""
        edge = uuid.uuid4().hex
        fields = f'--{edge}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        fields += f'--{edge}\r\ncontent-disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
        body = fields.encode() + path.read_bytes() + f"\r\n--{edge}--\r\n".encode()
        made: str = json.loads(self.bytes("/v1/files", body, f"multipart/form-data; boundary={edge}"))["id"]
        return made

    def train(self, path: Path, suffix: str, task: str, **hyperparameters: object) -> dict[str, Any]:
        """Run a job and return it once it has succeeded."""
        method = {
            "type": "supervised",
            "supervised": {"task": task, "hyperparameters": {"timestamp": "time", **hyperparameters}},
        }
        body = {"model": "sensors", "training_file": self.upload(path), "suffix": suffix, "seed": 7, "method": method}
        job: dict[str, Any] = self.call("/v1/fine_tuning/jobs", body)
        while job["status"] not in ("succeeded", "failed", "cancelled"):
            time.sleep(0.3)
            job = self.call(f"/v1/fine_tuning/jobs/{job['id']}")
        if job["status"] != "succeeded":
            raise SystemExit(f"the job {job['status']}: {job['error']}")
        return job

    def stream(self, model: str, readings: NDArray[np.float64], start: datetime, alpha: float) -> list[dict[str, Any]]:
        """Score readings hour by hour; `state` carries the stream from one call to the next."""
        answers: list[dict[str, Any]] = []
        for at in range(0, len(readings), _PIECE):
            piece = readings[at : at + _PIECE].tolist()
            times = [(start + (at + number) * PERIOD).isoformat() for number in range(len(piece))]
            state = answers[-1]["state"] if answers else None
            body = {
                "model": model,
                "series": piece,
                "timestamps": times,
                "state": state,
                "alpha": alpha,
                "contributions": True,
            }
            answers.append(self.call("/v1/anomaly/score", body))
        return answers


def wait_for(plant: Plant, model: str) -> None:
    """Wait until the service has the model in service."""
    deadline = time.monotonic() + 20
    while all(one["id"] != model for one in plant.call("/v1/models")["data"]):
        if time.monotonic() > deadline:
            raise SystemExit(f"{model} was not put in service")
        time.sleep(0.1)


def print_findings(name: str, answers: list[dict[str, Any]]) -> None:
    """Print anomalies, drift and blame."""
    rows = [row for answer in answers for row in answer["data"]]
    strange = [number for number, row in enumerate(rows) if row["is_anomaly"]]
    inside = [number for number in strange if FAULT.start <= number < FAULT.stop]
    drifts = [number for number, answer in enumerate(answers) if (answer["drift"] or {}).get("detected")]
    alpha = answers[0]["alpha"]
    print(
        f"{name}, alpha {alpha:g}: {len(strange)} of {len(rows)} readings are anomalies, {len(inside)} of them in "
        f"the fault"
    )
    print(f"  drift: {f'from hour {drifts[0]} on' if drifts else 'none'}")
    if strange:
        shares = {column: np.mean([rows[number]["contributions"][column] for number in strange]) for column in COLUMNS}
        print(
            "  to blame: "
            + ", ".join(f"{column} {share:.2f}" for column, share in sorted(shares.items(), key=lambda item: -item[1]))
        )


def main() -> None:
    """Make up readings, train a detector, stream the readings and draw them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--url", default=os.environ.get("SONDE_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--detector", default="level", help="auto compares all detectors of series, which takes longer")
    parsed = parser.parse_args()
    parsed.directory.mkdir(parents=True, exist_ok=True)
    later = START + NORMAL_READINGS * PERIOD
    normal = write(parsed.directory / "normal.csv", pump(NORMAL_READINGS, 1), START)
    files = {
        name: write(parsed.directory / f"{name}.csv", made, later)
        for name, made in (("live", live()), ("remounted", remounted()))
    }
    plant = Plant(parsed.url)
    job = plant.train(normal, "pump", "anomaly", kind="series", detector=parsed.detector)
    model = job["fine_tuned_model"].rpartition(":")[0]
    print(f"{job['fine_tuned_model']}: {job['result']['decision']}, {job['result']['mode']}, {job['result']['why']}")
    wait_for(plant, job["fine_tuned_model"])  # an older version may serve under the name
    for name, readings in (("live", live()), ("remounted", remounted())):
        for alpha in (0.05, 0.01):
            print_findings(name, plant.stream(model, readings, later, alpha))
    for plot in ("series", "contributions"):
        drawn = plant.bytes(f"/v1/fine_tuning/jobs/{job['id']}/report/plots/{plot}.png")
        (parsed.directory / f"report-{plot}.png").write_bytes(drawn)
    _draw(parsed, model, files)


def _draw(parsed: argparse.Namespace, model: str, files: dict[str, Path]) -> None:
    """Draw each file with `sonde score`."""
    from service.cli import main as sonde

    for name, path in files.items():
        plot = str(parsed.directory / f"{name}.png")
        flags = ["--url", parsed.url, "--timestamp", "time", "--alpha", "0.01", "--plot", plot]
        sonde(["score", str(path), "--model", model, *flags])


def _autoregressive(steps: NDArray[np.float64], memory: float, size: float) -> NDArray[np.float64]:
    """An autoregressive series: each value is `memory` times the last one, plus a step."""
    values = np.empty_like(steps)
    last = 0.0
    for number, step in enumerate(steps.tolist()):
        last = memory * last + size * step
        values[number] = last
    return values


if __name__ == "__main__":
    main()
