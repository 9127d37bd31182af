"""Audio behind an address that somebody else gave: fetched from public hosts only, bounded in size and time.

Every name is resolved once, all of its addresses are looked at, and the connection goes to the one that was: a name
that answers differently the second time leads nowhere. So it is after each redirect.
"""

import ipaddress
import socket
import time
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from dgasr.errors import DgasrError

MAX_REDIRECTS = 4


class FetchError(DgasrError):
    """The address is refused, or its server does not give the audio."""


class TooLargeError(FetchError):
    """There is more behind the address than is allowed."""


def fetch_audio(url: str, path: Path, allowed_hosts: tuple[str, ...], max_bytes: int, timeout_s: float) -> None:
    """Fetch audio into a file.

    Args:
        url: http or https address.
        path: where it goes.
        allowed_hosts: names that may be asked, `*` for any that is public; nothing for none.
        max_bytes: more is refused.
        timeout_s: of all of it.

    Raises:
        FetchError: the address is refused, or does not answer with audio in time.
        TooLargeError: it is more than allowed.
    """
    deadline = time.monotonic() + timeout_s
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
            raise FetchError(f"audio_url {url!r}: give an http or https address without a user.")
        if "*" not in allowed_hosts and host not in allowed_hosts:
            raise FetchError(f"audio_url: {host} is not among the hosts that this server may ask.")
        location = _get(url, host, public_address(host, _port(url)), path, max_bytes, deadline)
        if location is None:
            return
        url = urljoin(url, location)
    raise FetchError(f"audio_url: more than {MAX_REDIRECTS} redirects.")


def _port(url: str) -> int:
    parts = urlsplit(url)
    try:
        return parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise FetchError(f"audio_url: {error}.") from error


def public_address(host: str, port: int) -> str:
    """Resolve a name to an address that is safe to ask.

    Raises:
        FetchError: it does not resolve, or one of its addresses is not public: loopback, private, link-local, reserved,
            or one of these in IPv6's clothes.
    """
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise FetchError(f"audio_url: {host} does not resolve ({error}).") from error
    if not found or not all(is_public(address) for address in found):
        raise FetchError(f"audio_url: {host} leads to an address that is not public.")
    return found[0]


def is_public(address: str) -> bool:
    """Tell whether anybody on the internet could ask this address."""
    own = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(own, "ipv4_mapped", None) or getattr(own, "sixtofour", None)
    teredo = getattr(own, "teredo", None)
    inside = [own, *([mapped] if mapped else []), *(teredo or ())]
    return all(part.is_global and not part.is_multicast for part in inside)


def _get(url: str, host: str, address: str, path: Path, max_bytes: int, deadline: float) -> str | None:
    """Ask one address; write the answer to the file, or return where it redirects to."""
    shown = f"[{address}]" if ":" in address else address
    pinned = httpx.URL(url).copy_with(host=address)
    headers = {"Host": urlsplit(url).netloc, "Accept-Encoding": "identity", "User-Agent": "dgasr"}
    left_s = max(0.1, deadline - time.monotonic())
    try:
        with (
            httpx.Client(timeout=left_s, trust_env=False) as client,
            client.stream("GET", pinned, headers=headers, extensions={"sni_hostname": host}) as response,
        ):
            if response.is_redirect:
                return response.headers["Location"]
            if response.status_code != httpx.codes.OK:
                raise FetchError(f"audio_url: {host} answers {response.status_code}.")
            if int(response.headers.get("Content-Length") or 0) > max_bytes:
                raise TooLargeError(f"audio_url: more than {max_bytes:,} bytes.")
            _write(response, path, max_bytes, deadline)
            return None
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise FetchError(f"audio_url: {host} ({shown}) gives nothing ({error or type(error).__name__}).") from error


def _write(response: httpx.Response, path: Path, max_bytes: int, deadline: float) -> None:
    count = 0
    with path.open("wb") as file:
        for block in response.iter_raw():
            count += len(block)
            if count > max_bytes:
                raise TooLargeError(f"audio_url: more than {max_bytes:,} bytes.")
            if time.monotonic() > deadline:
                raise FetchError("audio_url: its server takes too long.")
            file.write(block)
