"""Objects by URI, in S3 or in folders: list, read, write once; whether a store can. Knows neither audio nor lake.

Everything here raises ObjectError where an object is missing, changed or withheld, ConfigError where there is no such
bucket or folder, or no right to list it, and TransientError where the storage does not answer.
"""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

from dgasr.errors import ConfigError, DgasrError, ObjectError
from dgasr.records import Recording
from dgasr.store import folders, s3
from dgasr.store.s3 import is_s3

MOST_SKEW = timedelta(hours=1)
"""How far this machine's clock and the store's may differ: what was left behind is told from what is in use by age."""


def list_objects(source: str) -> Iterator[Recording]:
    """List what there is to transcribe at a file, folder (and those in it), S3 object or prefix, in order, as it comes.

    A file or object asked for by name is listed even if it is missing, so that it gets its row; an S3 prefix that ends
    with a slash may be empty.
    """
    return s3.list_s3(source) if is_s3(source) else folders.list_files(source)


def open_object(recording: Recording) -> BinaryIO:
    """Open the version of an object that was listed, to read and seek in; its reads raise as this does."""
    return s3.open_s3(recording) if is_s3(recording.uri) else folders.open_file(recording)


def read_bytes(uri: str) -> bytes:
    """Read a whole object."""
    return s3.read_s3(uri) if is_s3(uri) else folders.read_file(uri)


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole object, or replace it; readers see the old one or the new one."""
    if is_s3(uri):
        s3.write_s3(uri, data)
    else:
        folders.write_file(uri, data)


def write_if_absent(uri: str, data: bytes) -> bool:
    """Write a whole object unless there is one, and say whether; of several writers exactly one succeeds."""
    return s3.write_s3_if_absent(uri, data) if is_s3(uri) else folders.write_file_if_absent(uri, data)


def list_uris(folder: str) -> Iterator[str]:
    """List the URIs of the objects in a folder or below a prefix that ends with a slash, in order, as it comes."""
    return s3.list_s3_uris(folder) if is_s3(folder) else folders.list_file_uris(folder)


def delete(uri: str) -> None:
    """Delete an object; nothing happens where there is none."""
    if is_s3(uri):
        s3.delete_s3(uri)
    else:
        folders.delete_file(uri)


def probe_store(lake_uri: str) -> None:
    """Write, refuse to overwrite, read, list and delete an object of a lake, where nothing need lie yet.

    ConfigError where bucket, credentials or permissions are wrong, where the store overwrites what must not be
    overwritten, and where one of the clocks is wrong.
    """
    uri = f"{lake_uri}/staging/probes/{secrets.token_hex(8)}"
    first, second = b"first", b"second"
    try:
        # Not what this call returns, but what lies there: an answer that got lost looks like a refusal.
        write_if_absent(uri, first)
        is_overwritten = write_if_absent(uri, second) or read_bytes(uri) != first
        written_at = next(iter(list_objects(uri))).modified_at
        delete(uri)
    except ObjectError as error:
        raise ConfigError(
            f"{lake_uri}: no lake can be written there ({error}). Allow to write, read, list and delete objects in it."
        ) from error
    if is_overwritten:
        with suppress(DgasrError):
            delete(uri)
        raise ConfigError(
            f"{lake_uri}: this store ignores `If-None-Match: *`, and two workers could mix their rows. "
            "Keep the lake in a folder or in a store that honours it, such as Amazon S3, MinIO or Ceph."
        )
    if abs(datetime.now(UTC) - written_at) > MOST_SKEW:
        raise ConfigError(
            f"{lake_uri}: the store says it is {written_at:%Y-%m-%d %H:%M} UTC, and this machine that it is "
            f"{datetime.now(UTC):%Y-%m-%d %H:%M}. Set the clock that is wrong, for example with chrony."
        )
