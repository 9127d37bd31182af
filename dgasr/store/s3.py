"""Objects in S3 or anything that speaks its protocol; credentials, region and endpoint come from boto3's own chain.

What boto3 raises is sorted by who has to act.
"""

import io
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, BinaryIO, NoReturn

import boto3
import botocore.config
import botocore.exceptions
import botocore.exceptions as boto_errors
import botocore.session
import botocore.utils
from boto3.s3.transfer import TransferConfig
from urllib3.exceptions import HTTPError

from dgasr.errors import ChangedDuringReadError, ConfigError, ObjectError, ObjectMissingError, TransientError
from dgasr.records import EPOCH, MISSING_ETAG, Recording

S3_SCHEME = "s3://"

READ_BUFFER_BYTES = 4 * 2**20
"""Bytes of one ranged GET: decoders read a few kilobytes at a time."""

MULTIPART_BYTES = 64 * 2**20
"""Objects from here up are written in parts, but not where a write is conditional: that must be a single PUT."""

MULTIPART = TransferConfig(multipart_threshold=MULTIPART_BYTES, multipart_chunksize=16 * 2**20)

BODY_ATTEMPTS = 5
"""How often a body that breaks off is asked for. botocore tries requests again, but never the body of an answer."""

BROKEN_BODY = (botocore.exceptions.ResponseStreamingError, botocore.exceptions.IncompleteReadError, HTTPError)
"""What reading a body raises; `HTTPError` where it is the body of an error."""

S3_ERRORS = (boto_errors.BotoCoreError, boto_errors.ClientError, HTTPError, RecursionError)
"""Everything that a call may raise; `HTTPError` comes from reading a body, `RecursionError` from redirects."""

CONFIG_CODES = (
    "NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "AuthorizationHeaderMalformed", "NotImplemented",
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "ExpiredTokenException",
    "TokenRefreshRequired", "RequestExpired", "RequestTimeTooSkewed",
)  # fmt: skip
REMEDY = "Check the bucket's name and the credentials."
REMEDIES = {
    "NotImplemented": "The lake needs a store that knows conditional PUT, such as Amazon S3, MinIO or Ceph.",
    "RequestTimeTooSkewed": "Set this machine's clock, for example with chrony.",
    "ExpiredToken": "Renew the credentials, or use a role that renews them, and run again.",
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed"), "Set AWS_DEFAULT_REGION to the bucket's region."
    ),
}
"""What to do, by code, where the bucket's name and the credentials are not to blame."""

PAYS = "whether its bucket asks that the reader pays (Requester Pays: copy it into a bucket of yours)"
"""What may be behind a refusal; nobody is made to pay unasked."""

MISSING_CODES = ("NoSuchKey", "404", "NotFound")
CHANGED_CODES = ("PreconditionFailed", "412", "InvalidRange", "416")
PASSING_CODES = ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequestsException")
PASSING_STATUS = (408, 409, 425, 429)
SECRET_IN_URL = re.compile(r"//[^/@\s]*@")
"""User and password in the URL of an endpoint, which boto3 quotes in its messages."""

DENIED_CODES = ("AccessDenied", "403", "AllAccessDisabled")


def is_s3(uri: str) -> bool:
    """Say whether a URI names an object in S3."""
    return uri.startswith(S3_SCHEME)


def split_s3(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/key` into bucket and key, which stands as it is; ConfigError where there is no bucket."""
    bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
    if not bucket:
        raise ConfigError(f"{uri}: names no bucket. Write s3://bucket/prefix.")
    return bucket, key


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
    """Open the version of an object that was listed; its bytes come in ranges, as they are read."""
    if recording.etag == MISSING_ETAG:
        raise ObjectMissingError(f"{recording.uri}: there is no such object. Check the key, or list the prefix again.")
    return io.BufferedReader(_RangedObject(recording), buffer_size=READ_BUFFER_BYTES)


def read_s3(uri: str) -> bytes:
    """Read a whole object."""
    with _errors(uri):
        return _body(uri)


def write_s3(uri: str, data: bytes) -> None:
    """Write a whole object, or replace it."""
    bucket, key = split_s3(uri)
    with _errors(uri):
        if len(data) < MULTIPART_BYTES:
            _client().put_object(Bucket=bucket, Key=key, Body=data)
        else:
            _client().upload_fileobj(io.BytesIO(data), bucket, key, Config=MULTIPART)


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
    with _errors(uri):
        _client().delete_object(Bucket=bucket, Key=key)


class _RangedObject(io.RawIOBase):
    """An object's bytes by ranged GETs, all of the version that was listed."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

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
        with _errors(self._recording.uri):
            data = _body(self._recording.uri, Range=f"bytes={start}-{end - 1}", IfMatch=f'"{self._recording.etag}"')
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
            raise ConfigError(
                f"{prefix}: may not be listed with these credentials. Allow s3:ListBucket, and look {PAYS}."
            ) from error
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


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Turn errors of boto3 into ours."""
    try:
        yield
    except S3_ERRORS as error:
        raise_translated(error, uri)


def error_code(error: Exception) -> str:
    """Return S3's code for an error; empty where the service did not answer at all."""
    return str(error.response["Error"].get("Code", "")) if isinstance(error, boto_errors.ClientError) else ""


def raise_translated(error: Exception, uri: str) -> NoReturn:
    """Raise an error of boto3 as one that says who acts."""
    if isinstance(error, boto_errors.ClientError):
        raise _of_response(error, uri) from error
    if isinstance(error, RecursionError):
        raise ConfigError(f"{uri}: S3 redirects without end. Check AWS_ENDPOINT_URL and AWS_DEFAULT_REGION.") from error
    text = SECRET_IN_URL.sub("//", str(error))
    if isinstance(error, boto_errors.ParamValidationError):
        raise ConfigError(f"{uri}: cannot be the name of an object in S3. Write s3://bucket/prefix.") from error
    if isinstance(
        error,
        boto_errors.NoCredentialsError
        | boto_errors.PartialCredentialsError
        | boto_errors.CredentialRetrievalError
        | boto_errors.SSLError
        | boto_errors.UnauthorizedSSOTokenError,
    ):
        raise ConfigError(f"{uri}: S3 refuses the request ({text}). Set AWS_* variables or ~/.aws/config.") from error
    raise TransientError(f"{uri}: S3 does not answer ({text}). Try again later, or check AWS_ENDPOINT_URL.") from error


def _of_response(error: boto_errors.ClientError, uri: str) -> Exception:
    code = error_code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in CONFIG_CODES:
        return ConfigError(f"{uri}: S3 refuses the request ({code}). {REMEDIES.get(code, REMEDY)}")
    if code in MISSING_CODES:
        return ObjectMissingError(f"{uri}: there is no such object. Check the key, or list the prefix again.")
    if code == "InvalidObjectState":
        places = [error.response["Error"].get(name) for name in ("StorageClass", "AccessTier")]
        return ObjectError(
            f"{uri}: lies in the storage class {', '.join(filter(None, places)) or 'archived'}, from which nothing can "
            "be read. Restore it (`aws s3api restore-object`), which takes hours, also where it has begun; then run "
            "`dgasr backfill --reason unreadable`."
        )
    if code in CHANGED_CODES:
        return ChangedDuringReadError(f"{uri}: was replaced while it was read. Run again: it is a new version.")
    if status >= 500 or status in PASSING_STATUS or code in PASSING_CODES:
        return TransientError(f"{uri}: S3 is busy or failing ({code}, status {status}). Try again later.")
    said = " ".join(str(error.response["Error"].get("Message") or "no reason is given").split()).rstrip(".")
    return ObjectError(
        f"{uri}: S3 does not give it ({code}, status {status}: {said}). Check the permissions of this object, the key "
        f"that it is encrypted with, and {PAYS}."
    )
