"""Keeps web pages of other origins from a service without keys.

A browser sends what any page asks it to, to loopback too. A page cannot guess a key, so keys need none of this.
"""

from __future__ import annotations

import ipaddress
import re

from starlette.datastructures import Headers

from service.config import Settings
from service.errors import ForeignOrigin, UnknownHost

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_FOREIGN_SITES = {"cross-site", "same-site"}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/?#@\\]+)(?::[0-9]*)?", re.IGNORECASE | re.ASCII)


def refuse_foreign_page(method: str, headers: Headers, settings: Settings) -> None:
    """Refuse a request without a key that a page of another origin may have sent.

    A name that leads to this address is not enough (DNS rebinding): the Host must be loopback or the `--host`. With
    `--insecure`, any Host is served. Pages of other origins change nothing either way.

    Raises UnknownHost and ForeignOrigin.
    """
    hosts = headers.getlist("host")
    if not settings.insecure and not all(_is_ours(host, settings.host) for host in hosts):
        raise UnknownHost(
            f"expected the host localhost or {settings.host}, got {hosts[0][:80]!r}: call the service by one of these,"
            " create a key with 'sonde keys create', or pass --insecure"
        )
    if method not in _SAFE_METHODS and _is_foreign(headers, hosts):
        origin = headers.get("origin", "another site")
        raise ForeignOrigin(
            f"expected a request of this service's own pages, got one of {origin[:80]!r}: create a key with"
            " 'sonde keys create', which the page's server can send"
        )


def _is_ours(host: str, listening: str) -> bool:
    """Whether a Host header names loopback or the address to listen on, with any port."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].strip("[]").lower().removesuffix(".")
    return name in {"localhost", listening.lower()} or _is_loopback(name)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_foreign(headers: Headers, hosts: list[str]) -> bool:
    """Whether a browser says that the page is not of this host and port."""
    if headers.get("sec-fetch-site", "").strip().lower() in _FOREIGN_SITES:
        return True
    own = {host.lower() for host in hosts}
    return any(origin.lower().partition("://")[2] not in own for origin in headers.getlist("origin"))
