import os
import pty
import shlex
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from dgasr.cli import COMMANDS, main
from dgasr.commands import doctor
from dgasr.errors import ConfigError, IntegrityError, TransientError
from dgasr.lake.ledger import commit_shard
from tests.lake.conftest import shard_of


def test_help_lists_every_command_and_none_at_all_is_a_wrong_request(dgasr):
    code, out, _ = dgasr("--help")
    assert (code, [name for name in COMMANDS if f"\n    {name}" not in out]) == (0, [])
    assert dgasr("--version")[:2] == (0, f"dgasr {version('dgasr')}\n")
    assert dgasr()[0] == 2


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("say this"), 2, "dgasr: say this\n"),
        (TransientError("say this"), 1, "dgasr: say this\n"),
        (IntegrityError("say this"), 1, "dgasr: say this\n"),
        (KeyboardInterrupt(), 130, "\nStopped. What was committed stays; the same command goes on from there.\n"),
    ],
)
def test_an_error_is_a_message_and_an_exit_code(monkeypatch, capsys, error: BaseException, code: int, message: str):
    def fail(uri):
        raise error

    monkeypatch.setattr(doctor, "examine", fail)
    assert main(["doctor"]) == code
    assert capsys.readouterr().err == message


def test_a_reader_that_goes_away_is_no_error(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # with it nothing is left to be written at exit
    piped = f"{sys.executable} -m dgasr.cli --help | true"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", piped], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("redirect", "code", "message"),
    [(">/dev/full", 1, "No space left on device"), (">&-", 0, ""), ("2>&- >/dev/null", 0, "")],
)
def test_output_that_nobody_takes_ends_without_a_stack_trace(redirect: str, code: int, message: str):
    command = f"{sys.executable} -m dgasr.cli --version {redirect}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == code
    assert message in result.stderr
    assert result.stderr.count("\n") == bool(message)


def test_output_is_utf8_whatever_the_locale():
    command = [sys.executable, "-m", "dgasr.cli", "evaluate", "--help"]
    result = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False)
    assert "NAME,…".encode() in result.stdout


@pytest.mark.parametrize(
    "wrong",
    [
        "lake vacuum --lake lake --grace-days inf", "lake vacuum --lake lake --grace-days nan",
        "train manifest.jsonl --run-name r --lr nan", "train manifest.jsonl --run-name r --workers -1",
        "sql recordings --lake ''", "sql recordings --lake s3:/bucket/lake", "transcribe '' --lake lake",
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_name(dgasr, wrong: str):
    code, _, err = dgasr(*shlex.split(wrong))
    assert (code, "error: argument" in err) == (2, True)


@pytest.mark.parametrize(
    "wrong",
    ["doctor --s3 bucket/lake", "sql 'select 1' --lake nowhere", "evaluate nowhere.jsonl --model no-model",
     "train manifest.jsonl --run-name r --runs file", "demo --lake file"],
)  # fmt: skip
def test_what_is_not_there_or_in_the_place_of_something_else_is_refused_before_any_work(
    dgasr, tmp_path, monkeypatch, wrong: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert dgasr(*shlex.split(wrong))[0] == 2
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_sql_without_a_question_at_a_terminal_names_duckdbs_own_shell(dgasr, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    code, _, err = dgasr("sql", "--lake", "my-lake")
    assert (code, "dgasr lake attach --lake my-lake > lake.sql; duckdb -init lake.sql" in err) == (2, True)


def test_sql_leaves_a_whole_answer_in_the_file_or_none(dgasr, archive, tmp_path):
    dgasr("transcribe", archive, "--lake", tmp_path / "lake")
    out = tmp_path / "answer.csv"
    ask = ["--lake", tmp_path / "lake", "--format", "csv", "--out", out]
    assert dgasr("sql", "select text from segments", *ask)[:2] == (0, "")
    assert out.read_text() == "text\nhello\nhello\n"
    assert dgasr("sql", "select nonsense", *ask)[0] == 2
    assert out.read_text() == "text\nhello\nhello\n"
    assert sorted(path.name for path in tmp_path.glob("answer*")) == ["answer.csv"]


@pytest.fixture
def small_lake_of_strange_names(tmp_path):
    commit_shard(str(tmp_path), shard_of(uri="/a/\x1b[31mred\u202e.wav"))
    return str(tmp_path)


def test_what_is_stored_steers_no_terminal_and_goes_into_a_pipe_as_it_is(small_lake_of_strange_names):
    command = [sys.executable, "-m", "dgasr.cli", "sql", "select uri from recordings", "--format", "csv", "--lake"]
    ours, its = pty.openpty()
    shown = subprocess.run([*command, small_lake_of_strange_names], stdout=its, check=True)
    assert shown.returncode == 0
    assert os.read(ours, 1000) == b"uri\r\n/a/\\x1b[31mred\\u202e.wav\r\n"
    piped = subprocess.run([*command, small_lake_of_strange_names], capture_output=True, check=True).stdout
    assert piped.decode() == "uri\n/a/\x1b[31mred\u202e.wav\n"
