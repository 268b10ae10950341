"""The console: a page of static modules, which speaks the public API alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from service.api.compute_route import INFER

router = APIRouter(include_in_schema=False)
_FILES = StaticFiles(directory=Path(__file__).parents[2] / "web")
_HEADERS = {
    # Nothing from elsewhere, no script or style in the page, and no frame around it. Plots of reports are
    # blobs, and their pictures data.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-cache",  # asked for again each time, so that files of two versions never mix
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@router.api_route("/", methods=["GET", "HEAD"], dependencies=[INFER])
async def greet(request: Request, accept: Annotated[str, Header()] = "") -> Response:
    """The console for browsers; for others, what Ollama's clients ask to learn whether a server is there."""
    response = await show(request) if "text/html" in accept else PlainTextResponse("Sonde is running")
    response.headers.add_vary_header("accept")
    return response


@router.get("/console")
async def show(request: Request) -> Response:
    """The page. Its addresses are relative, so that a proxy can serve it below a prefix."""
    return await _file("index.html", request)


@router.get("/console/{path:path}")
async def read(path: str, request: Request) -> Response:
    """A file of the page."""
    return await _file(path, request) if path else RedirectResponse("../console")


async def _file(path: str, request: Request) -> Response:
    response = await _FILES.get_response(path, request.scope)
    response.headers.update(_HEADERS)
    return response
