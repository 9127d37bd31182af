"""What `dgasr lake check` finds, and the damage that is done before it."""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq

from dgasr.lake.inspection import check_lake


def kinds(lake, severity="fault", is_deep=False):
    return sorted(
        {found.kind for found in check_lake(str(lake), is_deep=is_deep).findings if found.severity == severity}
    )


def the_fault(lake, is_deep=False):
    (found,) = [found for found in check_lake(str(lake), is_deep=is_deep).findings if found.severity == "fault"]
    return found


def part_of(lake: Path, table: str, shard_id: str = "s1") -> Path:
    return next(lake.glob(f"{table}/*/*/{shard_id}.parquet"))


def rewrite(path: Path, change) -> None:
    """Change a part's table and let its commit believe that it always was so."""
    changed = change(pq.ParquetFile(path).read())
    pq.write_table(changed, path, compression="zstd")
    commit_path = path.parents[3] / "commits" / "recipe_id=f00d" / f"{path.stem}.json"
    commit = json.loads(commit_path.read_text())
    for part in commit["parts"]:
        if part["key"].startswith(path.relative_to(path.parents[3]).parts[0]):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            part |= {"size_bytes": path.stat().st_size, "num_rows": changed.num_rows, "sha256": digest}
    commit_path.write_text(json.dumps(commit))
