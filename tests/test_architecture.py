"""The arrows between the rooms, and what a room must not load. `docs/architecture.md` draws this table."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ARROWS: dict[str, set[str]] = {
    # what is handed between rooms, and what they agree on
    "errors": set(),
    "records": set(),
    "kernels": set(),
    # rooms: one noun each
    "audio": {"errors", "records"},
    "segmentation": {"errors", "records"},
    "features": {"errors", "records"},
    "prompt": {"errors"},
    "model": {"errors", "kernels", "prompt"},
    "diffusion": {"errors", "kernels"},
    "alignment": {"errors", "records"},
    "store": {"errors", "records"},
    "lake": {"errors", "records"},
    "evaluation": {"errors", "records"},
    "samples": {"errors", "records"},
    "exports": set(),
    "scale": {"errors"},
    # compositions: where rooms meet
    "recipe": {"alignment", "audio", "diffusion", "errors", "features", "model", "segmentation"},
    "frontend": {"features", "recipe", "records", "segmentation"},
    "training": {"alignment", "audio", "diffusion", "errors", "features", "model", "prompt", "records"},
    "transcriber": {
        "alignment", "audio", "diffusion", "errors", "features", "frontend", "model", "prompt", "recipe", "records",
    },
    "hypotheses": {"audio", "errors", "evaluation", "frontend", "recipe", "records", "training"},
    "evaluator": {"errors", "evaluation", "hypotheses", "model", "recipe", "training", "transcriber"},
    "baseline": {"audio", "errors", "evaluation", "hypotheses", "records", "training"},
    "stages": {"audio", "errors", "frontend", "lake", "model", "recipe", "records", "store", "transcriber"},
    # whoever asks
    "__init__": {"transcriber"},
    "doctor": {"errors", "model", "store"},
    "bench": {
        "audio", "diffusion", "errors", "features", "lake", "model", "prompt", "recipe", "records", "samples",
        "segmentation", "stages", "transcriber",
    },
    "commands": {
        "baseline", "bench", "doctor", "errors", "evaluation", "evaluator", "exports", "lake", "model", "records",
        "scale", "stages", "store", "training", "transcriber",
    },
    "cli": {"errors"},
    "pipelines": {
        "errors", "evaluation", "evaluator", "lake", "recipe", "records", "samples", "stages", "store", "training",
    },
}  # fmt: skip
"""Room → rooms it may import, inside functions too."""

TORCH_FREE = (
    "errors",
    "records",
    "audio",
    "segmentation",
    "features",
    "recipe",
    "store",
    "lake",
    "evaluation",
    "stages",
)
"""Rooms that a machine without a model loads: importing any of their files must not load torch."""

SLOW_PACKAGES = ("torch", "transformers", "prefect")

NAMES_THAT_SWALLOW = {"utils", "util", "common", "helpers", "core", "base", "misc"}


def source_files() -> list[Path]:
    return sorted(path for top in ("dgasr", "pipelines") for path in (ROOT / top).rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "pipelines" if parts[0] == "pipelines" else parts[1]


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written out in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for name in imported_modules(path):
        top, *rest = name.split(".")
        if top == "pipelines":
            rooms.add("pipelines")
        elif top == "dgasr":
            rooms.add(rest[0] if rest and rest[0] in ARROWS else "__init__")
    return rooms - {room_of(path)}


def loaded_after(statement: str) -> set[str]:
    """Packages of `SLOW_PACKAGES` that a fresh interpreter holds after a statement."""
    program = f"import json, sys\n{statement}\nprint(json.dumps([n for n in {SLOW_PACKAGES} if n in sys.modules]))"
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(finished.stdout.splitlines()[-1]))


def test_every_room_stands_in_the_table():
    assert {room_of(path) for path in source_files()} == set(ARROWS)


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_imports_what_the_table_says_and_nothing_else(room):
    found = {path: imported_rooms(path) for path in source_files() if room_of(path) == room}
    wrong = {str(path.relative_to(ROOT)): rooms - ARROWS[room] for path, rooms in found.items()}
    assert not {path: rooms for path, rooms in wrong.items() if rooms}
    assert ARROWS[room] == set().union(*found.values()), "the table allows what nobody uses: take the arrow out"


def test_arrows_point_one_way():
    rooms, settled = dict(ARROWS), set()
    while rooms:
        free = {room for room, arrows in rooms.items() if arrows <= settled}
        assert free, f"these import each other in a circle: {sorted(rooms)}"
        settled |= free
        rooms = {room: arrows for room, arrows in rooms.items() if room not in free}


def test_the_library_does_not_know_prefect():
    knowing = [p for p in source_files() if any(name.split(".")[0] == "prefect" for name in imported_modules(p))]
    assert {room_of(path) for path in knowing} == {"pipelines"}


def test_machines_without_a_model_do_not_load_torch():
    files = [path for path in source_files() if room_of(path) in TORCH_FREE]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    assert len(modules) > len(TORCH_FREE)
    assert loaded_after(f"import {', '.join(modules)}") == set()


def test_help_waits_for_no_slow_package():
    statement = "import dgasr, dgasr.cli\ntry: dgasr.cli.main(['--help'])\nexcept SystemExit: pass"
    assert loaded_after(statement) == set()


def test_no_file_has_a_name_that_could_hold_anything():
    assert not [path for path in source_files() if NAMES_THAT_SWALLOW & set(path.with_suffix("").parts[-2:])]


def test_every_file_can_be_read_in_one_sitting():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in source_files()}
    assert not {path: lines for path, lines in lengths.items() if lines > 300}
