"""A request's audio: fetched where it gives an address, and read into segments, with features where somebody speaks.

It is fetched from public hosts only, bounded in size and time. Every name is resolved once, all of its addresses are
looked at, and the connection goes to the one that was: a name that answers differently the second time leads nowhere.
So it is after each redirect. Files are read in processes, which audio may kill.
"""

import asyncio
import hashlib
import ipaddress
import multiprocessing
import socket
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from dgasr.audio import open_audio
from dgasr.errors import AudioError, DgasrError, Reason, TruncatedError
from dgasr.frontend import cut_channels, until_truncation
from dgasr.recipe import Recipe
from dgasr.records import Segment, SegmentFeatures, seconds

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


class CrashesDecoderError(AudioError):
    """A process died of reading the file."""

    reason = Reason.CRASHES_DECODER


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A file's segments without and with speech, its length, s, and why it ends early, `None` where it does not."""

    silent: tuple[Segment, ...]
    spoken: tuple[SegmentFeatures, ...]
    duration_s: float
    message: str | None


class Preparer:
    """Reads files as a recipe says, so many at once, each in a process."""

    def __init__(self, recipe: Recipe, processes: int) -> None:
        self._recipe = recipe
        self._new = partial(ProcessPoolExecutor, processes, multiprocessing.get_context("spawn"))
        self._pool = self._new()

    async def prepare(self, path: Path) -> Prepared:
        """Read a file.

        Raises:
            AudioError: it cannot be used; `CrashesDecoderError` where its process died.
        """
        pool = self._pool
        try:
            return await asyncio.wrap_future(pool.submit(prepare, path, self._recipe))
        except BrokenProcessPool as error:
            if self._pool is pool:  # the first of those that it took with it makes a new one
                self._pool = self._new()
            what = "reading it, or what was read beside it, ends the process."
            raise CrashesDecoderError(f"{path.name}: {what}") from error

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)


def prepare(path: Path, recipe: Recipe) -> Prepared:
    """Read and cut a file; its bytes name it, so that the same bytes give the same text.

    Raises:
        AudioError: nothing of it can be used.
    """
    silent: list[Segment] = []
    spoken: list[SegmentFeatures] = []
    truncations: list[TruncatedError] = []
    with path.open("rb") as file:
        recording_id = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        file.seek(0)
        channels = until_truncation(open_audio(file, path.name, recipe.audio).channels(), truncations)
        for segment, features in cut_channels(channels, recording_id, recipe):
            if features is None:
                silent.append(segment)
            else:
                spoken.append(features)
    if truncations and not silent and not spoken:
        raise truncations[0]
    ends = [segment.end_sample for segment in (*silent, *(own.segment for own in spoken))]
    message = str(truncations[0]) if truncations else None
    return Prepared(
        silent=tuple(silent), spoken=tuple(spoken), duration_s=seconds(max(ends, default=0)), message=message
    )
