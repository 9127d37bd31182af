"""The flow `evaluate` with the bundled model on three of its samples."""

import asyncio
import json
from pathlib import Path

import pytest

from dgasr.errors import ConfigError
from dgasr.lake.ledger import rows_of
from dgasr.manifests import manifest_digest
from dgasr.samples import MANIFEST, SAMPLES
from dgasr.stages.engine import EngineConfig
from pipelines.evaluate import evaluate, line

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("temporary_server")]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [json.loads(text) for text in MANIFEST.read_text().splitlines()]
    rows = [row | {"audio_filepath": str(SAMPLES / row["audio_filepath"])} for row in rows if row["duration"] < 8]
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    return path


def run(lake: Path, manifest: Path, **engine: object) -> dict:
    return asyncio.run(evaluate(lake=str(lake), engine=EngineConfig(device="cpu", **engine), manifest=str(manifest)))


def test_each_recipe_is_scored_once_on_a_manifest(manifest: Path, tmp_path: Path):
    lake = tmp_path / "lake"
    first, again, other = run(lake, manifest), run(lake, manifest), run(lake, manifest, max_steps=2)
    assert again["run_id"] == first["run_id"]
    assert other["recipe_id"] != first["recipe_id"]
    rows = rows_of(str(lake), "evaluations", manifest_digest=manifest_digest(manifest))
    assert [row["run_id"] for row in rows] == [first["run_id"], other["run_id"]]
    assert (rows[0]["num_utterances"], rows[0]["num_reference_words"] > 0) == (3, True)


def test_another_manifest_is_another_score(manifest: Path, tmp_path: Path):
    digest = manifest_digest(manifest)
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:2]))
    assert manifest_digest(manifest) != digest
    assert rows_of(f"{tmp_path}/lake", "evaluations", manifest_digest=digest) == []


def test_a_manifest_that_is_not_on_the_machine_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="Name a manifest that lies on this machine"):
        run(tmp_path / "lake", tmp_path / "gone.jsonl")


def test_a_score_is_told_beside_the_last_one_of_another_recipe():
    rows = [
        {"recipe_id": recipe, "wer": wer, "num_reference_words": 100}
        for recipe, wer in (("a", 0.1), ("b", 0.05), ("b", None))
    ]
    assert line(rows[1], rows[:1]) == "WER 5.00% over 100 words, recipe b, 10.00% under recipe a"
    assert line(rows[2], []) == "WER unknown over 100 words, recipe b"
