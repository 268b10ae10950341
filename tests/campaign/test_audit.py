"""Tools that search the code and the dependencies for known faults find nothing that is not explained here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.conftest import Figure

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(0)]

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-audit" / "bin"
PACKAGES = ("service", "models")
# Findings of bandit that are no fault, by rule and file.
EXPLAINED = {
    (
        "B615",
        "models/source.py",
    ): "the operator names the model; its files are checked, and its version is their digest",
    ("B615", "models/text/sequence_classifier.py"): "reads a directory that was checked, never the Hub",
    ("B608", "models/training/embeddings.py"): "the text has question marks alone; the values are bound",
    ("B104", "service/api/server.py"): "compares with the address for all interfaces, and never binds it",
    ("B310", "service/score_file.py"): "the operator of the command names the address",
}


def run(tool: str, *arguments: str) -> Any:
    """A tool's JSON. Skips where the tool is not installed, or could not ask its host."""
    if not (TOOLS / tool).is_file():
        pytest.skip(f"{tool} is not installed; make campaign installs it")
    command = [str(TOOLS / tool), *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    try:
        return json.loads(ended.stdout)
    except ValueError:
        pytest.skip(f"{tool} could not run: {ended.stderr.strip()[-200:]}")


def test_bandit(figure: Figure) -> None:
    found = run("bandit", "--quiet", "--recursive", "-ll", "--format", "json", *PACKAGES)["results"]
    new = [(one["test_id"], one["filename"], one["line_number"]) for one in found if _place(one) not in EXPLAINED]
    figure(f"bandit: {len(found)} findings, {len(found) - len(new)} explained")
    assert new == []
    assert {_place(one) for one in found} == set(EXPLAINED), "an explanation without a finding is removed"


def _place(found: dict[str, Any]) -> tuple[str, str]:
    return found["test_id"], found["filename"].removeprefix("./")


def test_pip_audit(figure: Figure) -> None:
    flags = ("--requirement", "requirements.lock", "--no-deps", "--disable-pip", "--format", "json")
    packages = run("pip-audit", *flags)["dependencies"]
    audited = [one for one in packages if "skip_reason" not in one]
    if not audited:
        pytest.skip("pip-audit reached no database of advisories")
    found = [(one["name"], fault["id"]) for one in audited for fault in one["vulns"]]
    figure(f"pip-audit: {len(audited)} of {len(packages)} packages, {len(found)} advisories")
    assert found == []


def test_semgrep(figure: Figure) -> None:
    found = run("semgrep", "--config", "p/python", "--metrics", "off", "--json", *PACKAGES)["results"]
    figure(f"semgrep: {len(found)} findings")
    assert found == []
