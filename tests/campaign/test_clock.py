"""The wall clock jumps an hour forth and back: each job runs once, and deadlines and leases hold."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.campaign.conftest import Figure
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp
from tests.support.jobs import JobHarness, WorkerProcess, workers
from tests.support.processes import shifted_clock

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.real, pytest.mark.timeout(600)]

HOUR_S = 3600.0


@pytest.mark.parametrize("first", [HOUR_S, -HOUR_S], ids=["forth", "back"])
def test_jobs_run_once_while_the_clock_jumps(tmp_path: Path, figure: Figure, first: float) -> None:
    """All processes of the host see the jump at once, as they see one of NTP.

    Workers die right before the clock goes back: leases that then end in an hour must not keep their jobs.
    """
    clock = tmp_path / "clock"
    flag = f"clock={clock}"
    with shifted_clock(clock) as set_clock, workers(harness := JobHarness(tmp_path), 2, flag) as running:
        ids = [harness.submit(f"clock-{n}", steps=60, checkpoint_every=10, step_s=0.05) for n in range(3)]
        for before, shift in ((0.0, first), (first, 0.0)):
            harness.until_step(ids[0], 5)
            if shift < before:
                for worker in running:
                    worker.kill()
                running += [WorkerProcess(harness, flag) for _ in range(2)]
            set_clock(shift)
            time.sleep(1.0)
        ids += [harness.submit("clock-after", steps=2)]
        done = [harness.until(job, timeout_s=120) for job in ids]
    attempts = [job.attempt for job in done]
    figure(f"{first / HOUR_S:+.0f} h: {len(done)} jobs succeeded in {sum(attempts)} attempts")
    assert [job.status for job in done] == ["succeeded"] * len(ids)
    assert [(harness.promotions(job), harness.versions(job)) for job in ids] == [(1, 1)] * len(ids)
    harness.close()


@pytest.mark.parametrize("shift", [HOUR_S, -HOUR_S], ids=["forth", "back"])
def test_requests_keep_their_deadlines(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, shift: float) -> None:
    real, model = time.time, FakeModel("fake")
    with TestClient(make_app(model)) as client:
        body = {"model": "fake", "input": "hello"}
        monkeypatch.setattr(time, "time", lambda: real() + shift)
        assert client.post("/v1/embeddings", json=body).status_code == 200
        model.gate.clear()
        began = time.monotonic()
        late = client.post("/v1/embeddings", json={**body, "input": "late"}, headers={"X-Request-Timeout-Ms": "200"})
        model.gate.set()
        assert late.status_code == 504
        assert time.monotonic() - began < 5
