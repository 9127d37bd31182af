"""The utterances with the most errors, laid out for a person who sorts them by cause."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from dgasr.evaluation.groups import group_normalizer
from dgasr.evaluation.normalise import normalise
from dgasr.evaluation.scores import ScoredUtterance, word_edits
from dgasr.evaluation.wer import align

COLUMNS = (
    "rank", "errors", "reference_words", "rate", "set", "language", "speaker", "audio_filepath", "audio_s", "flags",
    "aligned", "reference", "hypothesis", "reference_normalised", "hypothesis_normalised", "baseline", "cause",
)  # fmt: skip
"""Fields of a row; `cause` is empty, for the reader to fill in."""


def worst_utterances(
    utterances: Sequence[ScoredUtterance],
    normalizer: str,
    limit: int,
    baseline: Sequence[ScoredUtterance] | None = None,
) -> list[dict[str, Any]]:
    """Choose the utterances with the most errors, and show where the errors are.

    Errors are counted, not divided by the reference's length: the first rows are those that cost most of the score.
    Of equal counts the higher rate comes first.

    Args:
        utterances: of one evaluation.
        normalizer: one of `normalise.Normalizer`.
        limit: how many at most; utterances without an error are left out.
        baseline: the same utterances as another system recognised them, whose text is shown beside.

    Returns:
        Rows with the fields of `COLUMNS` and the utterance's `number`, from 0; the worst first.
    """
    counts = [word_edits(utterance, group_normalizer([utterance], normalizer)) for utterance in utterances]
    order = sorted(
        (n for n, count in enumerate(counts) if count.errors),
        key=lambda n: (-counts[n].errors, counts[n].reference_words, n),
    )
    rows = []
    for rank, n in enumerate(order[:limit], 1):
        utterance = utterances[n]
        way = group_normalizer([utterance], normalizer)
        reference = normalise(utterance.reference, utterance.language, way)
        hypothesis = normalise(utterance.hypothesis, utterance.language, way)
        rows.append(
            {
                "number": n,
                "rank": rank,
                "errors": counts[n].errors,
                "reference_words": counts[n].reference_words,
                "rate": counts[n].rate,
                "set": utterance.set_name or "",
                "language": utterance.language,
                "speaker": utterance.speaker or "",
                "audio_filepath": utterance.audio_filepath,
                "audio_s": utterance.audio_s,
                "flags": " ".join(sorted(set(utterance.flags))),
                "aligned": aligned_text(reference, hypothesis),
                "reference": utterance.reference,
                "hypothesis": utterance.hypothesis,
                "reference_normalised": " ".join(reference),
                "hypothesis_normalised": " ".join(hypothesis),
                "baseline": baseline[n].hypothesis if baseline else "",
                "cause": "",
            }
        )
    return rows


def aligned_text(reference: Sequence[str], hypothesis: Sequence[str]) -> str:
    """Write both texts as one: `[cat → hat]` for a substitution, `[cat →]` for a deletion, `[→ hat]` for an insertion.

    Args:
        reference: words of the reference.
        hypothesis: words of the hypothesis.
    """
    pieces = []
    for i, j in align(reference, hypothesis):
        before = reference[i] if i is not None else ""
        after = hypothesis[j] if j is not None else ""
        pieces.append(before if before == after else f"[{f'{before} → {after}'.strip()}]")
    return " ".join(pieces)


def worst_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Lay rows of `worst_utterances` out as Markdown, a paragraph each."""
    blocks = []
    for row in rows:
        place = " · ".join(part for part in (row["set"], row["language"], row["speaker"]) if part)
        rate = "no reference" if row["rate"] is None else f"{100 * row['rate']:.0f} %"
        lines = [
            f"### {row['rank']}. {row['errors']} errors, {row['reference_words']} words ({rate}) · {place}",
            "",
            f"`{row['audio_filepath']}`, {row['audio_s']:.1f} s{', flags: ' + row['flags'] if row['flags'] else ''}",
            "",
            f"- errors: {row['aligned']}",
            f"- reference: {row['reference']}",
            f"- hypothesis: {row['hypothesis']}",
            f"- normalised reference: {row['reference_normalised']}",
            f"- normalised hypothesis: {row['hypothesis_normalised']}",
            *([f"- baseline: {row['baseline']}"] if row["baseline"] else []),
            "- cause: ",
            "",
        ]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def worst_tsv(rows: Sequence[dict[str, Any]]) -> str:
    """Lay rows of `worst_utterances` out as a table with tabs, for a spreadsheet."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, extrasaction="ignore", delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
