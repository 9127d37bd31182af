import os
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from dgasr.cli import COMMANDS, main
from dgasr.errors import ConfigError, IntegrityError, TransientError


def test_help_lists_every_command(dgasr):
    code, out, _ = dgasr("--help")
    assert code == 0
    assert all(f"\n    {name}" in out for name in COMMANDS)


def test_the_version_is_that_of_the_installation(dgasr):
    assert dgasr("--version")[:2] == (0, f"dgasr {version('dgasr')}\n")


def test_no_command_is_a_wrong_request(dgasr):
    assert dgasr()[0] == 2


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("say this"), 2), (TransientError("say this"), 1), (IntegrityError("say this"), 1)]
)
def test_an_error_is_a_message_and_an_exit_code(monkeypatch, capsys, error: Exception, code: int):
    import dgasr.commands.doctor

    def fail(uri):
        raise error

    monkeypatch.setattr(dgasr.commands.doctor, "examine", fail)
    assert main(["doctor"]) == code
    assert capsys.readouterr().err == "dgasr: say this\n"


def test_an_interrupted_run_says_that_it_can_go_on(monkeypatch, capsys):
    import dgasr.commands.doctor

    def interrupt(uri):
        raise KeyboardInterrupt

    monkeypatch.setattr(dgasr.commands.doctor, "examine", interrupt)
    assert main(["doctor"]) == 130
    assert "goes on from there" in capsys.readouterr().err


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
        ["lake", "vacuum", "--lake", "lake", "--grace-days", "inf"],
        ["lake", "vacuum", "--lake", "lake", "--grace-days", "nan"],
        ["train", "manifest.jsonl", "--out", "model", "--lr", "nan"],
        ["train", "manifest.jsonl", "--out", "model", "--workers", "-1"],
        ["sql", "recordings", "--lake", ""],
        ["sql", "recordings", "--lake", "s3:/bucket/lake"],
        ["transcribe", "", "--lake", "lake"],
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(dgasr, wrong: list[str]):
    code, _, err = dgasr(*wrong)
    assert code == 2
    assert "error: argument" in err


def test_doctor_probes_no_folder_in_place_of_s3(dgasr, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dgasr("doctor", "--s3", "bucket/lake")[0] == 2
    assert not list(tmp_path.iterdir())


def test_sql_answers_on_standard_output(dgasr, archive, tmp_path):
    dgasr("transcribe", archive, "--lake", tmp_path / "lake")
    code, out, _ = dgasr("sql", "select text from segments", "--lake", tmp_path / "lake", "--format", "csv")
    assert (code, out) == (0, "text\nhello\nhello\n")


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


def test_sql_on_no_lake_is_a_wrong_request(dgasr, tmp_path):
    assert dgasr("sql", "select 1", "--lake", tmp_path / "nowhere")[0] == 2


def test_evaluate_on_no_manifest_is_a_wrong_request(dgasr, tmp_path):
    assert dgasr("evaluate", tmp_path / "nowhere.jsonl", "--model", tmp_path / "no-model")[0] == 2


@pytest.mark.parametrize(
    "work",
    [
        ["train", "manifest.jsonl", "--out", "{file}"],
        ["demo", "--lake", "{file}"],
    ],
)
def test_a_file_in_a_folders_place_is_refused_before_any_work(dgasr, tmp_path, work: list[str]):
    (tmp_path / "file").write_text("mine")
    code, _, err = dgasr(*(word.format(file=tmp_path / "file") for word in work))
    assert code == 2, err
    assert (tmp_path / "file").read_text() == "mine"
