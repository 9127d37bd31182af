"""What the documents name is there."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from dgasr.cli import build_parser
from dgasr.corpora.layouts import CORPORA

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_files_that_a_document_names_or_links_are_there(document: Path):
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"`((?:dgasr|tests|docs|sql|pipelines)/[\w/.-]+)`", text)
    assert not [path for path in named if not (ROOT / path).exists()]
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert not [link for link in links if not (document.parent / link).exists()]


def test_every_promise_has_its_test():
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    promised = re.findall(r"\| `(tests/[\w/]+\.py)::(\w+)` \|", text)
    assert len(promised) == text.count("`tests/") - 1
    missing = [(path, name) for path, name in promised if f"\ndef {name}(" not in (ROOT / path).read_text("utf-8")]
    assert not missing


def test_the_page_on_architecture_has_every_package():
    packages = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "dgasr").iterdir()
        if path.name not in ("__init__.py", "__pycache__")
    }
    assert not [package for package in packages if f"`{package}`" not in ARCHITECTURE]


def test_decisions_are_numbered_without_a_gap():
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_what_the_page_on_operations_says_you_see_is_what_the_code_says():
    table = OPERATIONS.partition("## When something fails")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    said = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]
    code = "\n".join(
        path.read_text(encoding="utf-8") for top in ("dgasr", "pipelines") for path in (ROOT / top).rglob("*.py")
    )
    assert len(said) > 20
    assert not [text for text in said if text not in code]


def test_commands_on_the_page_on_operations_are_commands():
    parser = build_parser()
    commands = re.findall(r"^dgasr .+$|(?<=`)dgasr [a-z]+ [^`\n]+(?=`)", OPERATIONS, re.MULTILINE)
    assert len(commands) > 10
    for command in commands:
        words = shlex.split(command.replace("…", "something"))[1:]
        has_lake = "--lake" in words or words[0] == "doctor"
        parser.parse_args(words + ([] if has_lake else ["--lake", "something"]))


@pytest.mark.parametrize("page", ["serving", "corpora", "training"])
def test_commands_on_a_page_are_commands(page: str):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    commands = re.findall(r"^dgasr .+$", text, re.MULTILINE)
    assert commands
    for command in commands:
        build_parser().parse_args(shlex.split(command)[1:])


def commands_beside_the_reference():
    """(command, flag, default) of each row in the table; the flag is empty where the row names the command."""
    table = TRAINING.partition("## Beside the reference")[2].partition("\n## ")[0]
    command: tuple[str, ...] = ()
    for line in table.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if named := re.match(r"`dgasr ([a-z ]+[a-z])", cells[2] if len(cells) > 4 else ""):
            command = tuple(named[1].split())
            yield command, "", ""
        elif flag := re.match(r"`(--[a-z-]+)", cells[2] if len(cells) > 4 else ""):
            yield command, flag[1], cells[4].split(",")[0]


def actions_of(command):
    parser = build_parser()
    for name in command:
        (choices,) = [own.choices for own in parser._actions if isinstance(own, argparse._SubParsersAction)]
        parser = choices[name]
    return {flag: action for action in parser._actions for flag in action.option_strings}


def test_the_table_beside_the_reference_is_what_the_commands_take():
    rows = list(commands_beside_the_reference())
    named = {command: {flag for own, flag, _ in rows if own == command and flag} for command, _, _ in rows}
    assert {" ".join(command) for command in named} == {
        "corpora", "train", "evaluate", "serve", "model space", "model probe", "model publish",
    }  # fmt: skip
    asked = (
        "--out --subset --language --download --base --run-name --epochs --batch-size --grad-accum --lr --ar-weight "
        "--ctc-weight --lora-rank --no-lora --precision --gradient-checkpointing --patience --device --resume --ckpt "
        "--max-steps --limit --languages --metric --normalizer --baseline --page --to"
    )
    assert not set(asked.split()) - set().union(*named.values())
    for command, flag, default in rows:
        if not flag:
            continue
        action = actions_of(command)[flag]
        assert action.help, (command, flag)
        assert action.required or "default" in action.help, (command, flag, action.help)
        if action.required or default == "required":
            assert (action.required, default) == (True, "required"), (command, flag)
        elif action.default not in (None, (), 0, "", False) or default.isdigit():
            shown = f"{action.default:g}" if isinstance(action.default, float) else str(action.default)
            assert default == shown, (command, flag)


def test_the_page_on_corpora_has_every_kind_reason_and_subset():
    page = (ROOT / "docs" / "corpora.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "dgasr" / "corpora").glob("*.py"))
    reasons = set(re.findall(r'(?:reason=|refuse\()"(\w+)"', code))
    subsets = {name for corpus in CORPORA.values() for name in corpus.subsets}
    assert len(reasons) > 8
    assert not [name for name in {*CORPORA, *subsets, *reasons} if f"`{name}`" not in page]


def test_targets_on_the_page_on_operations_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", OPERATIONS, re.MULTILINE))
    assert len(targets) > 5
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)]
