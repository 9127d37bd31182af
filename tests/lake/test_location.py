"""Where a lake lies, and what its storage's failures mean."""

import pyarrow.fs
import pytest

from dgasr.errors import ConfigError, TransientError
from dgasr.lake.location import Lake, lake_uri_of, open_existing_lake, open_lake


class FailingHandler(pyarrow.fs.FileSystemHandler):
    """A filesystem that answers every listing with one error."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def get_file_info_selector(self, selector):
        raise self.error


FailingHandler.__abstractmethods__ = frozenset()


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [("NETWORK_CONNECTION", TransientError, "did not answer"), ("ACCESS_DENIED", ConfigError, "access is denied")],
)
def test_a_silent_store_is_worth_another_try_and_a_closed_one_is_not(code, error, message):
    filesystem = pyarrow.fs.PyFileSystem(FailingHandler(OSError(f"AWS Error {code}")))
    with pytest.raises(error, match=message):
        Lake(uri="s3://b/l", root="b/l", filesystem=filesystem).list_files("staging")


def test_a_relative_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert lake_uri_of("lake/") == f"{tmp_path}/lake" == lake_uri_of(f"file://{tmp_path}/lake")


@pytest.mark.parametrize(
    ("lakes", "message"),
    [
        (["ftp://host/lake", "s3://", "s3:/bucket/lake", ""], "is no lake"),
        (
            ["/lakes/[old]", "/lakes/a^b", "/lakes/a\\b", "/lakes/a|b", "/a/_delta_log/b", "s3://b/a#b", "s3://b/a?b"],
            "Delta Lake opens no table .* Choose another name",
        ),
    ],
)
def test_what_cannot_be_a_lake_and_a_name_that_delta_lake_cannot_open_are_refused(lakes, message):
    for lake in lakes:
        with pytest.raises(ConfigError, match=message):
            open_lake(lake)


def test_a_folder_that_is_not_there_yet_lists_nothing(tmp_path):
    assert open_lake(str(tmp_path / "later")).list_files("staging") == {}


def test_a_lake_of_the_format_before_says_what_copies_it(tmp_path):
    (tmp_path / "commits").mkdir()
    with pytest.raises(ConfigError, match=f"dgasr lake upgrade {tmp_path} NEW` of commit a6a4662"):
        open_existing_lake(str(tmp_path))


def test_an_endpoint_without_tls_is_allowed_where_it_is_named(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    options = open_lake("s3://b/l").storage_options
    assert options["aws_endpoint"] == "http://127.0.0.1:9"
    assert options["aws_allow_http"].lower() == "true"
    assert (options["aws_region"], options["aws_conditional_put"]) == ("eu-north-1", "etag")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example")
    assert open_lake("s3://b/l").storage_options["aws_allow_http"].lower() == "false"
