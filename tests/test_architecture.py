"""Which package may import which, and what a package must not load. `docs/architecture.md` draws this table."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

IMPORTS: dict[str, set[str]] = {
    # what is handed between packages, and what they agree on
    "errors": set(),
    "records": set(),
    "device": set(),
    # one noun each
    "audio": {"errors", "records"},
    "segmentation": {"errors", "records"},
    "features": {"errors", "records"},
    "prompt": {"errors", "records"},
    "model": {"device", "errors", "prompt", "records"},
    "diffusion": {"device", "errors", "records"},
    "alignment": {"records"},
    "store": {"errors", "records"},
    "tables": {"errors", "records"},
    "lake": {"errors", "records", "tables"},
    "evaluation": {"errors", "records", "tables"},
    "samples": set(),
    "exports": {"records", "tables"},
    # compositions
    "recipe": {"alignment", "audio", "diffusion", "errors", "features", "model", "records", "segmentation"},
    "frontend": {"audio", "errors", "features", "recipe", "records", "segmentation"},
    "manifests": {"audio", "errors", "records"},
    "corpora": {"audio", "errors", "manifests", "model", "records"},
    "training": {"audio", "diffusion", "errors", "features", "manifests", "model", "prompt", "records"},
    "transcriber": {
        "alignment", "audio", "device", "diffusion", "errors", "features", "frontend", "model", "prompt", "recipe",
        "records",
    },
    "calibrator": {"errors", "evaluator", "features", "manifests", "model"},
    "evaluator": {
        "audio", "errors", "evaluation", "frontend", "manifests", "model", "recipe", "records", "transcriber",
    },
    "baseline": {"audio", "errors", "evaluation", "evaluator", "manifests", "records"},
    "publishing": {"errors", "evaluation", "model", "tables"},
    "serving": {
        "audio", "diffusion", "errors", "exports", "frontend", "lake", "recipe", "records", "store", "tables",
        "transcriber",
    },
    "stages": {
        "audio", "errors", "frontend", "lake", "model", "recipe", "records", "store", "tables", "transcriber",
        },
    # whoever asks
    "__init__": {"transcriber"},
    "commands": {
        "baseline", "calibrator", "corpora", "errors", "evaluation", "evaluator", "exports", "lake", "manifests",
        "model", "publishing", "recipe", "records", "samples", "segmentation", "serving", "stages", "store", "tables",
        "training", "transcriber",
    },
    "cli": {"errors"},
    "pipelines": {
        "errors", "evaluation", "evaluator", "lake", "manifests", "recipe", "records", "samples", "stages", "tables",
    },
}  # fmt: skip
"""Package (or module of `dgasr`) → packages it may import, inside functions too."""

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
"""Packages that a machine without a model loads: importing any of their files must not load torch."""

SLOW_PACKAGES = ("torch", "transformers", "prefect", "pyarrow")

NAMES_THAT_SWALLOW = {"utils", "util", "common", "helpers", "core", "base", "misc"}


def source_files() -> list[Path]:
    return sorted(path for top in ("dgasr", "pipelines") for path in (ROOT / top).rglob("*.py"))


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "pipelines" if parts[0] == "pipelines" else parts[1]


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written out in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_packages(path: Path) -> set[str]:
    packages = set()
    for name in imported_modules(path):
        top, *rest = name.split(".")
        if top == "pipelines":
            packages.add("pipelines")
        elif top == "dgasr":
            packages.add(rest[0] if rest and rest[0] in IMPORTS else "__init__")
    return packages - {package_of(path)}


def loaded_after(statement: str) -> set[str]:
    """Packages of `SLOW_PACKAGES` that a fresh interpreter holds after a statement."""
    program = f"import json, sys\n{statement}\nprint(json.dumps([n for n in {SLOW_PACKAGES} if n in sys.modules]))"
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(finished.stdout.splitlines()[-1]))


def test_every_package_stands_in_the_table():
    assert {package_of(path) for path in source_files()} == set(IMPORTS)


@pytest.mark.parametrize("package", IMPORTS)
def test_a_package_imports_what_the_table_says_and_nothing_else(package):
    found = {path: imported_packages(path) for path in source_files() if package_of(path) == package}
    wrong = {str(path.relative_to(ROOT)): packages - IMPORTS[package] for path, packages in found.items()}
    assert not {path: packages for path, packages in wrong.items() if packages}
    assert IMPORTS[package] == set().union(*found.values()), "the table allows what nobody uses: take it out"


def test_imports_point_one_way():
    packages, settled = dict(IMPORTS), set()
    while packages:
        free = {package for package, imports in packages.items() if imports <= settled}
        assert free, f"these import each other in a circle: {sorted(packages)}"
        settled |= free
        packages = {package: imports for package, imports in packages.items() if package not in free}


def test_nothing_that_is_installed_imports_what_is_not():
    outside = {"benchmarks", "tools", "tests"}
    assert not [path for path in source_files() if outside & {name.split(".")[0] for name in imported_modules(path)}]


def test_the_library_does_not_know_prefect():
    knowing = [p for p in source_files() if any(name.split(".")[0] == "prefect" for name in imported_modules(p))]
    assert {package_of(path) for path in knowing} == {"pipelines"}


def test_machines_without_a_model_do_not_load_torch():
    files = [path for path in source_files() if package_of(path) in TORCH_FREE]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    assert len(modules) > len(TORCH_FREE)
    assert loaded_after(f"import {', '.join(modules)}") == {"pyarrow"}


def test_help_waits_for_no_slow_package():
    statement = "import dgasr, dgasr.cli\ntry: dgasr.cli.main(['--help'])\nexcept SystemExit: pass"
    assert loaded_after(statement) == set()


def test_no_file_has_a_name_that_could_hold_anything():
    assert not [path for path in source_files() if NAMES_THAT_SWALLOW & set(path.with_suffix("").parts[-2:])]


def test_every_file_can_be_read_in_one_sitting():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in source_files()}
    assert not {path: lines for path, lines in lengths.items() if lines > 350}
