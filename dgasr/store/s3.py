"""Objects in S3 or anything that speaks its protocol; credentials, region and endpoint come from boto3's own chain."""

import io
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, BinaryIO

import boto3
import botocore.config
import botocore.exceptions
import botocore.session
import botocore.utils
from boto3.s3.transfer import TransferConfig
from urllib3.exceptions import HTTPError

from dgasr.errors import ConfigError, ObjectMissingError, TransientError
from dgasr.records import Recording
from dgasr.store.locations import EPOCH, MISSING_ETAG, split_s3
from dgasr.store.s3_errors import CHANGED_CODES, DENIED_CODES, S3_ERRORS, error_code, raise_translated

READ_BUFFER_BYTES = 4 * 2**20
"""Bytes of one ranged GET: decoders read a few kilobytes at a time."""

MULTIPART_BYTES = 64 * 2**20
"""Objects from here up are written in parts, but not where a write is conditional: that must be a single PUT."""

MULTIPART = TransferConfig(multipart_threshold=MULTIPART_BYTES, multipart_chunksize=16 * 2**20)

BODY_ATTEMPTS = 5
"""How often a body that breaks off is asked for. botocore tries requests again, but never the body of an answer."""

BROKEN_BODY = (botocore.exceptions.ResponseStreamingError, botocore.exceptions.IncompleteReadError, HTTPError)
"""What reading a body raises; `HTTPError` where it is the body of an error."""


def list_s3(source: str) -> Iterator[Recording]:
    """List the object of this name, or all whose keys begin with it, in the order of their keys, page by page."""
    bucket, prefix = split_s3(source)
    found = None
    for found in _pages(source):
        if found["Key"].endswith("/") and found["Size"] == 0:
            continue  # what consoles put there to show a folder
        yield Recording(
            uri=f"s3://{bucket}/{found['Key']}",
            etag=found["ETag"].strip('"'),
            size_bytes=found["Size"],
            modified_at=found["LastModified"],
        )
        if found["Key"] == prefix:
            return
    if found is None and prefix and not prefix.endswith("/"):
        yield Recording(uri=source, etag=MISSING_ETAG, size_bytes=0, modified_at=EPOCH)


def list_s3_uris(prefix: str) -> Iterator[str]:
    """List the URIs that begin with a prefix, in order, page by page."""
    bucket, _ = split_s3(prefix)
    return (f"s3://{bucket}/{found['Key']}" for found in _pages(prefix))


def open_s3(recording: Recording) -> BinaryIO:
    """Open the version of an object that was listed; its bytes come in ranges, as they are read.

    Raises:
        ObjectMissingError: it was not there when it was listed.
    """
    if recording.etag == MISSING_ETAG:
        raise ObjectMissingError(f"{recording.uri}: there is no such object. Check the key, or list the prefix again.")
    return io.BufferedReader(_RangedObject(recording), buffer_size=READ_BUFFER_BYTES)


def read_s3(uri: str) -> bytes:
    """Read a whole object."""
    try:
        return _body(uri)
    except S3_ERRORS as error:
        raise_translated(error, uri)


def write_s3(uri: str, data: bytes) -> None:
    """Write a whole object, or replace it."""
    bucket, key = split_s3(uri)
    try:
        if len(data) < MULTIPART_BYTES:
            _client().put_object(Bucket=bucket, Key=key, Body=data)
        else:
            _client().upload_fileobj(io.BytesIO(data), bucket, key, Config=MULTIPART)
    except S3_ERRORS as error:
        raise_translated(error, uri)


def write_s3_if_absent(uri: str, data: bytes) -> bool:
    """Write a whole object unless there is one, and say whether it was written."""
    bucket, key = split_s3(uri)
    try:
        _client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except S3_ERRORS as error:
        if error_code(error) in CHANGED_CODES:
            return False
        raise_translated(error, uri)
    return True


def delete_s3(uri: str) -> None:
    """Delete an object; nothing happens where there is none."""
    bucket, key = split_s3(uri)
    try:
        _client().delete_object(Bucket=bucket, Key=key)
    except S3_ERRORS as error:
        raise_translated(error, uri)


class _RangedObject(io.RawIOBase):
    """An object's bytes by ranged GETs, all of the version that was listed."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._recording.size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._recording.size_bytes)
        if end <= self._position:
            return 0
        data = self._range(self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _range(self, start: int, end: int) -> bytes:
        try:
            data = _body(self._recording.uri, Range=f"bytes={start}-{end - 1}", IfMatch=f'"{self._recording.etag}"')
        except S3_ERRORS as error:
            raise_translated(error, self._recording.uri)
        if len(data) != end - start:
            raise TransientError(f"{self._recording.uri}: a read of {end - start} bytes gave {len(data)}. Try again.")
        return data


def _body(uri: str, **request: str) -> bytes:
    """GET an object or a range of it, again with growing pauses where the connection breaks in the middle."""
    bucket, key = split_s3(uri)
    for attempt in range(1, BODY_ATTEMPTS):
        with suppress(*BROKEN_BODY):
            return bytes(_client().get_object(Bucket=bucket, Key=key, **request)["Body"].read())
        time.sleep(random.uniform(0.0, 0.1 * 2**attempt))
    return bytes(_client().get_object(Bucket=bucket, Key=key, **request)["Body"].read())


def _pages(prefix: str) -> Iterator[dict[str, Any]]:
    bucket, key = split_s3(prefix)
    try:
        for page in _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
            yield from page.get("Contents", [])
    except S3_ERRORS as error:
        if error_code(error) in DENIED_CODES:
            raise ConfigError(f"{prefix}: may not be listed with these credentials. Allow s3:ListBucket.") from error
        raise_translated(error, prefix)


def _client() -> Any:
    # A client must not cross a fork.
    return _client_of(os.getpid())


@lru_cache(maxsize=1)
def _client_of(process_id: int) -> Any:
    config = botocore.config.Config(
        retries={"mode": "adaptive", "total_max_attempts": 6},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        # Other servers than Amazon's do not know the checksums that botocore adds of itself.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        core = botocore.session.get_session()
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
        return boto3.Session(botocore_session=core).client("s3", config=config)
    except (*S3_ERRORS, ValueError) as error:
        raise ConfigError(f"S3 cannot be set up ({error}). Check the AWS_* variables and ~/.aws/config.") from error


def _timestamp(value: Any) -> datetime:
    """Parse a time as S3 writes it; botocore's own parser takes three quarters of the time of a listing."""
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return botocore.utils.parse_timestamp(value)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
