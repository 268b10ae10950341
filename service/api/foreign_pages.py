"""Keeps web pages of other origins from a service without keys.

A browser sends what any page asks it to, to loopback too. A page cannot guess a key, so keys need none of this.
`--cors-origin` names the origins whose pages may call.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service.api.request_context import require_own_host
from service.config import Settings
from service.errors import ForeignOrigin

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_FOREIGN_SITES = {"cross-site", "same-site"}
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_SHOWN_HEADERS = ("x-request-id", "x-sonde-model", "x-sonde-truncated", "x-sonde-error", "server-timing", "retry-after")


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application, which lets pages of some origins call; without origins, the same application.

    It answers preflights itself, because browsers send no key with them. No cookies are allowed: Sonde has none.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=["*"],
        expose_headers=_SHOWN_HEADERS,
        allow_private_network=True,
    )


def refuse_foreign_page(method: str, headers: Headers, settings: Settings) -> None:
    """Refuse a request without a key that a page of another origin may have sent.

    A name that leads to this address is not enough (DNS rebinding): the Host must be loopback or the `--host`. With
    `--insecure`, any Host is served. Pages of other origins change nothing either way, unless `--cors-origin` names
    their origin.

    Raises UnknownHost and ForeignOrigin.
    """
    hosts = headers.getlist("host")
    require_own_host(hosts, settings)
    if method not in _SAFE_METHODS and _is_foreign(headers, hosts) and not _is_allowed(headers, settings.cors_origin):
        origin = headers.get("origin", "another site")
        raise ForeignOrigin(
            f"expected a request of this service's own pages, got one of {origin[:80]!r}: name the page's origin with"
            " --cors-origin, or have its server send a key of 'sonde keys create'"
        )


def _is_allowed(headers: Headers, allowed: Sequence[str]) -> bool:
    """Whether the page says its origin, and may call."""
    origins = headers.getlist("origin")
    return bool(origins) and ("*" in allowed or all(origin in allowed for origin in origins))


def _is_foreign(headers: Headers, hosts: list[str]) -> bool:
    """Whether a browser says that the page is not of this host and port."""
    if headers.get("sec-fetch-site", "").strip().lower() in _FOREIGN_SITES:
        return True
    own = {host.lower() for host in hosts}
    return any(origin.lower().partition("://")[2] not in own for origin in headers.getlist("origin"))
