"""A lake in, a script out that makes its tables and views in anybody's DuckDB, of version 1.5 or later.

The script names the parts that readers see now; whoever wants what came later writes it again.
"""

from datetime import UTC, datetime
from urllib.parse import urlsplit

from dgasr.lake.location import open_existing_lake
from dgasr.lake.scans import scan_statements
from dgasr.lake.snapshot import snapshot
from dgasr.lake.views import SETTINGS, view_statements


def attach_script(lake_uri: str, endpoint_url: str = "") -> str:
    """Write the script.

    Args:
        lake_uri: a folder or `s3://` prefix.
        endpoint_url: where S3 is, empty for AWS itself; no credentials are written, DuckDB finds them as we do.

    Raises:
        ConfigError: no lake lies there.
        IntegrityError: commits and parts contradict each other.
        TransientError: the store does not answer.
    """
    found = snapshot(open_existing_lake(lake_uri))
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    pieces = [
        f"-- {lake_uri} as it was at {at} UTC, for DuckDB 1.5 or later: duckdb -init lake.sql\n"
        "-- Written by `dgasr lake attach`; write it again to see what was committed since.\n",
        *(f"{setting};\n" for setting in SETTINGS),
    ]
    if "://" in found.lake.uri:
        pieces.append(_access(endpoint_url))
    return "\n".join([*pieces, *scan_statements(found.parts, found.lake.uri), *view_statements().values()])


def _access(endpoint_url: str) -> str:
    """Write how S3 is reached."""
    endpoint = urlsplit(endpoint_url)
    where = (
        f", endpoint '{endpoint.netloc}', url_style 'path', use_ssl {str(endpoint.scheme == 'https').lower()}"
        if endpoint.netloc
        else ""
    )
    return (
        "install httpfs;\nload httpfs;\ninstall aws;\nload aws;\n"
        f"create or replace secret dgasr_lake (type s3, provider credential_chain{where});\n"
    )
