"""Prefect in a folder of its own, and flows without a model."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Prefect reads these when it is imported, which the tests of this folder do after this file.
HOME = tempfile.TemporaryDirectory(prefix="dgasr-test-prefect-", ignore_cleanup_errors=True)
os.environ.pop("PREFECT_API_URL", None)
os.environ |= {
    "PREFECT_HOME": HOME.name,
    "PREFECT_PROFILES_PATH": f"{HOME.name}/profiles.toml",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
}


@pytest.fixture(scope="session")
def temporary_server(prefect_database: Path) -> None:
    """Let the server that Prefect starts for flows without one begin with a database that is there."""
    shutil.copyfile(prefect_database, f"{HOME.name}/prefect.db")


@pytest.fixture(scope="session", autouse=True)
def prefect_home() -> Iterator[None]:
    """Remove Prefect's folder in the end."""
    yield
    HOME.cleanup()
