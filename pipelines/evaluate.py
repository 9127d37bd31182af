"""The flow `evaluate`: a recipe scored on a fixed manifest, once; the score becomes a row of the lake.

Scheduled, it does nothing until the recipe or the manifest changes, and then says by how much the error rate moved.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.states import Completed

from dgasr.errors import ConfigError
from dgasr.evaluation.normalise import Normalizer
from dgasr.lake.ledger import append_rows, rows_of
from dgasr.lake.location import lake_uri_of
from dgasr.lake.rows import Row, evaluation_row
from dgasr.manifests import manifest_digest, read_manifest
from dgasr.samples import MANIFEST
from dgasr.stages.engine import EngineConfig, load_model, recipe_of
from dgasr.stages.plan import new_run_id
from dgasr.tables import markdown_table
from pipelines.tasks import storage_task

OWN_MANIFEST = "samples"
"""Name of the manifest that comes with the package."""


@flow(name="evaluate", persist_result=False)
async def evaluate(
    lake: str, engine: EngineConfig, manifest: str = OWN_MANIFEST, normalizer: Normalizer = "basic"
) -> Any:
    """Score a recipe on a manifest, unless the lake holds its score.

    Args:
        lake: folder or `s3://bucket/prefix` of the lake that the score goes to.
        engine: which model is scored, and how it decodes.
        manifest: JSONL file on the worker, or `samples` for the recordings that come with the package.
        normalizer: what is made equal before words are compared, `basic` or `whisper`.

    Returns:
        The row of `evaluations`.
    """
    lake_uri, path = lake_uri_of(lake), MANIFEST if manifest == OWN_MANIFEST else Path(manifest)
    if (engine.channels, engine.track) != ("mix", "auto"):
        raise ConfigError(
            f"engine.channels={engine.channels}, engine.track={engine.track}: utterances of a manifest are scored on "
            "the mix of the track with most sound. Leave both out."
        )
    recipe_id, digest = recipe_of(engine).recipe_id, manifest_digest(path)
    scores = await earlier(lake_uri, "evaluations", manifest_digest=digest)
    held = [row for row in scores if (row["path"], row["normalizer"]) == ("diffusion", normalizer)]
    known = next((row for row in held if row["recipe_id"] == recipe_id), None)
    if known is not None:
        return Completed(message=f"scored already: {line(known, held)}", data=known)
    row = await score(lake_uri, engine, path, digest, normalizer)
    await acreate_markdown_artifact(table([*held, row]), key="evaluation", description=line(row, held))
    return Completed(message=line(row, held), data=row)


earlier = storage_task(rows_of)


@storage_task
def score(lake_uri: str, engine: EngineConfig, manifest: Path, digest: str, normalizer: Normalizer) -> Row:
    """Load the model, score it, and write its row."""
    # torch takes seconds to import: a flow that finds the score in the lake does not need it.
    from dgasr.evaluator import EvaluationConfig
    from dgasr.evaluator import evaluate as evaluate_model

    started_at = datetime.now(UTC)
    config = EvaluationConfig(
        normalizer=normalizer, metric="wer", max_steps=engine.max_steps, language=engine.language,
        rescore=engine.rescore, segmentation=engine.segmentation,
    )  # fmt: skip
    evaluation = evaluate_model(read_manifest(manifest), load_model(engine), config, engine.batch_size)
    row = evaluation_row(
        evaluation.to_json(),
        run_id=new_run_id(),
        recipe_id=recipe_of(engine).recipe_id,
        manifest=str(manifest),
        manifest_digest=digest,
        started_at=started_at,
    )
    append_rows(lake_uri, "evaluations", [row])
    return row


def line(row: Row, held: list[Row]) -> str:
    """Say a score in one line, beside the one that another recipe reached before it."""
    before = [other for other in held if other["recipe_id"] != row["recipe_id"]]
    change = f", {_percent(before[-1]['wer'])} under recipe {before[-1]['recipe_id']}" if before else ""
    return f"WER {_percent(row['wer'])} over {row['num_reference_words']} words, recipe {row['recipe_id']}{change}"


def table(rows: list[Row]) -> str:
    """Lay scores out below each other, in Markdown."""
    names = ("scored at", "recipe", "WER", "CER", "words", "RTFx")
    cells = [
        (f"{row['started_at']:%F %H:%M}", f"`{row['recipe_id']}`", _percent(row["wer"]), _percent(row["cer"]),
         row["num_reference_words"], f"{row['rtfx']:.1f}")
        for row in rows
    ]  # fmt: skip
    return markdown_table(names, cells)


def _percent(rate: float | None) -> str:
    return "unknown" if rate is None else f"{rate:.2%}"
