"""What the documents say is there is there, and what is there is in the documents."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from prometheus_client import generate_latest

import service.errors  # noqa: F401  # so that its branches of the tree exist
from models.errors import SondeError
from service.api import error_responses
from service.config import PREFIX, Settings
from service.metrics import JobMetrics, Metrics, SupervisorMetrics
from tests.support.app import MakeApp

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(name: str) -> list[list[str]]:
    """The cells of every table row of a document."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text(name).splitlines()
        if line.startswith("|")
    ]


def errors(kind: type[SondeError] = SondeError) -> Iterator[type[SondeError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ in {"models.errors", "service.errors"}:
            yield from errors(child)


def headings(document: Path) -> set[str]:
    """The anchors that a document's headings have."""
    found = re.findall(r"^#+ (.+)$", _FENCED.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    shown = ",".join(default) if isinstance(default, tuple) else str(default)
    expected = [f"`--{name.replace('_', '-')}`", f"`{PREFIX}{name.upper()}`", f"`{shown}`"]
    assert expected in [row[:3] for row in rows("docs/operations.md")]


def test_every_documented_setting_exists() -> None:
    flags = {row[0].strip("`") for row in rows("docs/operations.md") if row[0].startswith("`--")}
    assert flags == {f"--{name.replace('_', '-')}" for name in Settings.model_fields}


def test_every_metric_is_documented_and_no_other() -> None:
    pages = b"".join(generate_latest(kind().registry) for kind in (Metrics, SupervisorMetrics, JobMetrics))
    rendered = re.findall(r"^# TYPE (sonde_\w+) ", pages.decode(), re.MULTILINE)
    documented = {row[0].strip("`") for row in rows("docs/operations.md") if row[0].startswith("`sonde_")}
    assert documented == {name for name in rendered if not name.endswith("_created")}


def test_every_route_is_documented(make_app: MakeApp) -> None:
    titles = [line for line in text("docs/api.md").splitlines() if line.startswith("#")]
    routes = [
        f"{method.upper()} {path}" for path, methods in make_app().openapi()["paths"].items() for method in methods
    ]
    assert [
        route for route in routes if not any(re.search(rf"{re.escape(route)}(,| |$)", title) for title in titles)
    ] == []


@pytest.mark.parametrize(
    "error", [error for error in errors() if error_responses.status_of(error("…"))], ids=lambda error: error.__name__
)
def test_every_error_code_is_documented_with_its_status(error: type[SondeError]) -> None:
    status = error_responses.status_of(error("…"))
    assert [f"`{error.code}`", str(status)] in [row[:2] for row in rows("docs/api.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(_FENCED.sub("", document.read_text(encoding="utf-8"))):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name} links to {link}, which is not there"
        if anchor:
            assert anchor in headings(target), f"{document.name} links to {link}, which has no such heading"


def test_every_top_level_folder_is_in_the_readme() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    names = {Path(name).parts[0] for name in listed if len(Path(name).parts) > 1} or {
        path.parent.name for path in ROOT.glob("*/*.py")
    }
    assert [name for name in sorted(names) if not name.startswith(".") and f"`{name}/`" not in text("README.md")] == []
