"""A `train` key cannot replace another key's model: its versions are held, and the reason says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.filesystem import sha256_of
from models.registry import registry
from models.registry.artifact import Manifest, verify
from models.registry.held_out import HeldOut
from models.registry.registry import Registry
from service.auth import Keyring
from service.jobs.promotion_rights import PromotionRights
from service.jobs.publishing import Publisher
from tests.support.jobs import JobHarness, claim_job

SUPPORT = "ft:fake:local:support"
GOLDEN = {"texts": ["a"], "rows": [[0.5, 0.5]], "tolerance": 0.001}


class Team:
    """Keys A and B with scope `train`, an admin's key, and jobs whose result is published without a trainer."""

    def __init__(self, home: Path, *, shared: bool = False) -> None:
        self.harness = JobHarness(home, lease_s=60.0)  # no worker renews it
        self.keyring = Keyring(home / "keys.json")
        self.registry = Registry(home / "models")
        rights = PromotionRights(self.registry, Keyring(home / "keys.json"), shared=shared)
        self.publisher = Publisher(
            self.harness.store, self.registry, rights, check=lambda path, spec: None, auto_promote=True, max_ece=0.1
        )

    def make_key(self, scope: Any = "train") -> str:
        return self.keyring.create([scope])[0].id

    def begin(self, owner: str | None, suffix: str = "support", **changes: Any) -> Any:
        """Queue a job, claim it, and write what its training gave; publish it with `finish`."""
        new = replace(self.harness.new(suffix), owner=owner, **changes)
        self.harness.start(new)
        job = claim_job(self.harness.store, self.harness.leases)
        assert job.id == new.id
        return job

    def finish(self, job: Any, score: float = 1.0, incumbent: float = 0.0, **more: Any) -> dict[str, Any]:
        """Publish a job's result; `incumbent` is what its own rows say of the version in service."""
        attempt = self.harness.home / "jobs" / job.id / "attempt-1"
        (attempt / "result").mkdir(parents=True)
        (attempt / "result" / "head.json").write_text("{}")
        metric = {"classification": "macro_f1", "embedding": "ndcg_at_10", "anomaly": "primary"}[job.task]
        now = self.publisher.incumbent(job)
        result = {
            "task": job.task,
            "encoder": "base",
            "base_version": "0123456789ab",
            "labels": ["a", "b"],
            "golden": GOLDEN,
            "metrics": {metric: score},
            "incumbent_metrics": {metric: incumbent} if now.serves else None,
            "mode": "frozen",
            "sensor": {"kind": job.hyperparameters["kind"]} if job.task == "anomaly" else None,
            **more,
        }
        self.publisher.publish(
            job, attempt, result, serves=now.serves, generation=now.generation, objection=now.objection
        )
        made = self.harness.get(job.id).result
        assert made is not None
        return made

    def run(self, owner: str | None, suffix: str = "support", **changes: Any) -> dict[str, Any]:
        return self.finish(self.begin(owner, suffix, **changes))

    def serving(self, name: str = SUPPORT) -> int | None:
        now = self.registry.current(name)
        return now.version if now else None


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    made = Team(tmp_path)
    yield made
    made.harness.close()


@pytest.fixture
def shared_team(tmp_path: Path) -> Iterator[Team]:
    made = Team(tmp_path, shared=True)
    yield made
    made.harness.close()


@pytest.mark.parametrize(
    "changes", [{}, {"task": "embedding"}, {"task": "anomaly", "hyperparameters": {"kind": "series"}}]
)
def test_a_model_of_another_key_stays_in_service(team: Team, changes: dict[str, Any]) -> None:
    a, b = team.make_key(), team.make_key()
    assert team.run(a, **changes)["decision"] == "promoted"
    attack = team.run(b, **changes)
    assert (attack["version"], attack["decision"], team.serving()) == (2, "held", 1)
    why = (
        f"its key, {b}, does not own {SUPPORT}: an admin promotes the version, or grants the name to the key "
        f"(PUT /v1/models/{SUPPORT}/grants/{b}). By the job's own rows it passes the gate: "
    )
    assert attack["why"].startswith(why)
    assert team.run(a, **changes)["decision"] == "promoted", "the owner goes on as before"
    assert team.serving() == 3


def test_a_granted_key_is_promoted_until_the_grant_is_taken_back(team: Team) -> None:
    a, b = team.make_key(), team.make_key()
    team.run(a)
    team.registry.grant(SUPPORT, b, by="admin")
    assert team.run(b)["decision"] == "promoted"
    queued = team.begin(b)
    team.registry.revoke_grant(SUPPORT, b, by="admin")
    assert team.finish(queued)["decision"] == "held", "the grant counts when the version is published"


def test_an_admin_is_promoted_and_owns_nothing_by_that(team: Team) -> None:
    a, admin = team.make_key(), team.make_key("admin")
    team.run(a)
    assert team.run(admin)["decision"] == "promoted"
    assert team.run(a)["decision"] == "promoted"


@pytest.mark.parametrize("scope", ["train", "admin"])
def test_a_key_that_was_revoked_while_it_trained_is_held(team: Team, scope: str) -> None:
    team.make_key()
    key = team.make_key(scope)
    team.run(key)
    begun = team.begin(key)
    team.keyring.revoke(key)
    held = team.finish(begun)
    assert (held["decision"], team.serving()) == ("held", 1)
    assert held["why"].startswith(f"its key, {key}, was revoked or has expired: an admin promotes the version")


def test_without_keys_every_job_is_promoted(team: Team) -> None:
    for owner in ("anonymous", None, "anonymous"):
        assert team.run(owner)["decision"] == "promoted"
    assert team.serving() == 3


def test_keys_made_later_close_a_keyless_home(team: Team) -> None:
    team.run("anonymous")
    begun = team.begin("anonymous")
    b, admin = team.make_key(), team.make_key("admin")
    why = team.finish(begun)["why"]
    assert why.startswith("its job was started without a key, and keys are in use now: an admin promotes the version")
    assert team.run(b)["decision"] == "held"
    assert team.run(admin)["decision"] == "promoted"
    team.registry.set_owner(SUPPORT, b, by=admin)
    assert team.run(b)["decision"] == "promoted"


def test_the_keys_file_gone_opens_nothing(team: Team) -> None:
    a, b = team.make_key(), team.make_key()
    team.run(a)
    (team.harness.home / "keys.json").unlink()
    assert team.run(b)["decision"] == "held"
    assert Team(team.harness.home).run(b)["decision"] == "held", "in a worker that starts without it, too"


def test_a_name_from_before_owners_belongs_to_no_key(team: Team) -> None:
    b, admin = team.make_key(), team.make_key("admin")
    team.run(b)
    (team.harness.home / "models" / SUPPORT.replace(":", "--") / "owner.json").unlink()
    held = team.run(b)
    assert held["why"].startswith(
        f"{SUPPORT} has no owner: an admin promotes the version, or gives the name to a key "
        f"(PUT /v1/models/{SUPPORT}/owner)"
    )
    assert team.run(admin)["decision"] == "promoted"


def test_a_damaged_owner_holds_the_version(team: Team, caplog: pytest.LogCaptureFixture) -> None:
    a = team.make_key()
    team.run(a)
    (team.harness.home / "models" / SUPPORT.replace(":", "--") / "owner.json").write_text("{")
    assert team.run(a)["why"].startswith(f"{SUPPORT} has no owner")
    assert "cannot read the owner of a name" in caplog.text


@pytest.mark.slow
def test_one_team_shares_its_names(shared_team: Team) -> None:
    a, b = shared_team.make_key(), shared_team.make_key()
    shared_team.run(a)
    assert shared_team.run(b)["decision"] == "promoted"
    begun = shared_team.begin(b)
    shared_team.keyring.revoke(b)
    assert shared_team.finish(begun)["decision"] == "held"


def test_a_suffix_of_other_case_takes_nothing_over(team: Team) -> None:
    a, b = team.make_key(), team.make_key()
    team.run(a)
    team.registry.set_alias("prod", SUPPORT)
    assert team.run(b, "Support")["decision"] == "promoted", "another name, which B owns"
    assert (team.serving(), team.registry.aliases()) == (1, {"prod": SUPPORT})


def test_a_name_that_was_deleted_stays_its_owners(team: Team) -> None:
    a, b = team.make_key(), team.make_key()
    team.run(a)
    team.registry.withdraw(SUPPORT, by="admin", why="")
    team.registry.delete_all(SUPPORT, by="admin")
    assert team.run(b)["decision"] == "held"
    assert team.run(a)["decision"] == "promoted"


def test_a_withdrawn_model_is_not_replaced_by_another_key(team: Team) -> None:
    a, b = team.make_key(), team.make_key()
    team.run(a)
    team.registry.withdraw(SUPPORT, by="admin", why="")
    assert (team.run(b)["decision"], team.serving()) == ("held", None)


@pytest.mark.parametrize(("ours", "decision"), [(0.5, "held"), (0.95, "promoted")])
def test_a_model_must_reach_the_one_that_was_withdrawn(team: Team, ours: float, decision: str) -> None:
    a = team.make_key()
    team.run(a)
    team.registry.withdraw(SUPPORT, by="admin", why="")
    incumbent = team.publisher.incumbent(begun := team.begin(a))
    assert (incumbent.path, incumbent.serves) == (team.registry.path(SUPPORT, 1), True)
    found = team.finish(begun, metrics={"macro_f1": ours}, incumbent_metrics={"macro_f1": 0.9})
    assert found["decision"] == decision
    if decision == "held":
        assert "less than the 0.9000 of what served last" in found["why"]


def test_a_model_is_held_where_the_files_of_the_one_that_served_last_are_lost(team: Team) -> None:
    a = team.make_key()
    team.run(a)
    team.registry.withdraw(SUPPORT, by="admin", why="")
    shutil.rmtree(team.registry.path(SUPPORT, 1))
    lost = team.run(a)
    assert (lost["decision"], "has no version 1" in lost["why"]) == ("held", True)


# --- the rows bound to a name
# ------------------------------------------------------------------------------------------------------------------


def bind(team: Team, file: str = "file-1") -> str:
    """Bind rows to the name; their SHA-256."""
    rows = team.harness.home / "bound.jsonl"
    rows.write_text(json.dumps({"text": file, "label": "b"}) + "\n")
    digest = sha256_of(rows)
    team.registry.bind_held_out(
        SUPPORT, rows, HeldOut(file, "jsonl", digest, 1, "key-a", 0, "classification", {}, {"mode": "frozen"})
    )
    return digest


def measured(sha256: str, ours: float | None, theirs: float | None, objection: str | None = None) -> dict[str, Any]:
    metrics = [None if value is None else {"macro_f1": value} for value in (ours, theirs)]
    return {
        "sha256": sha256,
        "rows": 1,
        "left_out": 0,
        "metrics": metrics[0],
        "incumbent_metrics": metrics[1],
        "objection": objection,
    }


@pytest.mark.parametrize("sender", ["owner", "granted", "admin", "keyless"])
def test_what_loses_on_the_bound_rows_is_held_with_every_key(team: Team, sender: str) -> None:
    a, b = ("anonymous", "anonymous") if sender == "keyless" else (team.make_key(), team.make_key())
    team.run(a)
    rows = bind(team)
    if sender == "granted":
        team.registry.grant(SUPPORT, b, by="admin")
    owner = {"owner": a, "granted": b, "keyless": b}.get(sender) or team.make_key("admin")
    worse = team.finish(team.begin(owner), bound=measured(rows, 0.0, 1.0))
    assert (worse["decision"], team.serving()) == ("held", 1)
    assert worse["why"] == (
        "its macro-F1 on the rows bound to this name is 0.0000, less than the 1.0000 of what serves now"
    )
    assert worse["bound"]["metrics"] == {"macro_f1": 0.0}
    better = team.finish(team.begin(owner), bound=measured(rows, 1.0, 1.0))
    assert better["decision"] == "promoted"
    assert better["why"] == (
        "macro-F1 on the held-out rows is 1.0000, against 0.0000 of what served before; "
        "macro-F1 on the rows bound to this name is 1.0000, against 1.0000 of what served before"
    )


def test_what_loses_on_the_bound_rows_is_held_for_that_and_not_for_its_key(team: Team) -> None:
    a, b = team.make_key(), team.make_key()
    team.run(a)
    rows = bind(team)
    assert "less than" in team.finish(team.begin(b), bound=measured(rows, 0.0, 1.0))["why"]
    assert "does not own" in team.finish(team.begin(b), bound=measured(rows, 1.0, 1.0))["why"]


def test_what_was_not_measured_on_the_bound_rows_is_held(team: Team) -> None:
    team.run("anonymous")
    rows = bind(team)
    objection = "the version in service cannot be measured on the rows bound to this name: it reads a"
    assert team.finish(team.begin(None), bound=measured(rows, 1.0, None, objection))["why"] == objection
    held = team.finish(team.begin(None), bound=measured(rows, 1.0, None))
    assert held["why"].startswith(
        "it cannot be compared with what serves now, which was not measured on the rows bound"
    )
    late = "rows were bound to this name after its training began, so they did not judge it: start the job again"
    begun = team.begin(None)
    others = bind(team, "file-2")
    assert team.finish(begun, bound=measured(rows, 1.0, 1.0))["why"] == late
    assert team.run(None)["why"] == late
    assert team.finish(team.begin(None), bound=measured(others, 1.0, 1.0))["decision"] == "promoted"
    team.registry.unbind_held_out(SUPPORT, by="admin")
    assert team.run(None)["decision"] == "promoted"


@pytest.mark.parametrize(
    ("change", "why"),
    [("owner", "does not own"), ("key", "was revoked or has expired"), ("rows", "rows were bound to this name")],
)
def test_what_changes_while_files_are_verified_counts(
    team: Team, change: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.make_key()
    key = team.make_key()
    team.run(key)
    begun = team.begin(key)

    def verify_slowly(path: Path) -> Manifest:
        if change == "owner":
            team.registry.set_owner(SUPPORT, "key-of-another", by="admin")
        elif change == "key":
            team.keyring.revoke(key)
        else:
            bind(team)
        return verify(path)

    monkeypatch.setattr(registry, "verify", verify_slowly)
    held = team.finish(begun)
    assert (held["decision"], team.serving()) == ("held", 1)
    assert why in held["why"]


def test_without_a_version_in_service_the_bound_rows_only_have_to_be_readable(team: Team) -> None:
    team.run("anonymous")
    rows = bind(team)
    team.registry.delete_all(SUPPORT, by="admin")
    held = team.finish(team.begin(None), bound=measured(rows, None, None, "it cannot be measured"))
    assert (held["decision"], held["why"]) == ("held", "it cannot be measured")
    assert team.finish(team.begin(None), bound=measured(rows, 0.5, None))["decision"] == "promoted"
