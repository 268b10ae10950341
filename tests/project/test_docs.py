"""The documents against the code: links, paths, routes, fields, settings, metrics, error codes and hyperparameters."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from prometheus_client import generate_latest

import service.errors  # noqa: F401  # so that its branches of the tree exist
from models.errors import SondeError
from models.training import hyperparameters
from service.api import error_responses
from service.config import PREFIX, Settings
from service.metrics import JobMetrics, Metrics, SupervisorMetrics

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
# Vietnamese puts a space between syllables, so its sentences have more words than the same ones in English.
ENGLISH = [page for page in PAGES if not page.name.endswith(".vi.md")]
DOCUMENTS = [
    *(
        ROOT / name
        for name in (
            "README.md",
            "README.vi.md",
            "SECURITY.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
            "deploy/README.md",
            "benchmarks/NOTES.md",
        )
    ),
    *PAGES,
]
REFERENCE = "docs/reference"
_EXTERNAL = re.compile(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="?(?:https?:)?//[^>]*>')
_PATH = re.compile(r"`((?:service|models|tests|benchmarks|examples|deploy|docs)/[\w./-]*)`")
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


def api_sections() -> list[tuple[str, str]]:
    """Title and text of each section of the pages on the HTTP API."""
    pages = sorted((ROOT / REFERENCE / "api").glob("*.md"))
    parts = [part for page in pages for part in re.split(r"^#+ ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)]
    return [(part.partition("\n")[0], part) for part in parts]


def names_route(title: str, route: str) -> bool:
    return re.search(rf"{re.escape(route)}(,| |$)", title) is not None


def request_fields(document: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    """The fields of a request's body, and its query parameters."""
    fields = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content["schema"]
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        fields += schema.get("properties", {})
    return fields


def headings(document: Path) -> set[str]:
    """The anchors that a document's headings have."""
    found = re.findall(r"^#+ (.+)$", _FENCED.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    shown = ",".join(default) if isinstance(default, tuple) else str(default)
    expected = [f"`--{name.replace('_', '-')}`", f"`{PREFIX}{name.upper()}`", f"`{shown}`"]
    assert expected in [row[:3] for row in rows(f"{REFERENCE}/settings.md")]


def test_every_documented_setting_exists() -> None:
    flags = {row[0].strip("`") for row in rows(f"{REFERENCE}/settings.md") if row[0].startswith("`--")}
    assert flags == {f"--{name.replace('_', '-')}" for name in Settings.model_fields}


def test_every_metric_is_documented_and_no_other() -> None:
    pages = b"".join(generate_latest(kind().registry) for kind in (Metrics, SupervisorMetrics, JobMetrics))
    rendered = re.findall(r"^# TYPE (sonde_\w+) ", pages.decode(), re.MULTILINE)
    documented = set(re.findall(r"^\| `(sonde_\w+)` \|", text(f"{REFERENCE}/metrics.md"), re.MULTILINE))
    assert documented == set(rendered)


def test_every_route_is_documented(openapi_document: dict[str, Any]) -> None:
    titles = [title for title, _ in api_sections()]
    routes = [f"{method.upper()} {path}" for path, methods in openapi_document["paths"].items() for method in methods]
    assert [route for route in routes if not any(names_route(title, route) for title in titles)] == []


def test_every_field_of_a_request_is_documented(openapi_document: dict[str, Any]) -> None:
    missing = []
    for path, methods in openapi_document["paths"].items():
        for method, operation in methods.items():
            route = f"{method.upper()} {path}"
            section = "".join(text for title, text in api_sections() if names_route(title, route))
            missing += [
                f"{route}: {name}" for name in request_fields(openapi_document, operation) if f"`{name}`" not in section
            ]
    assert missing == []


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(hyperparameters).values()
        if isinstance(kind, type) and kind.__name__.endswith("Hyperparameters")
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_hyperparameter_is_documented(kind: Any) -> None:
    documented = {name.strip("` ") for row in rows(f"{REFERENCE}/hyperparameters.md") for name in row[0].split(",")}
    assert set(kind.model_fields) - documented == set()


@pytest.mark.parametrize(
    "error", [error for error in errors() if error_responses.status_of(error("…"))], ids=lambda error: error.__name__
)
def test_every_error_code_is_documented_with_its_status(error: type[SondeError]) -> None:
    status = error_responses.status_of(error("…"))
    assert [f"`{error.code}`", str(status)] in [row[:2] for row in rows(f"{REFERENCE}/errors.md")]


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_exist(document: Path) -> None:
    found = set(_PATH.findall(document.read_text(encoding="utf-8")))
    assert [path for path in sorted(found) if not (ROOT / path).exists()] == []


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    html = {page: page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")}
    assert len(html) >= len(PAGES)
    assert {page.name: _EXTERNAL.findall(text) for page, text in html.items() if _EXTERNAL.search(text)} == {}


def sentences(document: Path) -> list[str]:
    """The sentences of a document's paragraphs and lists, without code, tables and headings."""
    prose = re.sub(r"^(#|\||!\[).*$", "", _FENCED.sub("", document.read_text(encoding="utf-8")), flags=re.MULTILINE)
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", prose)
    return [part for paragraph in paragraphs for part in re.split(r"(?<=[.!?])\s+(?=[A-Z0-9`*\[])", paragraph)]


def test_sentences_are_short() -> None:
    lengths = [len(re.sub(r"`[^`]*`|\([^)]*\)", "x", part).split()) for page in ENGLISH for part in sentences(page)]
    assert sum(length > 25 for length in lengths) / len(lengths) < 0.05


def test_pages_are_short() -> None:
    assert [page.name for page in PAGES if len(page.read_text(encoding="utf-8").splitlines()) > 200] == []
    assert len(text("README.md").splitlines()) <= 150


def test_every_guide_begins_with_its_task_and_shows_commands_or_code() -> None:
    guides = [page for page in (ROOT / "docs/guides").glob("*.md") if page.name != "index.md"]
    contents = {page.name: page.read_text(encoding="utf-8") for page in guides}
    assert [name for name, text in contents.items() if not re.match(r"# .+\n\n\*\*Task\.\*\* ", text)] == []
    assert [name for name, text in contents.items() if not re.search(r"^```(bash|python|console)$", text, re.M)] == []


def test_every_top_level_folder_is_in_the_readme() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    names = {Path(name).parts[0] for name in listed if len(Path(name).parts) > 1} or {
        path.parent.name for path in ROOT.glob("*/*.py")
    }
    assert [name for name in sorted(names) if not name.startswith(".") and f"`{name}/`" not in text("README.md")] == []
