"""Many jobs and eight workers: each job runs once."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.campaign.conftest import Figure
from tests.support.databases import Postgres
from tests.support.jobs import JobHarness, workers
from tests.support.server import wait_until
from tests.support.size import Size

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.real, pytest.mark.timeout(0)]


# The default. On a busy machine, workers that share SQLite can miss the shorter leases of other tests.
LEASE_S = 15.0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_job_runs_once(
    request: pytest.FixtureRequest, tmp_path: Path, size: Size, figure: Figure, kind: str
) -> None:
    jobs, running = size.of(24, 1000), size.of(3, 8)
    server: Postgres | None = request.getfixturevalue("postgresql") if kind == "postgresql" else None
    with closing(JobHarness(tmp_path, server.new_database() if server else "", LEASE_S)) as harness:
        ids = [harness.submit(steps=1, step_s=0.0) for _ in range(jobs)]
        with workers(harness, running, f"job_lease_s={LEASE_S}"):
            wait_until(lambda: all(harness.get(job).status == "succeeded" for job in ids), 60 + 5.0 * jobs)
        attempts = [harness.get(job).attempt for job in ids]
        traces = [len(harness.trace(job)) for job in ids]
        promoted = [(harness.promotions(job), harness.versions(job)) for job in ids]
    figure(f"{kind}: {jobs} jobs, {running} workers, {sum(traces) - jobs} run twice")
    assert attempts == traces == [1] * jobs
    assert promoted == [(1, 1)] * jobs
