"""How large the project is: `python -m tools.figures` (`make figures`). Counts what git tracks, blank lines too."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]

SHORT_LINES = 60
"""A file below this is usually a part of its neighbour."""

LONG_LINES = 350
"""A file above this is not read in one sitting."""


def lengths(*folders: str) -> dict[str, int]:
    """Count the lines of all tracked Python files in these folders."""
    command = ["git", "ls-files", "--", *(f"{folder}/**.py" for folder in folders)]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    paths = {name: ROOT / name for name in names}
    return {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in paths.items() if path.is_file()}


def main() -> None:
    """Print one figure a line, and the longest and shortest files of the product."""
    product = lengths("dgasr", "pipelines")
    short = sorted((lines, name) for name, lines in product.items() if lines < SHORT_LINES)
    longest = max(product, key=product.__getitem__)
    print(f"product files (dgasr, pipelines)  {len(product):>7,}")
    print(f"product lines                     {sum(product.values()):>7,}")
    print(f"files under {SHORT_LINES} lines              {len(short):>7,}")
    print(f"  of them __init__.py             {sum(name.endswith('__init__.py') for _, name in short):>7,}")
    print(f"longest file                      {product[longest]:>7,}  {longest}")
    print(f"files over {LONG_LINES} lines              {sum(n > LONG_LINES for n in product.values()):>7,}")
    for folder in ("tests", "benchmarks", "tools"):
        print(f"{folder + ' lines':<34}{sum(lengths(folder).values()):>7,}")


if __name__ == "__main__":
    main()
