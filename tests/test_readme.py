"""Every command of the README runs: the demo as a process of its own, the others in this one, in an empty folder."""

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dgasr.cli import main
from dgasr.evaluation.normalise import normalise

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("readme")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the paths of the README lead to the checkout's files."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "dgasr").symlink_to(ROOT / "dgasr")
    return folder


@pytest.fixture
def folder(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as working folder of one test, whatever other tests of this process have done in between."""
    monkeypatch.chdir(shared_folder)
    return shared_folder


def run(command: str) -> int:
    return main([match for word in shlex.split(command)[1:] for match in (sorted(glob.glob(word)) or [word])])


def make_lake(wanted: str, folder: Path) -> None:
    """Make the lake that a command or program reads, where a test runs alone or before its neighbour."""
    if "my-lake" in wanted and not (folder / "my-lake").exists():
        assert run(next(command for command in COMMANDS if "--lake my-lake" in command)) == 0


@pytest.fixture(scope="module")
def demo(shared_folder: Path, prefect_database: Path) -> str:
    """What the demo prints, run as `make demo` runs it; its Prefect server finds a database that is there."""
    shutil.copyfile(prefect_database, shared_folder / "prefect.db")
    database = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{shared_folder}/prefect.db"}
    result = subprocess.run(
        [sys.executable, "-m", "dgasr.cli", "demo"],
        capture_output=True,
        text=True,
        cwd=shared_folder,
        env=os.environ | database | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("dgasr")])
def test_a_command_runs(command: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    make_lake(command, folder)
    assert run(command) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.strip()


def test_the_other_commands_are_targets_of_make():
    others = [command for command in COMMANDS if not command.startswith("dgasr")]
    assert {command.split()[0] for command in others} == {"make"}
    for command in others:
        result = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    assert re.search(r"^demo:.*\n\t\$\(BIN\)/dgasr demo$", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    make_lake(code, folder)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_packages_have_their_line_in_the_tree_and_what_to_open_is_there():
    packages = {path.name for path in (ROOT / "dgasr").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert not [package for package in packages if f"\n  {package}/ " not in README]
    table = re.findall(r"^\|.*\| `(.*)` \|$", README, re.MULTILINE)
    assert table
    assert all((ROOT / path).exists() for path in table)


def test_the_demo_hears_each_person_of_a_call(demo: str):
    texts = re.search(
        r"channel 0  said   (.+)\n +heard  (.*)\n  channel 1  said   (.+)\n +heard  (.*)\n", demo
    ).groups()
    words = [set(normalise(text, "en", "basic")) for text in texts]
    for said, heard, other in ((words[0], words[1], words[2]), (words[2], words[3], words[0])):
        assert len(said & heard) > len((other - said) & heard)


def test_the_demo_gives_texts_words_with_times_error_rate_speed_coverage_and_broken_files(demo: str):
    assert demo.count("\n    said ") == demo.count("\n    heard ") == 12
    assert re.search(r"\n +0\.\d\d to +\d\.\d\d  \d\.\d\d  \S+\n", demo)
    assert re.search(r"\nWER \d+\.\d%", demo)
    assert re.search(r"\nRTFx \d+\.\d", demo)
    coverage = re.search(r"coverage: ([\d.]+) s decoded = ([\d.]+) s speech \+ ([\d.]+) s silence", demo)
    decoded, speech, silence = map(float, coverage.groups())
    assert decoded == pytest.approx(speech + silence, abs=0.11)
    assert "encrypted.m4a: rejected, unknown_format" in demo
    assert "cut_off.wav: partial, truncated" in demo


def test_the_demo_says_how_to_go_on(demo: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    commands = re.findall(r"^  dgasr (sql .*)$", demo, re.MULTILINE)
    assert commands
    for command in commands:
        assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out.strip()


def test_the_demo_makes_its_own_lake_anew_and_leaves_others_alone(demo: str, folder: Path, capsys):
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").touch()
    assert main(["demo", "--lake", "mine"]) == 2
    assert (folder / "mine" / "thesis.txt").exists()
    assert "demo did not make" in capsys.readouterr().err
