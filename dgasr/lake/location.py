"""Where a lake lies: a folder or an `s3://` prefix, opened for pyarrow, with what Delta Lake needs to reach it.

Credentials and the endpoint of S3 come from the environment's own chain (`AWS_ENDPOINT_URL`, profiles, roles).
"""

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow.fs

from dgasr.errors import ConfigError, TransientError
from dgasr.lake.schema import TABLES

FOLDERS = (*TABLES, "staging")
"""What can stand at the top of a lake; `staging` is where a run keeps what is not committed yet."""

OLD_FOLDERS = frozenset({"commits", "manifests", "claims"})
"""What stood at the top of a lake before Delta Lake, and does not now."""


UNFIT = re.compile(r"[\[\]^|\\\x00-\x1f\x7f]|/_delta_log(?=/|$)")
"""What no Delta table's path may hold, whether encoded or not: deltalake panics at it, or takes it for its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lake:
    """A lake, open for reading."""

    uri: str
    """As the user named it, absolute."""
    root: str
    """Its path in `filesystem`, without a trailing slash."""
    filesystem: pyarrow.fs.FileSystem = field(compare=False)

    @property
    def storage_options(self) -> Mapping[str, str]:
        """Say to Delta Lake how the lake is reached; it finds credentials, profiles and roles by itself."""
        if "://" not in self.uri:
            return {}
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "")
        return (
            {"aws_conditional_put": "etag"}  # a commit is one PUT that must not overwrite; `dgasr doctor` tests it
            | ({"aws_endpoint": endpoint, "aws_allow_http": str(endpoint.startswith("http://"))} if endpoint else {})
            | ({"aws_region": region} if region else {})
        )

    def table_uri(self, name: str) -> str:
        """Return where a table lies, as Delta Lake takes it: encoded, so that a '%' in a name stays one."""
        return f"{self.uri}/{name}" if "://" in self.uri else f"file://{quote(self.uri)}/{name}"

    def path(self, key: str) -> str:
        """Return the path of an object of the lake."""
        return f"{self.root}/{key}"

    def list_files(self, folder: str) -> dict[str, pyarrow.fs.FileInfo]:
        """List the files under a folder by key, sorted, with their sizes and times; nothing where it is missing.

        ConfigError where access is denied, TransientError where the store does not answer.
        """
        selector = pyarrow.fs.FileSelector(self.path(folder), recursive=True, allow_not_found=True)
        try:
            found = self.filesystem.get_file_info(selector)
        except OSError as error:
            raise storage_error(self.uri, error) from error
        files = {info.path[len(self.root) + 1 :]: info for info in found if info.is_file}
        return dict(sorted(files.items()))


def lake_uri_of(lake: str) -> str:
    """Turn what a user typed into the URI that stores and messages use: absolute, without a trailing slash.

    ConfigError where the URI is of no known kind.
    """
    is_strange = "://" in lake and not lake.startswith(("s3://", "file://"))
    if lake in ("", "s3://", "file://") or is_strange or re.match("s3:/[^/]", lake):
        raise ConfigError(f"{lake!r}: is no lake. Give a folder or s3://bucket/prefix.")
    if lake.startswith("s3://"):
        return lake.rstrip("/")
    if lake.startswith("file://"):
        return str(Path(unquote(lake.removeprefix("file://"))).absolute())
    return str(Path(lake).expanduser().absolute())


def open_lake(lake: str) -> Lake:
    """Open a lake by its folder, `file://` or `s3://` URI, whether or not anything lies in it yet.

    ConfigError where the URI is of no known kind, TransientError where the store does not answer.
    """
    uri = lake_uri_of(lake)
    if re.search("%[0-9A-Fa-f]{2}", uri):
        raise ConfigError(f"{uri}: Delta Lake takes the '%' in it for an encoded character. Choose another name.")
    unfit = UNFIT.search(uri) or (re.search("[#?]", uri) if "://" in uri else None)
    if unfit:
        raise ConfigError(f"{uri!r}: Delta Lake opens no table whose path holds {unfit[0]!r}. Choose another name.")
    if "://" not in uri:
        return Lake(uri=uri, filesystem=pyarrow.fs.LocalFileSystem(), root=uri)
    root = uri.removeprefix("s3://")
    try:
        # The bucket alone: pyarrow would take a space or a '%' in the prefix for part of an encoded URI.
        filesystem, _ = pyarrow.fs.FileSystem.from_uri(f"s3://{root.split('/')[0]}")
    except ValueError as error:
        raise ConfigError(f"{lake}: is no lake ({error}). Give a folder or s3://bucket/prefix.") from error
    except OSError as error:
        raise storage_error(lake, error) from error
    return Lake(uri=uri, filesystem=filesystem, root=root)


def open_existing_lake(lake: str) -> Lake:
    """Open a lake that something was written to, or an empty folder; ConfigError where neither lies there."""
    found = open_lake(lake)
    try:
        entries = found.filesystem.get_file_info(pyarrow.fs.FileSelector(found.root))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{lake}: no lake lies here. Check the URI, or write one with `dgasr transcribe SOURCE --lake {lake}`."
        ) from error
    except OSError as error:
        raise storage_error(lake, error) from error
    names = {entry.base_name for entry in entries if not entry.base_name.startswith(".")}
    if names & OLD_FOLDERS and not names & {"transcripts"}:
        raise ConfigError(
            f"{lake}: is a lake of the format before Delta Lake. Copy it with `dgasr lake upgrade {lake} NEW` of "
            "commit a6a4662, the last one that had it, and use NEW from then on."
        )
    if names and not names & set(FOLDERS):
        raise ConfigError(
            f"{lake}: is no lake; it holds {', '.join(sorted(names)[:3])}, and none of {', '.join(FOLDERS)}. "
            "Give the folder or prefix that `dgasr transcribe --lake` wrote."
        )
    return found


def storage_error(where: str, error: OSError) -> ConfigError | TransientError:
    """Sort a storage failure by who has to act."""
    text = str(error)
    is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    if is_missing or re.search("NO_SUCH_BUCKET|Bucket .* not found", text):
        return ConfigError(f"{where}: cannot be read, it does not exist ({text}). Check the URI.")
    if isinstance(error, PermissionError) or "ACCESS_DENIED" in text or error.errno == errno.EACCES:
        return ConfigError(f"{where}: access is denied ({text}). Check permissions and credentials.")
    return TransientError(f"{where}: the store did not answer ({text}). Try again; `dgasr doctor` tests the access.")
