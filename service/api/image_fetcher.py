"""Fetching images by URL: bounded, without redirects, from hosts that are allowed and public addresses alone."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpx

from models.errors import ImageTooLarge
from service.errors import InvalidRequest

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Collection[Address]]]
# For one image, from the look-up of its host to its last byte.
_TIMEOUT_S = 10.0
# Of all requests together.
_AT_ONCE = 16
_EVERY_HOST = "*"
# Addresses of these networks are others in disguise: NAT64, 6to4, Teredo.
_DISGUISED = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet, and stands for no other."""
    disguised = isinstance(address, IPv6Address) and any(address in network for network in _DISGUISED)
    return address.is_global and not address.is_multicast and not disguised


async def resolve(host: str, port: int) -> Collection[Address]:
    """The addresses of a host. Raises OSError where there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(address[0]) for *_, address in found]


class ImageFetcher:
    """Fetches images from the hosts that the operator allows; `*` stands for every one.

    A host is resolved once. All its addresses must be public, and the connection goes to the first of them, so that no
    second look-up can lead elsewhere.
    """

    def __init__(
        self,
        hosts: Collection[str],
        max_bytes: int,
        *,
        resolve: Resolve = resolve,
        is_allowed: Callable[[Address], bool] = is_public,
    ) -> None:
        self._hosts = frozenset(hosts)
        self._max_bytes = max_bytes
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._certificates: ssl.SSLContext | None = None

    async def fetch(self, url: str, param: str, most: int) -> bytes:
        """The bytes of an image, at most `most` and the limit of one image.

        Raises InvalidRequest for a URL that is not allowed or does not answer with a file, and ImageTooLarge.
        """
        parsed = self._parse(url, param)
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._room:
                return await self._get(parsed, param, min(most, self._max_bytes))
        except TimeoutError:
            raise _refused(param, f"expected an image within {_TIMEOUT_S:.0f} s, and it did not come") from None
        except (httpx.HTTPError, httpx.StreamError, ssl.SSLError, OSError) as error:
            raise _refused(param, f"the image could not be fetched ({type(error).__name__})") from error

    def _parse(self, url: str, param: str) -> httpx.URL:
        """The URL, whose host is allowed."""
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError):
            raise _refused(param, "expected a URL like https://host/image.png") from None
        host = parsed.raw_host.decode("ascii").rstrip(".")
        if not host or parsed.userinfo:
            raise _refused(param, "expected a URL like https://host/image.png, without a user")
        place = host if parsed.port is None else f"{host}:{parsed.port}"
        if place not in self._hosts and (_EVERY_HOST not in self._hosts or parsed.port is not None):
            raise _refused(param, f"expected a URL of an allowed host (--allow-urls), got {place[:100]}")
        return parsed.copy_with(fragment=None)

    async def _get(self, url: httpx.URL, param: str, most: int) -> bytes:
        host, port = url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        address = await self._find_address(host, port, param)
        named = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        headers = {"host": url.netloc.decode("ascii"), "accept": "image/*", "accept-encoding": "identity"}
        request = httpx.Request(
            "GET", url.copy_with(host=named), headers=headers, extensions={"sni_hostname": host.rstrip(".")}
        )
        async with httpx.AsyncClient(trust_env=False, follow_redirects=False, verify=await self._verify()) as client:
            answer = await client.send(request, stream=True)
            try:
                return await _read(answer, param, most)
            finally:
                await answer.aclose()

    async def _find_address(self, host: str, port: int, param: str) -> Address:
        """An address of a host, all of whose addresses are public."""
        addresses = await self._resolve(host.rstrip("."), port)
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise _refused(param, f"expected a host with public addresses alone, got {host[:100]}")
        return next(iter(addresses))

    async def _verify(self) -> ssl.SSLContext:
        """The certificates that are trusted, read once: it takes tens of milliseconds."""
        if self._certificates is None:
            self._certificates = await asyncio.to_thread(httpx.create_ssl_context, trust_env=False)
        return self._certificates


async def _read(answer: httpx.Response, param: str, most: int) -> bytes:
    """The content of an answer, and no byte more than it may have."""
    if answer.status_code != httpx.codes.OK:
        about = "a redirect, which Sonde does not follow" if answer.has_redirect_location else "another status"
        raise _refused(param, f"expected status 200 from its host, got {answer.status_code}: {about}")
    content = bytearray()
    async for part in answer.aiter_raw():
        content += part
        if len(content) > most:
            message = f"{param}: expected at most {most:,} bytes, and its host sends more; send a smaller image"
            raise ImageTooLarge(message, param=param)
    return bytes(content)


def _refused(param: str, message: str) -> InvalidRequest:
    return InvalidRequest.at(param, f"{message}: send it as base64 instead")
