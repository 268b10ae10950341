"""A browser, and the console in it; both are skipped where the browser is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.clients.environment import CannotInstall, node_modules
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route

AXE = Path(__file__).with_name("axe.json")
ORIGIN = "http://testserver"
Visit = Callable[..., "Visitor"]
Open = Callable[..., "Visitor"]
Answer = Callable[[], dict[str, Any]]


class Visitor:
    """A page of the console, and what went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.errors: list[str] = []
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._on_message)

    def open(self, path: str = "overview") -> Page:
        """Show a page of the console."""
        self.page.goto(f"{self.url}/console#/{path}")
        self.page.get_by_role("heading", level=1).first.wait_for()
        return self.page

    def _on_message(self, message: Any) -> None:
        # Chromium reports each answer that is an error; the page must say these in words of its own.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            self.errors.append(message.text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of a module, since other tests of the process could run no event loop while it is there.

    Chromium without its windows takes a quarter of the processor time.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install playwright")
    chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("the browser is missing: apt-get install chromium-headless-shell")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """What all pages of a module share; a page keeps its key to itself."""
    made = browser.new_context(locale="en-GB")
    yield made
    made.close()


@pytest.fixture
def visit(context: BrowserContext) -> Iterator[Visit]:
    """A function that makes a visitor of a service: `visit(url, width=360)`. None of them may see an error."""
    visitors = []

    def make(url: str, width: int = 1100) -> Visitor:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 800})
        visitors.append(Visitor(page, url))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.page.close()
    assert [visitor.errors for visitor in visitors if visitor.errors] == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The script that finds what people cannot read or reach."""
    try:
        return (node_modules(AXE) / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    except CannotInstall as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def modules() -> dict[str, Answer]:
    """The files of the console that were served before, by path: each is read once for all tests."""
    return {}


@pytest.fixture
def console(make_app: MakeApp, visit: Visit, modules: dict[str, Answer]) -> Iterator[Open]:
    """A function that makes a visitor of an application, without a server: `console(answers={path: answer})`."""
    clients = []

    def make(app: FastAPI | None = None, answers: dict[str, Answer] | None = None, **options: Any) -> Visitor:
        client = TestClient(app or make_app(FakeModel(), keep_inputs=10))
        clients.append(client)
        visitor = visit(ORIGIN, **options)
        visitor.page.route("**/*", lambda route: pass_on(route, client, answers or {}, modules))
        return visitor

    yield make
    for client in clients:
        client.close()


def pass_on(route: Route, client: TestClient, answers: dict[str, Answer], modules: dict[str, Answer]) -> None:
    """Answer a request of the browser, by `answers` or `modules` where they have its path."""
    request = route.request
    path = urlsplit(request.url).path
    if (known := answers.get(path) or modules.get(path)) is not None:
        route.fulfill(**known())
        return
    got = client.request(request.method, request.url, headers=request.headers, content=request.post_data_buffer)
    headers = {name: value for name, value in got.headers.items() if name not in {"content-encoding", "content-length"}}
    answer = {"status": got.status_code, "headers": headers, "body": got.content}
    if path.startswith("/console/"):
        modules[path] = lambda: answer
    route.fulfill(**answer)


def says(page: Page, text: str) -> None:
    """Wait until the page shows a text."""
    page.get_by_text(text).first.wait_for(timeout=15_000)


def shows(elements: Locator, *texts: str) -> None:
    """Wait until the elements on the page have these texts: one each, none for no texts."""
    from playwright.sync_api import expect

    expect(elements).to_have_text(list(texts), timeout=15_000)


def run_axe(page: Page, source: str, about: str = "") -> list[str]:
    """What keeps people from reading or reaching something on the page, by the rules with a tag or by all."""
    page.evaluate(source)
    options = {"runOnly": about} if about else {}
    found: list[dict[str, Any]] = page.evaluate("async (options) => (await axe.run(options)).violations", options)
    return [json.dumps(one) for one in found if one["impact"] in {"serious", "critical"}]


@pytest.fixture
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where the pictures of the docs go: `pytest --screenshots docs/images`."""
    chosen: Path | None = request.config.getoption("--screenshots")
    return chosen or tmp_path


def take(page: Page, pictures: Path, name: str) -> None:
    page.wait_for_load_state("networkidle")
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=pictures / f"console-{name}.png")
    assert (pictures / f"console-{name}.png").stat().st_size < 150_000
