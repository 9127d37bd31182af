"""Audio behind an address that somebody else gave: fetched from public hosts only, bounded in size and time.

Every name is resolved once, all of its addresses are looked at, and the connection goes to the one that was: a name
that answers differently the second time leads nowhere. So it is after each redirect.
"""

import asyncio
import ipaddress
import socket
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from dgasr.errors import DgasrError

MAX_REDIRECTS = 4


class FetchError(DgasrError):
    """The address is refused, or its server does not give the audio."""


class TooLargeError(FetchError):
    """There is more behind the address than is allowed."""


async def fetch_audio(url: str, path: Path, allowed_hosts: tuple[str, ...], max_bytes: int, timeout_s: float) -> None:
    """Fetch audio from an http or https address into a file, in `timeout_s` at most for all of it.

    `allowed_hosts` are names that may be asked, `*` for any that is public; nothing for none.

    Raises:
        FetchError: the address is refused, or does not answer with audio in time.
        TooLargeError: there are more than `max_bytes`.
    """
    try:
        async with asyncio.timeout(timeout_s):  # of all of it: a server may also drop its headers byte by byte
            for _ in range(MAX_REDIRECTS + 1):
                parts = urlsplit(url)
                host = parts.hostname or ""
                if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
                    raise FetchError(f"audio_url {url!r}: give an http or https address without a user.")
                if "*" not in allowed_hosts and host not in allowed_hosts:
                    raise FetchError(f"audio_url: {host} is not among the hosts that this server may ask.")
                port = parts.port or (443 if parts.scheme == "https" else 80)
                location = await _get(url, host, await public_address(host, port), path, max_bytes)
                if location is None:
                    return
                url = urljoin(url, location)
    except TimeoutError as error:
        raise FetchError(f"audio_url: {host} takes too long.") from error
    except ValueError as error:  # of brackets that do not close, and ports that there are not
        raise FetchError(f"audio_url: {error}.") from error
    raise FetchError(f"audio_url: more than {MAX_REDIRECTS} redirects.")


async def public_address(host: str, port: int) -> str:
    """Resolve a name to an address that is safe to ask.

    Raises:
        FetchError: it does not resolve, or one of its addresses is not public: loopback, private, link-local, reserved,
            or one of these in IPv6's clothes.
    """
    try:
        entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = [str(entry[4][0]) for entry in entries]
    except (OSError, UnicodeError) as error:
        raise FetchError(f"audio_url: {host} does not resolve ({error}).") from error
    if not found or not all(is_public(address) for address in found):
        raise FetchError(f"audio_url: {host} leads to an address that is not public.")
    return found[0]


NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""Addresses of IPv4 in the last 32 bits, for machines that have IPv6 alone."""


def is_public(address: str) -> bool:
    """Tell whether anybody on the internet could ask this address."""
    own = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(own, "ipv4_mapped", None) or getattr(own, "sixtofour", None)
    teredo = getattr(own, "teredo", None)
    behind = [ipaddress.IPv4Address(int(own) & 0xFFFFFFFF)] if own in NAT64 else []
    inside = [own, *behind, *([mapped] if mapped else []), *(teredo or ())]
    return all(part.is_global and not part.is_multicast for part in inside)


async def _get(url: str, host: str, address: str, path: Path, max_bytes: int) -> str | None:
    """Ask one address; write the answer to the file, or return where it redirects to."""
    shown = f"[{address}]" if ":" in address else address
    pinned = httpx.URL(url).copy_with(host=address)
    headers = {"Host": urlsplit(url).netloc, "Accept-Encoding": "identity", "User-Agent": "dgasr"}
    try:
        async with (
            httpx.AsyncClient(timeout=None, trust_env=False) as client,  # the caller bounds the time
            client.stream("GET", pinned, headers=headers, extensions={"sni_hostname": host}) as response,
        ):
            if response.is_redirect:
                return response.headers["Location"]
            if response.status_code != httpx.codes.OK:
                raise FetchError(f"audio_url: {host} answers {response.status_code}.")
            if int(response.headers.get("Content-Length") or 0) > max_bytes:
                raise TooLargeError(f"audio_url: more than {max_bytes:,} bytes.")
            count = 0
            with path.open("wb") as file:
                async for block in response.aiter_raw():
                    count += len(block)
                    if count > max_bytes:
                        raise TooLargeError(f"audio_url: more than {max_bytes:,} bytes.")
                    file.write(block)
            return None
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise FetchError(f"audio_url: {host} ({shown}) gives nothing ({error or type(error).__name__}).") from error
