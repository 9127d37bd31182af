"""URIs and what they name: `s3://bucket/key`, an absolute path, or `file://` for paths that are no text."""

import os
from datetime import UTC, datetime
from urllib.parse import quote_from_bytes, unquote_to_bytes

from dgasr.errors import ConfigError

S3_SCHEME = "s3://"
FILE_SCHEME = "file://"

MISSING_ETAG = "missing"
"""ETag of a recording that was asked for by name and is not there; reading it says so."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""When a missing object was modified."""


def is_s3(uri: str) -> bool:
    """Say whether a URI names an object in S3."""
    return uri.startswith(S3_SCHEME)


def split_s3(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/key` into bucket and key, which stands as it is; ConfigError where there is no bucket."""
    bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
    if not bucket:
        raise ConfigError(f"{uri}: names no bucket. Write s3://bucket/prefix.")
    return bucket, key


def local_path(uri: str) -> str:
    """Turn a path or `file://` URI into an absolute path; ConfigError where the scheme is none that is read here."""
    if uri.startswith(FILE_SCHEME):
        return os.path.abspath(os.fsdecode(unquote_to_bytes(uri.removeprefix(FILE_SCHEME))))
    scheme, separator, _ = uri.partition("://")
    if separator and scheme.isalnum():
        raise ConfigError(f"{uri}: {scheme}:// cannot be read. Give a path, or s3://bucket/prefix.")
    return os.path.abspath(uri)


def local_uri(path: str) -> str:
    """Turn an absolute path into a URI that is valid UTF-8: the path itself, or `file://` with its bytes encoded."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return FILE_SCHEME + quote_from_bytes(os.fsencode(path))
    return path
