"""Whether a store keeps what the lake relies on, found out by trying. Run before any work begins."""

import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from dgasr.errors import ConfigError, DgasrError, ObjectError
from dgasr.store import objects

MOST_SKEW = timedelta(hours=1)
"""How far this machine's clock and the store's may differ: what was left behind is told from what is in use by age."""


def probe_store(lake_uri: str) -> None:
    """Write, refuse to overwrite, read, list and delete an object of a lake.

    Args:
        lake_uri: the lake, in a folder or in S3; nothing need lie there yet.

    Raises:
        ConfigError: bucket, credentials or permissions are wrong, the store overwrites what must not be overwritten, or
            one of the clocks is wrong.
        TransientError: the store does not answer.
    """
    uri = f"{lake_uri}/staging/probes/{secrets.token_hex(8)}"
    first, second = b"first", b"second"
    try:
        # Not what this call returns, but what lies there: an answer that got lost looks like a refusal.
        objects.write_if_absent(uri, first)
        is_overwritten = objects.write_if_absent(uri, second) or objects.read_bytes(uri) != first
        written_at = next(iter(objects.list_objects(uri))).modified_at
        objects.delete(uri)
    except ObjectError as error:
        raise ConfigError(
            f"{lake_uri}: no lake can be written there ({error}). Allow to write, read, list and delete objects in it."
        ) from error
    if is_overwritten:
        with suppress(DgasrError):
            objects.delete(uri)
        raise ConfigError(
            f"{lake_uri}: this store ignores `If-None-Match: *`, and two workers could mix their rows. "
            "Keep the lake in a folder or in a store that honours it, such as Amazon S3, MinIO or Ceph."
        )
    if abs(datetime.now(UTC) - written_at) > MOST_SKEW:
        raise ConfigError(
            f"{lake_uri}: the store says it is {written_at:%Y-%m-%d %H:%M} UTC, and this machine that it is "
            f"{datetime.now(UTC):%Y-%m-%d %H:%M}. Set the clock that is wrong, for example with chrony."
        )
