"""The checks of the campaign: what each demands, and the tests that it runs."""

from __future__ import annotations

from dataclasses import dataclass

JOBS = "tests/service/jobs"
DEATHS = f"{JOBS}/test_worker_deaths.py"
WATCHER = "tests/service/serving/test_registry_watcher.py"


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its aim, its tests as pytest names them, and the guard without which it was seen to fail."""

    name: str
    aim: str
    tests: tuple[str, ...]
    guard: str = ""


def _own(name: str, aim: str, guard: str = "") -> Check:
    """A check with a file of its own here."""
    return Check(name, aim, (f"tests/campaign/test_{name.replace('-', '_')}.py",), guard)


CHECKS = (
    _own("overload", "twice the capacity: goodput ≥ 90 %, refusals' p99 ≤ 50 ms", "the limit of admission"),
    _own("deadlines", "requests that expire in the queue cost no forward pass", "both removals from the queue"),
    _own("hang-ups", "1,000 callers hang up: no work, place or socket is left", "the watch for callers that hang up"),
    _own("poison", "1 text of 32 that fails the model fails alone", "the halving of a failed batch"),
    _own(
        "out-of-memory",
        "every tenth batch runs out of memory: ≥ 99 % of requests answered",
        "the halving of a batch that is too large",
    ),
    _own(
        "connections", "500 slow and 500 idle connections hold up no caller and are closed", "the timer of the protocol"
    ),
    _own("sigterm", "20 stops under load lose no request that was sent before", "the wait for open requests"),
    Check(
        "swaps",
        "50 promotions under load fail no request and mix no versions",
        (f"{WATCHER}::test_promotions_under_load_fail_no_request_and_mix_no_versions",),
        "the wait for requests that hold the old version",
    ),
    _own(
        "soak", "2 h of all kinds of requests: memory grows by ≤ 50 MB", "no guard: a leak of 1 MB a request was put in"
    ),
    Check(
        "databases",
        "restarted, away, frozen and locked databases lose no job and hold up no other work",
        (
            f"{DEATHS}::test_postgresql_goes_away_under_a_running_job",
            f"{DEATHS}::test_a_worker_paused_past_its_lease_stops_its_trainer_and_writes_nothing",
            f"{JOBS}/test_database.py",
            f"{JOBS}/test_hung_databases.py",
            f"{JOBS}/test_leases.py",
        ),
        "the server's limit of time for a statement",
    ),
    Check(
        "kills",
        "100 kills of trainers and workers: each job ends, once",
        (f"{DEATHS}::test_kills_at_random_points_lose_nothing",),
        "the return of jobs whose lease has expired",
    ),
    _own(
        "api-kills",
        "100 kills of the API: every answer holds, no job is started twice",
        "the look-up of the earlier answer",
    ),
    _own("many-jobs", "1,000 jobs and 8 workers: each runs once", "both locks of a claim, on PostgreSQL"),
    _own(
        "kill-at-every-write",
        "SIGKILL, ENOSPC and EDQUOT at each system call that writes: old or new state",
        "the replacement of files",
    ),
    _own(
        "full-disk",
        "on a full or read-only file system Sonde refuses each write by name and goes on reading",
        "the database's error of a full disk",
    ),
    Check(
        "idempotency",
        "a repeated key starts one job, also at the same time and after a restart",
        (
            f"{JOBS}/test_store.py::test_the_same_key_and_body_give_the_same_answer",
            f"{JOBS}/test_store.py::test_the_same_key_at_the_same_time_starts_one_job",
            "tests/service/api/routes/test_jobs.py::test_an_idempotency_key_starts_one_job",
            "tests/service/api/routes/test_jobs.py::test_a_request_is_answered_as_before_though_its_file_is_gone",
        ),
        "the look-up of the earlier answer",
    ),
    _own(
        "clock",
        "the clock jumps an hour forth and back, as workers die: jobs run once, deadlines hold",
        "the latest end of a lease",
    ),
    _own("identities", "every route, those of the V2 protocol too, with every identity", "the check of the scope"),
    Check("schema", "schemathesis, ≥ 10,000 cases", ("tests/service/api/test_openapi.py",), "null as an absent field"),
    _own(
        "hostile-corpus",
        "≥ 100 bodies and files: each ≤ 20 s; live ≤ 250 ms; ≤ 1.5 times the idle memory + 256 MB",
        "the counts before a body is parsed",
    ),
    _own("parsers", "every parser, an hour of mutated inputs: no finding", "the bound of timestamps"),
    Check(
        "operators",
        "operators of programs that crash PyTorch or read beyond a tensor are refused",
        ("tests/models/programs/test_operator_guards.py",),
        "the checks before operators: the process ends by SIGFPE or SIGSEGV",
    ),
    Check(
        "parts",
        "messages, bodies and images of very many parts are refused before they are built",
        (
            "tests/service/rpc/test_rpc.py::test_fields_are_counted_before_a_message_is_parsed",
            "tests/service/api/routes/test_open_inference.py::test_a_body_of_many_parts_is_refused_before_they_are_built",
            "tests/models/images/test_reader.py::test_images_of_many_parts_are_refused_at_once",
        ),
        "the counts of fields, strings and reads",
    ),
    _own(
        "program-archives",
        "100,000 changed .pt2 files are refused or computed: no code runs, nothing crashes",
        "the checksums of parts",
    ),
    _own("audit", "pip-audit, bandit and semgrep find nothing that is not explained", "the explanation of a finding"),
    _own("homes", "two services on one home, a taken port, a deleted home", "the exclusive use of a port"),
    Check(
        "proxies",
        "requests that ask for an upgrade, behind nginx and HAProxy",
        ("tests/service/api/test_proxies.py",),
        "the parser that ignores upgrades",
    ),
)
